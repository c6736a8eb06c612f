"""[scan] with a real rspamd: what it is told, what holds, and bad replies."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drainer.delivery.content_scan.protocol import ScannerFailure
from drainer.delivery.content_scan.rspamd import parse_answer, parse_http
from drainer.policy.admission.content_scan import MAX_SYMBOLS
from tests.support.command.runner import Bench, call
from tests.support.mta.rspamd import Rspamd
from tests.support.smtp_peer.peer import PeerThread
from tests.support.spools.postfix_files import record

BOB, CAROL = "bob@example.org", "carol@example.org"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
CLIENT = ("client_address=192.0.2.7", "client_name=mx.example.com",
          "helo_name=helo.example.com", "sasl_username=alice")  # fmt: skip
#: A symbol for each fact of the envelope that is as the test wrote it.
FACTS = """
local function known(name, holds)
  rspamd_config:register_symbol({name = name, type = 'normal', score = 1,
    callback = function(task) if holds(task) then return true end end})
end
known('SEEN_IP', function(t) return tostring(t:get_ip()) == '192.0.2.7' end)
known('SEEN_HOST', function(t) return t:get_hostname() == 'mx.example.com' end)
known('SEEN_HELO', function(t) return t:get_helo() == 'helo.example.com' end)
known('SEEN_USER', function(t) return t:get_user() == 'alice' end)
known('SEEN_FROM', function(t) return t:get_from('smtp')[1].addr == 's@example.com' end)
known('SEEN_RCPT', function(t) return #t:get_recipients('smtp') == 2 end)
known('SEEN_ID', function(t) return t:get_queue_id() == 'A0001' end)
"""
SEEN = {f"SEEN_{fact}" for fact in ("IP", "HOST", "HELO", "USER", "FROM", "RCPT", "ID")}


@pytest.fixture(scope="module")
def rspamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rspamd]:
    """Give a running rspamd."""
    if reason := Rspamd.missing_reason():
        pytest.skip(reason)
    with Rspamd(tmp_path_factory.mktemp("rspamd"), FACTS) as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, rspamd: Rspamd, peer: Callable[..., PeerThread]) -> Bench:
    """Give a bench that asks it."""
    bench = Bench(tmp_path, peer().port)
    scan = {"protocol": "rspamd", "address": rspamd.address}
    bench.configure(**{"scan.spam": scan})
    return bench


def test_what_it_rejects_is_held_with_score_and_symbols(bench: Bench) -> None:
    """The rest is sent, whatever its score."""
    bench.add(BOB)
    bench.add(CAROL, text=b"Subject: x\n\n" + GTUBE + b"\n")
    assert bench.drain().code == 5
    assert bench.states() == {BOB: "delivered", CAROL: "held"}
    (decided,) = bench.verdicts(bench.recipients()[CAROL]["id"])
    assert decided["rule"] == "scan-spam"
    assert decided["evidence"]["found"] == "reject"
    assert decided["evidence"]["score"] == 15
    assert "GTUBE" in decided["evidence"]["symbols"]


def test_it_is_told_of_envelope_client_and_login(bench: Bench) -> None:
    """As if the client had sent the message to the primary itself."""
    bench.add(BOB, CAROL, envelope=[record("A", each) for each in CLIENT])
    bench.configure(**{"scan.spam": {"score": 7}})
    assert bench.drain().code == 5
    decided = bench.verdicts(bench.recipients()[BOB]["id"])[0]
    assert set(decided["evidence"]["symbols"]) >= SEEN


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 500 Internal\r\n\r\n{}",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"220 mx.example ESMTP\r\n",
        b"\xff" * 100,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    ],
)
def test_what_is_no_successful_reply(reply: bytes) -> None:
    """It says nothing about the message."""
    with pytest.raises(ScannerFailure):
        parse_http(reply)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"action": "no action"}',
        b'{"action": 1, "score": 2}',
        b'{"action": "no action", "score": "high"}',
        b'{"error": "invalid command"}',
        b"[" * 100_000,
        b'{"action": "x", "score": 1, "y": ' + b"[" * 100_000,
        b'{"action": "x", "score": 1e999}',
    ],
)
def test_what_is_no_answer(body: bytes) -> None:
    """An answer without action and score is never taken for a clean one."""
    with pytest.raises(ScannerFailure):
        parse_answer(body)


def test_texts_of_an_answer_are_limited_and_escaped() -> None:
    """The symbols with the largest scores are kept."""
    symbols = ",".join(f'"S{n}": {{"score": {n}}}' for n in range(300))
    body = f'{{"action": "re\\u001bject", "score": 1, "symbols": {{{symbols}}}}}'
    answer = parse_answer(body.encode())
    assert answer.verdict == r"re\x1bject"
    assert len(answer.symbols) == MAX_SYMBOLS
    assert answer.symbols[0] == "S299"


def test_check_says_that_it_answers(bench: Bench) -> None:
    """In its own words."""
    listed = call("check", "--json", "--config", bench.config).lines
    found = [each for each in listed if "scanner" in each]
    assert [each["verdict"] for each in found] == ["ok"]
    assert "pong" in found[0]["reply"]
