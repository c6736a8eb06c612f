"""[scan] with a real clamd: held, passed, released; killed, hung, and back."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drainer.delivery.content_scan.clamd import parse_reply
from drainer.delivery.content_scan.protocol import ScannerFailure
from tests.support.command.runner import Bench, call
from tests.support.mta.clamd import EICAR, SIGNATURE, Clamd
from tests.support.smtp_peer.peer import PeerThread

BOB, CAROL, DAN = "bob@example.org", "carol@example.org", "dan@example.org"
VIRUS = (
    b"Subject: invoice\nContent-Type: application/octet-stream\n"
    b"Content-Transfer-Encoding: base64\n\n" + base64.b64encode(EICAR) + b"\n"
)
RULE = "scan-clamav"
WHY = ("--reason", "a false alarm", "--yes")


@pytest.fixture
def clamd(tmp_path: Path) -> Iterator[Clamd]:
    """Give a running clamd."""
    if reason := Clamd.missing_reason():
        pytest.skip(reason)
    with Clamd(tmp_path) as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, clamd: Clamd, primary: PeerThread) -> Bench:
    """Give a bench with a clean message for BOB and a virus for CAROL and DAN."""
    bench = Bench(tmp_path / "bench", primary.port)
    bench.add(BOB)
    bench.add(CAROL, DAN, text=VIRUS)
    scan = {"protocol": "clamd", "address": clamd.address, "timeout": "5s"}
    bench.configure(**{"scan.clamav": scan})
    return bench


@pytest.fixture
def primary(peer: Callable[..., PeerThread]) -> PeerThread:
    """Give a primary that takes everything."""
    return peer()


def test_a_virus_is_held_for_every_recipient(bench: Bench, primary: PeerThread) -> None:
    """One decision each, with the signature as evidence; the clean message is sent."""
    assert bench.drain().code == 5
    assert bench.states() == {BOB: "delivered", CAROL: "held", DAN: "held"}
    assert [mail.forward_paths for mail in primary.accepted] == [[BOB]]
    held = bench.recipients()[CAROL]
    assert held["rule"] == RULE
    decided = bench.verdicts(held["id"])
    assert {(d["rule"], d["verdict"]) for d in decided} == {(RULE, "hold")}
    assert len(decided) == 2
    assert {d["evidence"]["found"] for d in decided} == {SIGNATURE}
    assert SIGNATURE in bench.run("status").stdout
    assert "clamav" in bench.run("status").stdout
    bench.assert_balanced()


def test_a_release_sends_it_and_asks_nobody_again(
    bench: Bench, clamd: Clamd, primary: PeerThread
) -> None:
    """The scanner is gone by then; who was not released stays held."""
    bench.drain()
    clamd.kill()
    assert bench.run("release", "--recipient", "carol@", *WHY).code == 0
    assert bench.drain().code == 5
    assert bench.states() == {BOB: "delivered", CAROL: "delivered", DAN: "held"}
    assert base64.b64encode(EICAR) in (primary.accepted[-1].content or b"")


def test_the_quarantine_lists_and_releases_it(bench: Bench) -> None:
    """Like refused mail; without a filter or an ID nothing is released."""
    bench.drain()
    found = bench.run("quarantine", "list", "--json").lines
    assert {(each["forward_path"], each["state"]) for each in found} == {
        (CAROL, "held"),
        (DAN, "held"),
    }
    assert {each["content"] for each in found} == {"source"}
    assert "Subject" in bench.run("quarantine", "show", found[0]["id"]).stdout
    assert bench.run("quarantine", "release", *WHY).code == 2
    purged = bench.run("quarantine", "purge", found[0]["id"], *WHY, "--json")
    assert purged.json["recipients"] == 0
    released = bench.run("quarantine", "release", "--recipient", "carol@", *WHY)
    assert released.code == 0
    bench.drain()
    assert bench.states() == {BOB: "delivered", CAROL: "delivered", DAN: "held"}


def test_a_release_for_another_reason_is_scanned(bench: Bench) -> None:
    """An operator who has never seen the hit has not released it."""
    bench.configure(primary={"domains": ["example.net"]})
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"held"}
    assert bench.run("release", "--state", "held", *WHY).code == 0
    bench.configure(primary={"domains": ["example.org"]})
    assert bench.drain().code == 5
    assert bench.states() == {BOB: "delivered", CAROL: "held", DAN: "held"}


def test_without_its_scanner_mail_waits(
    bench: Bench, clamd: Clamd, primary: PeerThread
) -> None:
    """No attempt is counted; the drain after the scanner's return sends it."""
    clamd.kill()
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"deferred"}
    assert {row["attempts"] for row in bench.recipients().values()} == {0}
    assert {row["rule"] for row in bench.recipients().values()} == {"unscanned"}
    assert primary.accepted == []
    clamd.start()
    assert bench.drain("--give-up-after", "20s").code == 5
    assert bench.states() == {BOB: "delivered", CAROL: "held", DAN: "held"}


def test_a_scanner_that_hangs_is_given_its_time(
    bench: Bench, clamd: Clamd, primary: PeerThread
) -> None:
    """With `send` the mail leaves without it, and the record says so."""
    clamd.freeze()
    bench.configure(**{"scan.clamav": {"timeout": "300ms", "unreachable": "send"}})
    assert bench.drain().code == 0
    clamd.thaw()
    assert set(bench.states().values()) == {"delivered"}
    assert len(primary.accepted) == 2
    id_ = bench.recipients()[BOB]["id"]
    words = bench.run("why", id_, "--trace").stdout
    assert "sent without it: no answer within" in words


def test_a_message_over_the_limit_is_sent_without_it(
    bench: Bench, primary: PeerThread
) -> None:
    """The limit is for each scanner."""
    bench.configure(**{"scan.clamav": {"max_size": "100"}})
    assert bench.drain().code == 0
    assert len(primary.accepted) == 2


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (b"stream: OK", ""),
        (b"stream: Win.Test-1 FOUND", "Win.Test-1"),
        (b"stream: \x1b[31mred\x07 FOUND", r"\x1b[31mred\x07"),
    ],
)
def test_a_reply_is_understood(reply: bytes, verdict: str) -> None:
    """Controls in a name are escaped."""
    assert parse_reply(reply).verdict == verdict


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"INSTREAM size limit exceeded. ERROR",
        b"stream: Can't allocate memory ERROR",
        b"UNKNOWN COMMAND",
        b"OK",
        b"\xff\xfe",
    ],
)
def test_whatever_else_is_no_answer(reply: bytes) -> None:
    """An error is never taken for a clean content."""
    with pytest.raises(ScannerFailure, match="clamd says"):
        parse_reply(reply)


def test_check_says_that_it_answers(bench: Bench) -> None:
    """In its own words."""
    listed = call("check", "--json", "--config", bench.config).lines
    found = [each for each in listed if "scanner" in each]
    assert [each["verdict"] for each in found] == ["ok"]
    assert "ClamAV" in found[0]["reply"]


def test_a_message_over_clamds_own_limit_waits_alone(
    tmp_path: Path, primary: PeerThread
) -> None:
    """The reason names the limit; the other message is scanned and sent."""
    if reason := Clamd.missing_reason():
        pytest.skip(reason)
    with Clamd(tmp_path, most="1M") as small:
        bench = Bench(tmp_path / "bench", primary.port)
        scan = {"protocol": "clamd", "address": small.address}
        bench.configure(**{"scan.clamav": scan})
        bench.add(CAROL, text=b"Subject: x\n\n" + (b"x" * 70 + b"\n") * 40_000)
        bench.add(BOB)
        assert bench.drain().code == 5
    assert bench.states() == {BOB: "delivered", CAROL: "deferred"}
    reply = bench.recipients()[CAROL]["reply"]
    assert "StreamMaxLength" in reply or "size limit exceeded" in reply
