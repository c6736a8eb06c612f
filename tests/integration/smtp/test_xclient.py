"""The primary learns of the original client: real Postfix, and peers that refuse."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.command.runner import Bench, call, end
from tests.support.mta.roles import Primary
from tests.support.scenarios.sessions import verbs
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import EXTENSIONS, Answer, View, in_turn
from tests.support.spools.postfix_files import record

OFFER = (*EXTENSIONS, "XFORWARD NAME ADDR IDENT SOURCE HELO")
PLAIN_OFFER = tuple(word for word in OFFER if word != "PIPELINING")
TRUSTING = {
    "smtpd_authorized_xclient_hosts": "127.0.0.1",
    "smtpd_authorized_xforward_hosts": "127.0.0.1",
    "smtpd_client_restrictions": "check_client_access inline:{ {192.0.2.66=REJECT} }",
    "smtpd_discard_ehlo_keyword_address_maps": "inline:{ {192.0.2.8=pipelining} }",
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a spool, a ledger and a configuration."""
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def trusting(primary_postfix: Callable[..., Primary]) -> Primary:
    """Give a primary that lets this host name clients, and refuses one of them."""
    return primary_postfix(parameters=TRUSTING)


def client(address: str, name: str = "unknown", helo: str = "helo") -> list[bytes]:
    """Return what Postfix records of a client."""
    facts = {"client_address": address, "client_name": name, "helo_name": helo}
    return [record("A", f"log_{name}={value}") for name, value in facts.items()]


ANNA = client("192.0.2.7", "mail.example.com", "anna.example.com")
BERT = client("192.0.2.8", helo="bert.example.com")


def drained(bench: Bench, primary: Primary, mode: str) -> dict[bytes, bytes]:
    """Drain what was added; return the trace fields of what came, by recipient."""
    bench.port = primary.port
    bench.configure(primary={"forward_client": mode})
    before = len(primary.received())
    result = bench.drain()
    bench.assert_balanced()
    assert result.code == 0, result.stderr
    came = primary.wait_received(before + result.json["sent_messages"])[before:]
    return {each.recipient: each.trace for each in came}


def test_a_real_postfix_takes_the_session_for_the_clients(
    bench: Bench, trusting: Primary
) -> None:
    """Each message is judged by the client that the backup saw.

    Bert's address is offered no PIPELINING, the backup's own mail is its own.
    """
    for n, envelope in enumerate([ANNA, ANNA, BERT, [], ANNA, BERT]):
        bench.add(f"x{n}@example.org", envelope=envelope)
    found = drained(bench, trusting, "xclient")
    anna = b"from anna.example.com (mail.example.com [192.0.2.7])"
    bert = b"from bert.example.com (unknown [192.0.2.8])"
    own = b"from backup.example (localhost [127.0.0.1])"
    for n, words in enumerate([anna, anna, bert, own, anna, bert]):
        assert words in found[f"x{n}@example.org".encode()]


def test_its_restrictions_judge_the_client(bench: Bench, trusting: Primary) -> None:
    """One that it lists is refused, for what it is; the others are welcome."""
    bench.port = trusting.port
    bench.configure(primary={"forward_client": "xclient"})
    bad = bench.add("bad@example.org", envelope=client("192.0.2.66"))
    for n in range(4):
        bench.add(f"good{n}@example.org", envelope=ANNA, sender=f"s@{n}.example")
    bench.drain()
    states = bench.states()
    assert states.pop("bad@example.org") == "held"
    assert set(states.values()) == {"delivered"}
    assert "unknown[192.0.2.66]" in bench.verdicts(bad)[-1]["reply"]


def test_a_scanner_is_not_asked_what_the_primary_filters(
    bench: Bench, trusting: Primary
) -> None:
    """From the first session on; the backup's own mail is still scanned.

    The first scan ends at once, and the second one when a session is open.
    """
    for n in range(6):
        bench.add(f"f{n}@example.org", envelope=ANNA)
    bench.add("own@example.org")
    program, log, go = (bench.root / name for name in ("scan", "log", "go"))
    program.write_text(
        f"#!/bin/sh\n[ ! -e {log} ] || while [ ! -e {go} ]; do sleep 0.05; done\n"
        f'echo "$RECIPIENTS" >>{log}\n',
        "utf-8",
    )
    program.chmod(0o700)
    scan = {"protocol": "command", "command": [str(program)], "concurrency": 1}
    bench.port, before = trusting.port, len(trusting.received())
    bench.configure(primary={"forward_client": "xclient"})
    bench.configure(**{"scan.own": {**scan, "primary_filters": True}})
    drain = bench.start("drain", f"postfix:{bench.spool}", "--json", "--no-check")
    trusting.wait_received(before + 1)
    go.touch()
    assert end(drain).code == 0
    scanned = log.read_text("utf-8").split()
    assert len(scanned) <= 3
    assert "own@example.org" in scanned
    assert set(bench.states().values()) == {"delivered"}
    words = [bench.run("why", f"A000{n}", "--trace").stdout for n in range(1, 7)]
    assert any("own: the primary filters it" in each for each in words)


def test_a_real_postfix_logs_the_client(bench: Bench, trusting: Primary) -> None:
    """XFORWARD, pipelined: with the queue id of the backup, and for each its own."""
    ids = [bench.add(f"f{n}@example.org", envelope=e) for n, e in enumerate([ANNA, []])]
    found = drained(bench, trusting, "xforward")
    assert all(b"[127.0.0.1]" in trace for trace in found.values())
    log = trusting.log()
    named = f"orig_queue_id={ids[0]}, orig_client=mail.example.com[192.0.2.7]"
    assert named in log
    assert f"orig_queue_id={ids[1]}" not in log


def test_check_warns_when_the_primary_does_not_offer_it(
    bench: Bench, peer: Callable[..., PeerThread]
) -> None:
    """Filters would judge everybody by the backup's address, and nobody knew."""
    bench.port = peer().port
    bench.configure(primary={"forward_client": "xclient"})
    result = call("check", "--json", "--config", bench.config)
    assert "forward client" in result.stdout, result.stderr
    bench.configure(primary={"forward_client": "off"})
    assert (
        "forward client" not in call("check", "--json", "--config", bench.config).stdout
    )


PEERS = pytest.mark.parametrize(
    "extensions", [OFFER, PLAIN_OFFER], ids=["pipelined", "one-by-one"]
)


@pytest.mark.parametrize(
    ("extensions", "reply"),
    [
        pytest.param(OFFER, "554 5.7.0 no", id="554-pipelined"),
        pytest.param(OFFER, "451 4.3.0 no", id="451-pipelined"),
        pytest.param(PLAIN_OFFER, "501 5.5.4 what?", id="501-one-by-one"),
    ],
)
def test_a_refused_xforward_stops_and_judges_nobody(
    bench: Bench,
    peer: Callable[..., PeerThread],
    extensions: Sequence[str],
    reply: str,
) -> None:
    """Though MAIL and DATA were on their way: no message, and no empty one, arrives."""
    server = peer(extensions=tuple(extensions), xforward=reply)
    bench.port = server.port
    bench.configure(primary={"forward_client": "auto"})
    for n in range(3):
        bench.add(f"r{n}@example.org", envelope=ANNA, sender=f"s@{n}.example")
    result = bench.drain()
    assert result.code == 4
    assert server.messages == []
    assert set(bench.states().values()) <= {"deferred", "pending"}
    for verdict in bench.verdicts("A0001"):
        assert verdict["verdict"] == "stop"
        assert verdict["rule"] == f"forward-{reply[0]}xx"
    bench.assert_balanced()


def test_a_refused_xclient_stops_and_judges_nobody(
    bench: Bench, peer: Callable[..., PeerThread]
) -> None:
    """Nothing follows it, so that a server that only says it knows it gets no mail."""
    server = peer(extensions=(*EXTENSIONS, "XCLIENT NAME ADDR HELO"))
    bench.port = server.port
    bench.configure(primary={"forward_client": "auto"})
    for n in range(3):
        bench.add(f"r{n}@example.org", envelope=ANNA, sender=f"s@{n}.example")
    assert bench.drain().code == 4
    assert server.messages == []
    rules = {verdict["rule"] for verdict in bench.verdicts("A0001")}
    assert rules == {"forward-5xx"}
    bench.assert_balanced()


@PEERS
def test_one_client_that_is_refused_does_not_keep_the_others(
    bench: Bench, peer: Callable[..., PeerThread], extensions: Sequence[str]
) -> None:
    """A refusal of what we say about one message holds that message at worst."""

    def by_client(view: View) -> str:
        return "501 5.5.4 bad" if b"192.0.2.8" in view.command.line else "250 2.0.0 ok"

    server = peer(extensions=tuple(extensions), xforward=by_client)
    bench.port = server.port
    bench.configure(
        primary={"forward_client": "xforward"}, breaker={"give_up_after": "20s"}
    )
    bench.add("bert@example.org", envelope=BERT, sender="b@bert.example")
    for n in range(3):
        bench.add(f"r{n}@example.org", envelope=ANNA, sender=f"s@{n}.example")
    bench.drain()
    states = bench.states()
    bert = states.pop("bert@example.org")
    assert set(states.values()) == {"delivered"}
    assert bert in ("held", "deferred")
    bench.assert_balanced()


@PEERS
def test_xforward_travels_with_mail(
    bench: Bench, peer: Callable[..., PeerThread], extensions: Sequence[str]
) -> None:
    """Before each MAIL, in step with the replies, also when a message is refused."""
    rcpt: Answer = in_turn("250 2.1.5 ok", "550 5.1.1 no", "250 2.1.5 ok")
    server = peer(extensions=tuple(extensions), xforward="250 2.0.0 ok", rcpt=rcpt)
    bench.port = server.port
    bench.configure(primary={"forward_client": "xforward"})
    for n, envelope in enumerate([ANNA, BERT, ANNA]):
        bench.add(f"r{n}@example.org", envelope=envelope)
    bench.drain()
    said = [verb for verb in verbs(server) if verb in ("XFORWARD", "MAIL")]
    assert said == ["XFORWARD", "MAIL"] * 3
    assert len(server.accepted) == 2
    assert server.violations == []
