"""Choosing what to drain, in which order, and where to: nothing else is touched."""

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.command.installed import Drainer, drain_arguments, write_maildir
from tests.support.command.runner import Bench, call
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import in_turn

ALICE, BOB, CAROL = "alice@example.org", "bob@example.org", "carol@example.net"
DAVE = "dave@example.org"
BOTH = {"primary": {"domains": ["example.org", "example.net"]}}
StartPeer = Callable[..., PeerThread]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Give a spool of three messages: to Alice, to Bob and Carol, one to Dave."""
    monkeypatch.chdir(tmp_path)
    made = Bench(tmp_path)
    made.configure(**BOTH)
    made.add(ALICE, sender="news@sender.example")
    made.add(BOB, CAROL)
    made.add(DAVE, sender="", text=b"Subject: large\n\n" + b"x" * 500 + b"\n")
    return made


def sent(peer: PeerThread) -> list[list[str]]:
    """Return the recipients of every message that the peer took."""
    return sorted(message.forward_paths for message in peer.accepted)


def inspected(bench: Bench, *arguments: str) -> list[dict[str, Any]]:
    """Return what `inspect` lists."""
    result = call("inspect", f"postfix:{bench.spool}", "--json", *arguments)
    assert result.code == 0, result.stderr
    return result.lines


NAMES = {1: "A0001", 2: "A0002", 3: "A0003"}
CHOICES: dict[tuple[str, ...], set[int]] = {
    ("--sender", "NEWS@"): {1},
    ("--sender", "<>"): {3},
    ("--recipient", "bob"): {2},
    ("--domain", "example.net"): {2},
    ("--larger-than", "400"): {3},
    ("--smaller-than", "400"): {1, 2},
    ("--older-than", "0s"): {1, 2, 3},
    ("--newer-than", "1s"): set(),
    ("--queue", "deferred"): {1, 2, 3},
    ("--queue", "incoming"): set(),
    ("--exclude", "bob@example.org"): {1, 2, 3},
    ("--exclude", "*@example.net", "--exclude", "A0003"): {1, 2},
    ("--exclude", "<2@test.example>"): {1, 3},
    ("--limit", "2", "--order", "smallest"): {1, 2},
    ("--exclude", "<>", "--domain", "example.org"): {1, 2},
}


@pytest.mark.parametrize(
    ("arguments", "numbers"), CHOICES.items(), ids=[" ".join(c) for c in CHOICES]
)
def test_inspect_plan_and_list_mean_the_same(
    bench: Bench, arguments: tuple[str, ...], numbers: set[int]
) -> None:
    """One selection; a drain's is the next test's."""
    found = [message["native_id"] for message in inspected(bench, *arguments)]
    assert {n for n, name in NAMES.items() if name in found} == numbers
    more = ("--config", bench.config, "--json", *arguments)
    planned = call("plan", f"postfix:{bench.spool}", *more).json
    assert planned["messages"] == len(numbers)


def test_list_and_the_verbs_filter_by_the_same_words(
    peer: StartPeer, bench: Bench
) -> None:
    """What a drain recorded; a queue, an id and an exclusion as well."""
    bench.port = peer(rcpt="450 4.2.1 later").port
    bench.drain()
    Path("ids").write_text("A0002\n", "utf-8")
    cases: dict[tuple[str, ...], list[str]] = {
        ("--ids", "ids"): [BOB, CAROL],
        ("--sender", "<>"): [DAVE],
        ("--exclude", "*@example.org"): [CAROL],
        ("--queue", "hold"): [],
        ("--smaller-than", "400", "--domain", "example.org"): [ALICE, BOB],
    }
    for arguments, paths in cases.items():
        rows = bench.run("list", "--json", *arguments).lines
        assert sorted(row["forward_path"] for row in rows) == paths, arguments
    held = bench.run(
        "hold", "--ids", "ids", "--exclude", CAROL, "--reason", "x", "--json"
    )
    assert held.json == {"recipients": 1, "done": "held"}
    bench.assert_balanced()


def test_what_is_not_chosen_is_neither_sent_nor_recorded(
    peer: StartPeer, bench: Bench
) -> None:
    """Exit 0 for what was; the same command without the filter sends the rest."""
    server = peer()
    bench.port = server.port
    result = bench.drain("--sender", "news@")
    assert result.code == 0, result.stderr
    assert sent(server) == [[ALICE]]
    assert result.json["not_chosen"] == 2
    assert bench.states() == {ALICE: "delivered"}
    bench.assert_balanced()
    assert bench.drain().code == 0
    assert sent(server) == [[ALICE], [BOB, CAROL], [DAVE]]
    bench.assert_balanced()


def test_a_recipient_that_is_not_chosen_waits_beside_one_that_is(
    peer: StartPeer, bench: Bench
) -> None:
    """The message is recorded whole, so that the sum holds; no file is let go."""
    server = peer()
    bench.port = server.port
    assert bench.drain("--domain", "example.net").code == 0
    assert sent(server) == [[CAROL]]
    assert bench.states() == {CAROL: "delivered", BOB: "pending"}
    bench.assert_balanced()
    assert bench.drain("--exclude", "news@sender.example").code == 0
    assert sent(server) == [[BOB], [CAROL], [DAVE]]


def test_what_an_earlier_run_recorded_stays_where_it_is_not_chosen(
    peer: StartPeer, bench: Bench
) -> None:
    """Deferred and due, but not meant."""
    later = ("450 4.2.1 later", "450 4.2.0 locked") * 2  # not all of them alike
    server = peer(rcpt=in_turn(*later, "250 2.1.5 ok"))
    bench.port = server.port
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"deferred"}
    bench.configure(breaker={"give_up_after": "5s"})
    result = bench.drain("--sender", "news@", "--queue", "deferred")
    assert result.code == 0, result.stderr
    assert sent(server) == [[ALICE]]
    others = {BOB: "deferred", CAROL: "deferred", DAVE: "deferred"}
    assert bench.states() == {ALICE: "delivered"} | others
    assert bench.drain().code == 0
    bench.assert_balanced()


def test_a_limit_counts_messages_and_old_ones_first(
    peer: StartPeer, bench: Bench
) -> None:
    """One more each time; what was recorded and had no turn is not a remainder."""
    server = peer()
    bench.port = server.port
    for count in (1, 2, 3):
        result = bench.drain("--limit", "1")
        assert result.code == 0, result.stderr
        assert result.json["sent_messages"] == 1
        assert len(server.accepted) == count
        bench.assert_balanced()
    assert bench.drain("--limit", "1").json["sent_messages"] == 0


def test_a_limit_says_that_the_spool_has_more(peer: StartPeer, bench: Bench) -> None:
    """`inspect` and `plan` too; not if it has no more."""
    bench.port = peer().port
    source = f"postfix:{bench.spool}"
    for command in ("inspect", "plan"):
        assert "more messages than --limit 2" in bench.run(
            command, source, "--limit", "2"
        ).stderr  # fmt: skip
        assert "more messages" not in bench.run(command, source, "--limit", "3").stderr
    shown = bench.run("drain", source, "--limit", "1").stdout
    assert "--limit ended the scan of the spool" in shown


def test_a_retry_within_the_run_is_not_counted_again(
    peer: StartPeer, bench: Bench
) -> None:
    """Of two messages one is deferred at first; both arrive, the third does not."""
    bench.configure(breaker={"give_up_after": "5s"})
    server = peer(mail=in_turn("450 4.2.1 later", "250 2.1.0 ok"))
    bench.port = server.port
    assert bench.drain("--limit", "2").code == 0
    assert len(server.accepted) == 2
    bench.assert_balanced()


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("oldest", [2, 0, 1]),
        ("newest", [1, 0, 2]),
        ("smallest", [1, 2, 0]),
        ("deadline", [0, 1, 2]),
    ],
)
def test_an_order_is_that_of_the_whole_spool(
    tmp_path: Path, order: str, expected: list[int]
) -> None:
    """The primary sees it; the third is past its lifetime and cannot be saved."""
    paths = []
    for n, (days, size) in enumerate([(2, 9000), (1, 10), (9, 300)]):
        write_maildir(tmp_path / f"spool{n}", 1, size=size, domain=f"d{n}.example")
        (file,) = (tmp_path / f"spool{n}" / "new").iterdir()
        when = time.time() - days * 86400
        os.utime(file, (when, when))
        paths.append(f"user0@d{n}.example")
    drainer = Drainer(tmp_path / "ledger.db")
    sources = [tmp_path / f"spool{n}" for n in range(3)]
    with PeerThread() as primary:
        arguments = drain_arguments(sources[0], primary.port, "--no-check")
        more = (*sources[1:], "--order", order, "--connections", 1)
        result = drainer.run(*arguments, *more)
        assert result.code == 0, result.stderr
        assert [m.forward_paths for m in primary.accepted] == [
            [paths[n]] for n in expected
        ]
    again = drainer.run("inspect", *sources, "--json")
    assert again.objects == []


def test_a_domain_with_much_mail_does_not_keep_others_waiting(tmp_path: Path) -> None:
    """Two hundred lie before five: those come among the first, at any rate."""
    write_maildir(tmp_path / "big", 200, domain="big.example")
    write_maildir(tmp_path / "small", 5, domain="small.example")
    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread() as primary:
        arguments = drain_arguments(
            tmp_path / "big", primary.port, "--no-check", "--rate", "40/second"
        )
        result = drainer.run(*arguments, tmp_path / "small", "--connections", 2)
        assert result.code == 0, result.stderr
        places = [
            n
            for n, message in enumerate(primary.accepted)
            if message.forward_paths[0].endswith("@small.example")
        ]
    assert len(places) == 5
    assert places[-1] < 195, "without turns they would be the last five"


# ---- who is meant by name


def test_ids_come_from_a_file_or_from_standard_input(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As other commands print them."""
    ids = [m["id"][:12] for m in inspected(bench) if m["native_id"] != "A0002"]
    Path("ids").write_text("\n".join([*ids, ""]), "utf-8")
    found = inspected(bench, "--ids", "ids")
    assert {m["native_id"] for m in found} == {"A0001", "A0003"}
    text = SimpleNamespace(buffer=io.BytesIO(b"<1@test.example>\r\n"))
    monkeypatch.setattr("sys.stdin", text)
    found = inspected(bench, "--ids", "-")
    assert [m["native_id"] for m in found] == ["A0001"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--ids", "absent"), "cannot read absent"),
        (("--exclude", "*"), "excludes nothing"),
        (("--smaller-than", "much"), "not a size"),
        (("--map-recipient", "old@x=new"), "no domain"),
        (("--map-recipient", "old@x=new@y", "--map-recipient", "old@x=z@y"), "twice"),
        (("--map-file", "absent"), "cannot read absent"),
    ],
)
def test_a_choice_that_makes_no_sense_is_exit_2(
    bench: Bench, arguments: tuple[str, ...], word: str
) -> None:
    """Before anything is sent."""
    result = bench.drain(*arguments)
    assert result.code == 2, result
    assert word in " ".join(result.stderr.split())
    assert not bench.ledger.exists()


# ---- where to


def envelope(peer: PeerThread) -> dict[str, dict[str, str]]:
    """Return the parameters of every RCPT that was taken, by its address."""
    return {
        recipient.forward_path: recipient.parameters
        for message in peer.accepted
        for recipient in message.recipients
    }


def test_a_mapped_recipient_is_visible_everywhere(
    peer: StartPeer, bench: Bench
) -> None:
    """On the wire by its new address, with ORCPT; in the ledger by its own."""
    server = peer()
    bench.port = server.port
    bench.configure(telemetry={"traces": "file:traces.jsonl"})
    Path("map").write_text(
        f"# moved\n@example.net  @example.org\n{ALICE}=eve@example.org\n"
    )
    assert bench.drain("--map-file", "map").code == 0
    found = envelope(server)
    assert set(found) == {"eve@example.org", BOB, "carol@example.org", DAVE}
    assert found["eve@example.org"]["ORCPT"] == f"rfc822;{ALICE}"
    assert "ORCPT" not in found[BOB]
    rows = bench.run("list", "--json", "--domain", "example.net").lines
    assert [row["forward_path"] for row in rows] == [CAROL]
    (verdict,) = bench.verdicts("A0001")
    assert verdict["evidence"]["sent_to"] == "eve@example.org"
    assert "sent to eve@example.org" in bench.run("why", "A0001").stdout
    assert "drainer.evidence.sent_to" in Path("traces.jsonl").read_text("utf-8")
    bench.assert_balanced()


def test_two_recipients_that_become_one_get_one_copy(
    peer: StartPeer, bench: Bench
) -> None:
    """And both are delivered."""
    server = peer()
    bench.port = server.port
    result = bench.drain("--map-recipient", f"{CAROL}={BOB}", "--ids", _file("A0002"))
    assert result.code == 0, result.stderr
    assert sent(server) == [[BOB]]
    assert bench.states() == {BOB: "delivered", CAROL: "delivered"}
    bench.assert_balanced()


def test_a_mapping_is_applied_once(peer: StartPeer, bench: Bench) -> None:
    """Two may change places."""
    server = peer()
    bench.port = server.port
    swap = ("--map-recipient", f"{ALICE}={BOB}", "--map-recipient", f"{BOB}={ALICE}")
    assert bench.drain(*swap, "--exclude", CAROL).code == 0
    assert sent(server) == [[ALICE], [BOB], [DAVE]]


def test_a_mapping_into_the_primarys_domains_lets_go_what_was_foreign(
    peer: StartPeer, bench: Bench
) -> None:
    """And one out of them holds."""
    server = peer()
    bench.port = server.port
    bench.configure(primary={"domains": ["example.org"]})
    assert bench.drain().code == 5
    assert bench.states()[CAROL] == "held"
    assert bench.drain("--map-recipient", "@example.net=@example.org").code == 0
    assert ["carol@example.org"] in sent(server)
    eve = "eve@example.org"
    bench.add(eve)
    result = bench.drain("--map-recipient", f"{eve}=eve@elsewhere.example")
    assert result.code == 5
    assert bench.states()[eve] == "held"
    assert bench.recipients()[eve]["rule"] == "local-not-for-this-primary"
    bench.assert_balanced()


def _file(*lines: str) -> str:
    Path("names").write_text("\n".join(lines), "utf-8")
    return "names"
