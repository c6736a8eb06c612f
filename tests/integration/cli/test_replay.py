"""`requeue` of delivered mail: sent again where it still is, and marked everywhere."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.command.installed import maildir_message, write_maildir
from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread
from tests.support.web.collector import spans_of_file

PATHS = ("a@example.org", "b@example.org", "c@example.org")
WHY = ("--reason", "restored from a backup", "--yes")


@pytest.fixture
def drained(tmp_path: Path) -> Iterator[tuple[Bench, PeerThread]]:
    """Deliver three messages of a copied queue, which keeps them."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        for path in PATHS:
            bench.add(path)
        bench.configure(telemetry={"traces": f"file:{tmp_path}/traces.jsonl"})
        assert bench.drain().code == 0
        yield bench, peer


def copies(peer: PeerThread) -> Counter[str]:
    """Return how often the primary took the mail of each recipient."""
    return Counter(path for mail in peer.accepted for path in mail.forward_paths)


def test_what_was_delivered_in_a_window_is_sent_again(
    drained: tuple[Bench, PeerThread],
) -> None:
    """Marked in the ledger and in the trace; nothing is sent a third time."""
    bench, peer = drained
    result = bench.run("requeue", "--delivered-since", "1h", "--json", *WHY)
    assert result.json == {"recipients": 3, "missing": 0, "done": "requeued"}
    assert set(bench.states().values()) == {"pending"}
    bench.assert_balanced()
    assert bench.drain().code == 0
    assert bench.drain().code == 0
    assert copies(peer) == dict.fromkeys(PATHS, 2)
    ids = [row["id"] for row in bench.recipients().values()]
    for id_ in ids:
        (marked,) = [d for d in bench.why(id_)["decisions"] if d["kind"] == "operator"]
        assert marked["evidence"]["replay"] is True
        assert marked["evidence"]["before"] == "delivered"
        assert marked["evidence"]["reason"] == "restored from a backup"
    spans = spans_of_file(bench.root / "traces.jsonl")
    marked_spans = [s for s in spans if s.attributes.get("drainer.evidence.replay")]
    assert len(marked_spans) == 3
    last = {s.trace_id: s for s in spans if s.name == "message"}
    assert [span.attributes["drainer.attempts"] for span in last.values()] == [2] * 3


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--delivered-until", "1h"], 0),
        (["--delivered-since", "2020-01-01"], 3),
        (["--delivered-since", "1h", "--recipient", "a@"], 1),
        (["--delivered-since", "1h", "--delivered-until", "30m"], 0),
    ],
)
def test_the_window_and_every_filter_count(
    drained: tuple[Bench, PeerThread], options: list[str], count: int
) -> None:
    """Times in UTC or ago; the other filters narrow it."""
    bench, _ = drained
    result = bench.run("requeue", *options, "--dry-run", "--json")
    assert result.json["recipients"] == count
    assert set(bench.states().values()) == {"delivered"}
    until = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    both = ("--delivered-since", "1h", "--delivered-until", until)
    assert bench.run("requeue", *both, "--dry-run", "--json").json["recipients"] == 3


def test_a_list_of_message_ids(drained: tuple[Bench, PeerThread]) -> None:
    """Those that the primary misses, with or without angle brackets."""
    bench, peer = drained
    receipts = bench.root / "missing.txt"
    receipts.write_text("<1@test.example>\n3@test.example\n\nother@x\n")
    result = bench.run("requeue", "--receipt-of", str(receipts), "--json", *WHY)
    assert result.json["recipients"] == 2
    assert bench.drain().code == 0
    assert copies(peer) == {PATHS[0]: 2, PATHS[1]: 1, PATHS[2]: 2}


def test_what_is_gone_is_named_and_stays_delivered(
    drained: tuple[Bench, PeerThread],
) -> None:
    """A recipient that can never be sent again must not wait for ever."""
    bench, _ = drained
    (gone, *_) = (path for path in bench.spool.rglob("A0001"))
    gone.unlink()
    result = bench.run("requeue", "--delivered-since", "1h", "--json", *WHY)
    assert result.json == {"recipients": 2, "missing": 1, "done": "requeued"}
    assert "A0001" in result.stderr
    assert Counter(bench.states().values()) == {"pending": 2, "delivered": 1}


def test_status_says_how_far_back(drained: tuple[Bench, PeerThread]) -> None:
    """By what the sources have not dropped."""
    bench, _ = drained
    found = bench.run("status", "--json").json["replay"]
    assert found["recipients"] == 3
    since = datetime.fromisoformat(found["since"])
    assert timedelta(0) <= datetime.now(UTC) - since < timedelta(hours=1)
    assert "replay: the sources still have" in bench.run("status").stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--delivered-since", "1h"], "--reason"),
        (["--delivered-since", "tomorrow"], "tomorrow"),
        (["--delivered-since", "1h", "--delivered-until", "2h", *WHY], "later than"),
        (["--delivered-since", "1h", "--state", "held"], "--state"),
        (["--receipt-of", "absent", *WHY], "absent"),
    ],
)
def test_what_is_no_window(
    drained: tuple[Bench, PeerThread], options: list[str], words: str
) -> None:
    """Named, and nothing changes."""
    bench, _ = drained
    refused = bench.run("requeue", *options)
    assert refused.code == 2
    assert words in refused.stderr
    assert set(bench.states().values()) == {"delivered"}


# ---- copies of delivered mail


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    """Write a Maildir of three; it drops what is delivered."""
    write_maildir(tmp_path / "mail", 3)
    return tmp_path / "mail"


def drain_maildir(bench: Bench, maildir: Path) -> int:
    """Drain it, and remove what the drain has moved aside."""
    code = bench.run("drain", f"maildir:{maildir}", "--no-check").code
    shutil.rmtree(maildir.with_name("mail.drained"), ignore_errors=True)
    return code


def test_kept_copies_are_sent_again(tmp_path: Path, maildir: Path) -> None:
    """The source has dropped the mail; the copies are private and have its content."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        bench.configure(primary={"keep": "7d"})
        assert drain_maildir(bench, maildir) == 0
        kept = list((tmp_path / "ledger.db.kept").glob("*.eml"))
        assert len(kept) == 3
        assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
        replay = bench.run("status", "--json").json["replay"]
        assert replay["copies"] == 3
        assert datetime.fromisoformat(replay["copies_since"]).tzinfo
        again = bench.run("requeue", "--delivered-since", "1h", "--json", *WHY)
        assert again.json == {"recipients": 3, "missing": 0, "done": "requeued"}
        assert drain_maildir(bench, maildir) == 0
        assert set(copies(peer).values()) == {2}
        contents = Counter(mail.content for mail in peer.accepted)
    assert set(contents.values()) == {2}


def test_without_keep_there_are_no_copies(tmp_path: Path, maildir: Path) -> None:
    """It is off, and then nothing can be sent again."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        assert drain_maildir(bench, maildir) == 0
        assert not (tmp_path / "ledger.db.kept").exists()
        again = bench.run("requeue", "--delivered-since", "1h", "--json", *WHY)
    assert again.json == {"recipients": 0, "missing": 3, "done": "requeued"}


def test_a_maildir_has_it_beside_itself(tmp_path: Path, maildir: Path) -> None:
    """`requeue` says where its mail went; moved back, it is sent again, once."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        assert bench.run("drain", f"maildir:{maildir}", "--no-check").code == 0
        refused = bench.run("requeue", "--delivered-since", "1h", "--json", *WHY)
        assert refused.json["missing"] == 3
        assert f"to maildir:{maildir}.drained: move it back" in refused.stderr
        for path in (tmp_path / "mail.drained" / "new").iterdir():
            path.rename(maildir / "new" / path.name)
        again = bench.run("requeue", "--delivered-since", "1h", "--json", *WHY)
        assert again.json == {"recipients": 3, "missing": 0, "done": "requeued"}
        for _ in range(2):
            assert bench.run("drain", f"maildir:{maildir}", "--no-check").code == 0
        assert set(copies(peer).values()) == {2}


@pytest.mark.parametrize(
    ("keys", "left"), [({"keep": "1h"}, 1), ({"keep": "7d", "keep_size": "1kB"}, 1)]
)
def test_copies_are_limited_by_age_and_size(
    tmp_path: Path, maildir: Path, keys: dict[str, str], left: int
) -> None:
    """The oldest go first, at the start of a drain or when there are too many."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        bench.configure(primary={"keep": "7d"})
        assert drain_maildir(bench, maildir) == 0
        folder = tmp_path / "ledger.db.kept"
        for path in folder.iterdir():
            os.utime(path, (1, 1) if "1h" in keys.values() else None)
        (maildir / "new" / "1795453999.M000009P1.backup").write_bytes(
            maildir_message(9, "new@example.org")
        )
        bench.configure(primary=keys)
        assert drain_maildir(bench, maildir) == 0
    assert len(list(folder.glob("*.eml"))) == left
