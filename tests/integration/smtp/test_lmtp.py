"""LMTP: a reply for each recipient after the final dot (RFC 2033), TCP or Unix socket.

The scripted peer speaks LMTP here: it answers the dot for each accepted recipient, and
notes it when anything is sent behind a dot before that.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.support.command.runner import Bench, call
from tests.support.scenarios.bounces import nobody_unknown, refusing
from tests.support.scenarios.sessions import (
    ALICE,
    BOB,
    CAROL,
    LARGE,
    PATIENT,
    PIPELINING,
    StartPeer,
    verbs,
)
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    Answer,
    Delay,
    Drop,
    EarlyReply,
    Raw,
    ReplyThenDrop,
    Stall,
    Step,
    per_recipient,
)
from tests.support.tls.certificates import Certificate
from tests.support.web.collector import spans_of_file

OK, FULL, LATER = "250 2.1.5 ok", "552 5.2.2 mailbox is full", "451 4.3.0 later"
EVERYBODY = (ALICE, BOB, CAROL)


@pytest.fixture
def lmtp(peer: StartPeer, bench: Bench) -> StartPeer:
    """Give a function that starts an LMTP peer, and configures the bench for it."""

    def start(**options: Any) -> PeerThread:
        server = peer(lmtp=True, **options)
        bench.port = server.port
        bench.configure(primary={"protocol": "lmtp"}, **PATIENT)
        return server

    return start


def delivered(server: PeerThread) -> list[tuple[str, ...]]:
    """Return whom the peer took each message for."""
    return [tuple(message.taken) for message in server.messages]


def test_traces_name_the_protocol(lmtp: StartPeer, bench: Bench) -> None:
    """Of a connection and of each attempt on it."""
    bench.add(ALICE)
    traces = bench.root / "traces.jsonl"
    lmtp()
    bench.configure(telemetry={"traces": f"file:{traces}"})
    assert bench.drain().code == 0
    spans = spans_of_file(traces)
    for name in ("smtp.connect", "attempt"):
        (span,) = [each for each in spans if each.name == name]
        assert span.attributes["network.protocol.name"] == "lmtp"


@PIPELINING
def test_each_recipient_has_a_reply_of_its_own(
    lmtp: StartPeer, bench: Bench, extensions: tuple[str, ...]
) -> None:
    """They are in the order of the recipients that RCPT accepted, not of all."""
    server = lmtp(
        extensions=extensions,
        rcpt=per_recipient({ALICE: "450 4.2.0 busy"}),
        dot=per_recipient({BOB: LATER, "dave@example.org": FULL}, OK),
    )
    bench.add(ALICE, BOB, CAROL, "dave@example.org", "erin@example.org")
    bench.add("frank@example.org")
    assert bench.drain().code == 5
    found = bench.recipients()
    replies = {path: fact["reply"] for path, fact in found.items() if fact["reply"]}
    assert {path: reply[:9] for path, reply in replies.items()} == {
        ALICE: "450 4.2.0",
        BOB: LATER[:9],
        CAROL: OK[:9],
        "dave@example.org": FULL[:9],
        "erin@example.org": OK[:9],
        "frank@example.org": OK[:9],
    }
    assert {path: fact["state"] for path, fact in found.items()} == {
        ALICE: "deferred",
        BOB: "deferred",
        CAROL: "delivered",
        "dave@example.org": "deferred",
        "erin@example.org": "delivered",
        "frank@example.org": "delivered",
    }
    assert verbs(server)[0] == "LHLO"
    assert "EHLO" not in verbs(server)
    bench.assert_balanced()


def test_a_refusal_after_the_dot_concerns_its_recipient_only(
    lmtp: StartPeer, bench: Bench
) -> None:
    """It is not tried alone first, as a reply that several share would be."""
    server = lmtp(dot=per_recipient({BOB: "550 5.1.1 no such user"}, OK))
    queue_id = bench.add(*EVERYBODY)
    assert bench.drain().code == 5
    assert bench.states() == {
        ALICE: "delivered",
        BOB: "bounce-pending",
        CAROL: "delivered",
    }
    rules = {v["rule"] for v in bench.verdicts(queue_id)}
    assert rules == {"dot-accepted", "enhanced-5.1.1"}
    assert len(server.messages) == 1
    bench.assert_balanced()


def test_many_messages_go_through_one_session_each_after_the_last(
    lmtp: StartPeer, bench: Bench
) -> None:
    """The peer notes a MAIL that travels behind a dot."""
    server = lmtp()
    for n in range(20):
        bench.add(f"a{n}@example.org", f"b{n}@example.org")
    assert bench.drain().code == 0
    assert sorted(delivered(server)) == sorted(
        (f"a{n}@example.org", f"b{n}@example.org") for n in range(20)
    )
    assert server.connections == 1
    bench.assert_balanced()


LOST: dict[str, Answer] = {
    "closed": per_recipient({ALICE: ReplyThenDrop(OK)}, OK),
    "closed-instead": per_recipient({ALICE: OK}, Drop()),
    "silent": per_recipient({ALICE: OK}, Stall()),
}


@pytest.mark.parametrize("name", LOST)
def test_a_connection_lost_between_replies_leaves_the_others_unknown(
    lmtp: StartPeer, bench: Bench, name: str
) -> None:
    """The recipient whose reply came has it; the others are never bounced."""
    lmtp(dot=LOST[name])
    bench.configure(primary={"dot_timeout": "300ms"}, retry={"unknown": "1h"})
    bench.add(*EVERYBODY)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "delivered", BOB: "unknown", CAROL: "unknown"}
    bench.assert_balanced()


def test_a_refusal_before_the_loss_stands(lmtp: StartPeer, bench: Bench) -> None:
    """A 4xx for the first, and then nothing."""
    lmtp(dot=per_recipient({ALICE: LATER}, Drop()))
    bench.configure(retry={"unknown": "1h", "first": "1h", "max": "1h"})
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "deferred", BOB: "unknown"}


def test_421_is_the_reply_of_one_recipient(lmtp: StartPeer, bench: Bench) -> None:
    """The server closes then: what it did for the others is not known."""
    closing = ReplyThenDrop("421 4.3.2 shutting down")
    lmtp(dot=per_recipient({ALICE: OK, BOB: closing}))
    bench.configure(retry={"unknown": "1h", "first": "1h", "max": "1h"})
    bench.add(*EVERYBODY)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "delivered", BOB: "deferred", CAROL: "unknown"}


def test_421_for_every_recipient_leaves_none_in_doubt(
    lmtp: StartPeer, bench: Bench
) -> None:
    """A server that shuts down may answer for all of them before it closes."""
    lmtp(dot="421 4.3.2 shutting down")
    bench.configure(retry={"first": "1h", "max": "1h"})
    bench.add(*EVERYBODY)
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"deferred"}


def raw(*replies: str) -> Raw:
    """Return several replies in one packet."""
    return Raw("".join(f"{reply}\r\n" for reply in replies).encode())


TOO_MANY: dict[str, tuple[Answer, set[str]]] = {
    # name: (the replies, the states of the recipients)
    "first-twice": (per_recipient({ALICE: raw(OK, OK)}, FULL), {"unknown"}),
    "a-summary-that-differs": (
        per_recipient({CAROL: raw(OK, "554 5.3.0 done")}, OK),
        {"unknown"},
    ),
    "a-354": (per_recipient({BOB: "354 go on"}, OK), {"unknown"}),
    "a-summary-that-agrees": (
        per_recipient({CAROL: raw(OK, "250 2.0.0 done")}, OK),
        {"delivered"},
    ),
}


@pytest.mark.parametrize("name", TOO_MANY)
def test_more_replies_than_recipients_are_out_of_step(
    lmtp: StartPeer, bench: Bench, name: str
) -> None:
    """Which reply is whose is not known then, unless they all agree."""
    answer, states = TOO_MANY[name]
    server = lmtp(dot=answer)
    bench.configure(retry={"unknown": "1h"})
    bench.add(*EVERYBODY)
    bench.drain()
    assert set(bench.states().values()) == states
    assert server.connections == 1
    bench.assert_balanced()


def test_a_surplus_reply_before_slow_ones_that_differ_is_noticed(
    lmtp: StartPeer, bench: Bench
) -> None:
    """The last of them could be taken for the reply to RSET, but not to QUIT."""
    late = {BOB: Delay(0.1, FULL), CAROL: Delay(0.1, OK)}
    bye = Delay(0.1, "221 2.0.0 bye")
    ok = Delay(0.1, "250 2.0.0 ok")
    lmtp(dot=per_recipient({ALICE: raw(OK, OK), **late}), rset=ok, quit=bye)
    bench.configure(retry={"unknown": "1h"})
    bench.add(*EVERYBODY)
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"unknown"}


@pytest.mark.parametrize(
    "bye", [Drop(), "250 2.0.0 bye", "421 4.3.2 shutting down", Stall()]
)
def test_a_server_that_takes_leave_in_its_own_way_changes_nothing(
    lmtp: StartPeer, bench: Bench, bye: Answer
) -> None:
    """Replies that differ are in step; the next message has another session."""
    answer = ReplyThenDrop(bye) if isinstance(bye, str) else bye
    lmtp(dot=per_recipient({BOB: LATER}, OK), quit=answer)
    bench.configure(primary={"dot_timeout": "300ms"})
    bench.add(ALICE, BOB)
    bench.add(CAROL)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "delivered", BOB: "deferred", CAROL: "delivered"}


def test_a_surplus_reply_that_comes_late_is_noticed(
    lmtp: StartPeer, bench: Bench
) -> None:
    """RSET gets the refusal that was for another recipient."""
    server = lmtp(dot=per_recipient({ALICE: raw(OK, OK), BOB: Delay(0.2, FULL)}))
    bench.configure(retry={"unknown": "1h"})
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "unknown", BOB: "unknown"}
    assert [m.taken for m in server.messages] == [[ALICE]]


@pytest.mark.parametrize(
    ("rset", "state"),
    [
        ("502 5.5.1 not implemented", "delivered"),
        ("421 4.3.2 shutting down", "delivered"),
        (Drop(), "delivered"),
        ("554 5.6.0 no", "unknown"),
        (raw("250 2.0.0 ok", FULL), "unknown"),
    ],
)
def test_the_reply_to_rset_proves_the_others(
    lmtp: StartPeer, bench: Bench, rset: Answer, state: str
) -> None:
    """A server that does not know it, or leaves, proves nothing against them."""
    lmtp(rset=rset)
    bench.configure(retry={"unknown": "1h"})
    bench.add(ALICE, BOB)
    bench.add(CAROL)
    bench.drain()
    assert bench.states() == {ALICE: state, BOB: state, CAROL: "delivered"}
    bench.assert_balanced()


NO_REPLY = Raw(b"")
TOO_FEW: dict[str, dict[str, Step]] = {
    "as-in-smtp": {BOB: NO_REPLY, CAROL: NO_REPLY},
    "first-left-out": {ALICE: NO_REPLY, BOB: FULL},
    "one-left-out": {BOB: NO_REPLY},
    "one-left-out-before-a-refusal": {ALICE: NO_REPLY, BOB: NO_REPLY, CAROL: FULL},
}


@pytest.mark.parametrize("name", TOO_FEW)
def test_fewer_replies_than_recipients_leave_all_unknown(
    lmtp: StartPeer, bench: Bench, name: str
) -> None:
    """Nobody keeps the reply of another: the server says by its 221 that it is done."""
    server = lmtp(dot=per_recipient(TOO_FEW[name], OK))
    bench.configure(primary={"dot_timeout": "300ms"}, retry={"unknown": "1h"})
    bench.add(*EVERYBODY)
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"unknown"}
    assert verbs(server)[-1] == "QUIT"
    bench.assert_balanced()


def test_replies_that_are_missing_behind_a_421_are_not_left_out(
    lmtp: StartPeer, bench: Bench
) -> None:
    """The server said why: the replies before it are in their place."""
    server = lmtp(dot=per_recipient({BOB: "421 4.3.2 bye", CAROL: NO_REPLY}, OK))
    bench.configure(primary={"dot_timeout": "300ms"}, retry={"unknown": "1h"})
    bench.add(*EVERYBODY)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "delivered", BOB: "deferred", CAROL: "unknown"}
    assert "QUIT" not in verbs(server)


def test_replies_that_come_late_are_still_counted(
    lmtp: StartPeer, bench: Bench
) -> None:
    """A slow server answers QUIT behind them, so that nobody is in doubt."""
    slow = Delay(0.45, LATER)
    lmtp(dot=per_recipient({BOB: slow}, OK), lenient=True)  # QUIT comes too early
    bench.configure(primary={"dot_timeout": "300ms"})
    bench.add(*EVERYBODY)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "delivered", BOB: "deferred", CAROL: "delivered"}


def test_a_refusal_before_the_dot_is_that_of_the_first(
    lmtp: StartPeer, bench: Bench
) -> None:
    """The others are tried again: nothing was delivered, and nothing is in doubt."""
    lmtp(body=EarlyReply(1000, "554 5.6.0 no", then_drop=True))
    bench.configure(retry={"first": "1h", "max": "1h"})
    bench.add(ALICE, BOB, text=LARGE)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "bounce-pending", BOB: "deferred"}


def test_a_report_about_a_unix_socket_names_no_host(
    peer: StartPeer, tmp_path: Path
) -> None:
    """Its path is this host's own business, and no MTA name (RFC 3464 2.3.5)."""
    name = f"unix:{tmp_path}/lmtp"
    primary = peer(host=name, lmtp=True, rcpt=nobody_unknown)
    with refusing(tmp_path, peer(), primary) as bench:
        bench.configure(primary={"host": name, "port": 24})
        bench.refuse()
        assert bench.confirm().code == 0
        (report,) = bench.reports
    assert report.content is not None
    assert b"Diagnostic-Code: smtp; 550" in report.content
    assert b"Remote-MTA" not in report.content
    assert b"unix" not in report.content


@PIPELINING
def test_nothing_is_sent_when_no_recipient_is_accepted(
    lmtp: StartPeer, bench: Bench, extensions: tuple[str, ...]
) -> None:
    """Not even an empty message if the server says 354 against RFC 2033 4.2."""
    server = lmtp(extensions=extensions, rcpt=LATER, data="354 go on")
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"deferred"}
    assert server.messages == []


def test_a_unix_socket_needs_no_port_and_no_tls(
    peer: StartPeer, bench: Bench, tmp_path: Path
) -> None:
    """The path is the name of the route; the protocol follows from it."""
    name = f"unix:{tmp_path}/lmtp"
    server = peer(host=name, lmtp=True, dot=per_recipient({BOB: LATER}, OK))
    bench.configure(primary={"host": name, "tls": None, "helo": None}, **PATIENT)
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "delivered", BOB: "deferred"}
    assert {fact["route"] for fact in bench.recipients().values()} == {name}
    assert delivered(server) == [(ALICE,)]


def test_the_flag_takes_a_unix_socket(
    peer: StartPeer, bench: Bench, tmp_path: Path
) -> None:
    """--to unix:PATH means LMTP without any configuration of it."""
    name = f"unix:{tmp_path}/lmtp"
    server = peer(host=name, lmtp=True)
    bench.add(ALICE)
    assert bench.drain("--to", name, check=True).code == 0
    assert delivered(server) == [(ALICE,)]


def test_the_next_socket_is_tried_when_one_is_absent(
    peer: StartPeer, bench: Bench, tmp_path: Path
) -> None:
    """Hosts of TCP and Unix sockets stand side by side."""
    name = f"unix:{tmp_path}/lmtp"
    server = peer(lmtp=True)
    hosts = [name, f"127.0.0.1:{server.port}"]
    bench.configure(primary={"host": None, "hosts": hosts, "protocol": "lmtp"})
    bench.add(ALICE)
    assert bench.drain().code == 0
    assert delivered(server) == [(ALICE,)]


def check(bench: Bench) -> dict[str, Any]:
    """Run `check`; return its facts."""
    facts: dict[str, Any] = call("check", "--config", bench.config, "--json").json
    return facts


def hints(facts: dict[str, Any]) -> str:
    """Return all hints of a check."""
    return "\n".join(each["hint"] for each in facts["stages"])


def test_check_asks_over_lmtp_and_warns_of_the_filters(
    lmtp: StartPeer, bench: Bench
) -> None:
    """LHLO, MAIL, RCPT and RSET; never DATA."""
    server = lmtp(rcpt=lambda view: OK if view.path == ALICE else "550 5.1.1 no")
    bench.configure(health={"accept": [ALICE]})
    facts = check(bench)
    assert facts["ready"] is True
    assert verbs(server) == ["LHLO", "MAIL", "RCPT", "RCPT", "RSET", "QUIT"]
    (warning,) = [each for each in facts["stages"] if each["stage"] == "lmtp"]
    assert warning["verdict"] == "warn"
    assert "filters" in warning["hint"]


def test_check_names_a_socket_that_is_absent(bench: Bench, tmp_path: Path) -> None:
    """The remedy is about the socket, and not about a network."""
    bench.configure(primary={"host": f"unix:{tmp_path}/lmtp"})
    facts = check(bench)
    assert facts["primary"] == f"unix:{tmp_path}/lmtp"
    assert facts["ready"] is False
    assert "Unix socket does not exist" in hints(facts)


def test_an_lmtp_server_with_our_own_name_is_no_loop(
    lmtp: StartPeer, bench: Bench
) -> None:
    """It often runs on this host."""
    lmtp(name="backup.example", banner="220 backup.example LMTP")
    bench.add(ALICE)
    assert bench.drain(check=True).code == 0


def test_an_smtp_server_is_not_spoken_to_in_lmtp(peer: StartPeer, bench: Bench) -> None:
    """It refuses LHLO: the check names SMTP, and a drain sends nothing."""
    server = peer()
    bench.port = server.port
    bench.configure(primary={"protocol": "lmtp"})
    assert "that is SMTP, not LMTP" in hints(check(bench))
    bench.add(ALICE)
    assert bench.drain().code == 4
    assert server.transactions == []


def test_an_lmtp_server_behind_ehlo_has_a_remedy(peer: StartPeer, bench: Bench) -> None:
    """It names the key that makes drainer speak LMTP."""
    bench.port = peer(lmtp=True).port
    assert 'set [primary] protocol = "lmtp"' in hints(check(bench))


def test_starttls_and_a_login_work_over_lmtp(
    peer: StartPeer, bench: Bench, certificate: Certificate
) -> None:
    """LHLO again after STARTTLS, and then AUTH, as over SMTP."""
    server = peer(
        lmtp=True,
        tls=certificate.server_context(),
        extensions=("PIPELINING", "ENHANCEDSTATUSCODES", "AUTH PLAIN"),
    )
    bench.port = server.port
    bench.configure(
        primary={
            "host": "localhost",
            "protocol": "lmtp",
            "tls": "required",
            "tls_ca": str(certificate.certificate),
            "username": "drainer",
            "password": "secret",
        }
    )
    bench.add(ALICE, BOB)
    assert bench.drain().code == 0
    assert verbs(server)[:4] == ["LHLO", "STARTTLS", "LHLO", "AUTH"]
    assert server.logins == [("drainer", "secret")]
    assert delivered(server) == [(ALICE, BOB)]


def test_the_canary_asks_over_lmtp(lmtp: StartPeer, bench: Bench) -> None:
    """A refusal of everybody is followed by the known-good recipient, without DATA."""
    denied = "550 5.7.1 relay access denied"
    server = lmtp(rcpt=denied)
    bench.configure(health={"accept": ["good@example.org"]})
    for n in range(3):
        bench.add(f"user{n}@example.org")
    assert bench.drain().code == 4
    assert "good@example.org" in {
        recipient.forward_path
        for message in server.transactions
        for recipient in message.recipients
    }
    assert set(verbs(server)) <= {"LHLO", "MAIL", "RCPT", "DATA", "RSET", "QUIT"}
    assert "bounced" not in bench.states().values()
