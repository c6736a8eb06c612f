"""[scan] with a real spamd: its score, its rules, the user, and bad replies."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drainer.delivery.content_scan.protocol import ScannerFailure
from drainer.delivery.content_scan.spamd import parse_reply
from drainer.policy.admission.content_scan import MAX_SYMBOLS
from tests.support.command.runner import Bench, call
from tests.support.mta.spamd import Spamd
from tests.support.smtp_peer.peer import PeerThread

BOB, CAROL = "bob@example.org", "carol@example.org"


@pytest.fixture(scope="module")
def spamd() -> Iterator[Spamd]:
    """Give a running spamd."""
    if reason := Spamd.missing_reason():
        pytest.skip(reason)
    with Spamd() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, spamd: Spamd, peer: Callable[..., PeerThread]) -> Bench:
    """Give a bench that asks it, with 3.5 points for BOB and 6.5 for CAROL."""
    bench = Bench(tmp_path, peer().port)
    bench.add(BOB, text=b"Subject: offer\n\nx\n")
    bench.add(CAROL, text=b"Subject: bargain offer\n\nx\n")
    bench.configure(**{"scan.sa": {"protocol": "spamd", "address": spamd.address}})
    return bench


def test_spam_is_held_with_score_and_rules(bench: Bench) -> None:
    """What spamd itself calls spam; it is told whose preferences apply."""
    assert bench.drain().code == 5
    assert bench.states() == {BOB: "delivered", CAROL: "held"}
    (decided,) = bench.verdicts(bench.recipients()[CAROL]["id"])
    assert decided["rule"] == "scan-sa"
    assert decided["evidence"]["found"] == "spam"
    assert decided["evidence"]["score"] == 6.5
    assert set(decided["evidence"]["symbols"]) == {"OFFER", "BARGAIN"}


@pytest.mark.parametrize(("score", "states"), [(3.5, {"held"}), (6.6, {"delivered"})])
def test_a_score_of_drainers_own(bench: Bench, score: float, states: set[str]) -> None:
    """It counts instead of spamd's own limit, whether lower or higher."""
    bench.configure(**{"scan.sa": {"score": score}})
    bench.drain()
    assert set(bench.states().values()) == states


def test_a_profile_is_the_user_whose_rules_apply(bench: Bench, spamd: Spamd) -> None:
    """As spamc -u."""
    bench.configure(**{"scan.sa": {"profile": "alice"}})
    bench.drain()
    assert "for alice:" in spamd.log


@pytest.mark.parametrize(
    "reply",
    [
        b"SPAMD/1.1 76 Bad header line: x\r\n",
        b"SPAMD/1.1 0 EX_OK\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; high / 5.0\r\n\r\nX",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1.2.3 / 5.0\r\n\r\nX",
        b"SPAMD/1.1 0 EX_OK\r\nContent-length: 3\r\n\r\nSpam: False ; 1 / 5\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\xff\xfe",
    ],
)
def test_what_is_no_answer(reply: bytes) -> None:
    """A reply without success and score is never taken for a clean one."""
    with pytest.raises(ScannerFailure, match="spamd"):
        parse_reply(reply)


def test_rules_of_a_reply_are_limited_and_escaped() -> None:
    """A score may be negative."""
    names = ",".join(["A\x1bB", *(f"R{n}" for n in range(300))])
    reply = f"SPAMD/1.1 0 EX_OK\r\nSpam: False ; -1.5 / 5.0\r\n\r\n{names}\r\n"
    answer = parse_reply(reply.encode())
    assert (answer.verdict, answer.score) == ("", -1.5)
    assert answer.symbols[0] == r"A\x1bB"
    assert len(answer.symbols) == MAX_SYMBOLS


def test_check_says_that_it_answers(bench: Bench) -> None:
    """In its own words."""
    listed = call("check", "--json", "--config", bench.config).lines
    found = [each for each in listed if "scanner" in each]
    assert [each["verdict"] for each in found] == ["ok"]
    assert "PONG" in found[0]["reply"]
