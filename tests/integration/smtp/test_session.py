"""Whole drains against a primary that misbehaves, at every stage and in every way.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

import asyncio
import contextlib
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from drainer.sources.common.marker import MARKER
from tests.support.command.runner import Bench
from tests.support.mta.postfix import free_port
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Answer,
    BodyAnswer,
    Command,
    Delay,
    Drop,
    DropInBody,
    EarlyReply,
    Garbage,
    Message,
    Raw,
    ReplyThenDrop,
    Reset,
    Script,
    Stall,
    StallInBody,
    Step,
    View,
    in_turn,
    per_recipient,
)
from tests.support.spools.postfix_files import record
from tests.support.tls.certificates import Certificate, self_signed

ALICE, BOB, CAROL = "alice@example.org", "bob@example.org", "carol@example.org"
PLAIN = tuple(word for word in EXTENSIONS if word != "PIPELINING")
PIPELINING = pytest.mark.parametrize(
    "extensions", [EXTENSIONS, PLAIN], ids=["pipelined", "one-by-one"]
)
#: More than any socket buffer takes, so that the peer's words come in the middle.
LARGE = b"Subject: large\n\n" + b"0123456789abcdef" * 4 * 1024 * 64 + b"\n"
SILENT = Stall()
SHORT = {"command_timeout": "150ms", "data_timeout": "150ms", "dot_timeout": "150ms"}

StartPeer = Callable[..., PeerThread]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a spool, a ledger and a configuration."""
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Give a self-signed certificate for localhost."""
    return self_signed(tmp_path_factory.mktemp("certificate"))


def verbs(peer: PeerThread) -> list[str]:
    """Return the verbs of all commands, in order."""
    return [command.line.split(b" ")[0].decode().upper() for command in peer.commands]


def sent(peer: PeerThread) -> list[tuple[str, ...]]:
    """Return the recipients of every message that the peer took."""
    return [tuple(message.forward_paths) for message in peer.accepted]


# ---- before MAIL: never a verdict on a message


BEFORE_MAIL: dict[str, tuple[dict[str, Any], bool]] = {
    # name: (what the peer does, whether it is tried again within the run)
    "banner-421": ({"banner": ReplyThenDrop("421 4.3.2 shutting down")}, True),
    "banner-554": ({"banner": "554 5.3.2 no SMTP service here"}, False),
    "banner-521": ({"banner": "521 5.3.2 this host accepts no mail"}, False),
    "banner-550": ({"banner": "550 5.7.1 blocked using a list"}, False),
    "banner-dropped": ({"banner": Drop()}, True),
    "banner-reset": ({"banner": Reset()}, True),
    "banner-never": ({"banner": SILENT}, True),
    "banner-garbage": ({"banner": Garbage()}, True),
    "banner-is-250": ({"banner": "250 hello"}, True),
    "banner-is-354": ({"banner": "354 go ahead"}, True),
    "ehlo-421": ({"ehlo": ReplyThenDrop("421 4.7.0 too many connections")}, True),
    "ehlo-451": ({"ehlo": "451 4.3.0 later"}, True),
    "ehlo-504": ({"ehlo": "504 5.5.2 need fully-qualified hostname"}, False),
    "ehlo-550": ({"ehlo": "550 5.7.1 client host rejected"}, False),
    "ehlo-500-helo-refused": (
        {"ehlo": "500 5.5.1 what?", "helo": "550 5.7.1 no"},
        False,
    ),
    "ehlo-dropped": ({"ehlo": Drop()}, True),
    "ehlo-never": ({"ehlo": SILENT}, True),
    "ehlo-garbage": ({"ehlo": Garbage()}, True),
    "ehlo-is-354": ({"ehlo": "354 go ahead"}, True),
    "ehlo-of-100-kB": ({"ehlo": Raw(b"250-x\r\n" * 15000 + b"250 x\r\n")}, True),
}


FOR_GOOD = {
    "banner": "554 5.3.2 no",
    "ehlo": "554 5.7.1 no",
    "starttls": "554 5.7.0 no",
    "auth": "535 5.7.8 no",
}


def refused_before_mail(
    start: StartPeer, bench: Bench, script: dict[str, Any], *, again: bool
) -> PeerThread:
    """Check that the drain stopped, that nothing was judged, and how often it asked.

    What is tried again is refused twice, and then for good.
    """
    silent = SILENT in script.values()
    if again:
        ((stage, step),) = [(key, script[key]) for key in script if key in FOR_GOOD]
        script = script | {stage: in_turn(step, step, FOR_GOOD[stage])}
    server = start(**script)
    bench.port = server.port
    bench.configure(
        primary={"banner_timeout": "300ms"} if silent else {},
        breaker={"give_up_after": "30s"},
    )
    queue_id = bench.add(ALICE, BOB)
    result = bench.drain()
    assert result.code == 4, result
    assert result.json["exit"] == 4
    assert bench.states() == {ALICE: "pending", BOB: "pending"}
    assert {fact["attempts"] for fact in bench.recipients().values()} == {0}
    assert bench.verdicts(queue_id) == []
    assert "MAIL" not in verbs(server)
    assert server.connections == (3 if again else 1)
    bench.assert_balanced()
    return server


@pytest.mark.parametrize(
    ("script", "again"), BEFORE_MAIL.values(), ids=list(BEFORE_MAIL)
)
def test_a_refusal_before_mail_stops_the_drain_and_judges_nothing(
    peer: StartPeer, bench: Bench, script: dict[str, Any], *, again: bool
) -> None:
    """A temporary one is tried again within the run, a permanent one is not."""
    refused_before_mail(peer, bench, script, again=again)


def test_a_primary_that_does_not_listen_stops_the_drain(bench: Bench) -> None:
    """Connection refused: exit 4, and every recipient stays pending."""
    bench.port = free_port()
    bench.add(ALICE)
    assert bench.drain().code == 4
    assert bench.states() == {ALICE: "pending"}
    bench.assert_balanced()


def test_a_name_that_does_not_resolve_stops_the_drain(bench: Bench) -> None:
    """There is nobody to ask: exit 4, and every recipient stays pending."""
    bench.configure(primary={"host": "primary.invalid"})
    bench.add(ALICE)
    assert bench.drain().code == 4
    assert bench.states() == {ALICE: "pending"}


@pytest.mark.parametrize(
    "banner",
    [ReplyThenDrop("421 4.3.2 starting"), Drop(), Reset()],
    ids=["421", "dropped", "reset"],
)
def test_a_temporary_refusal_is_waited_out(
    peer: StartPeer, bench: Bench, banner: Step
) -> None:
    """The drain pauses, asks again, and goes on when it is let in."""
    server = peer(banner=in_turn(banner, banner, "220 peer.example ESMTP"))
    bench.port = server.port
    bench.configure(breaker={"give_up_after": "10s"})
    bench.add(ALICE)
    assert bench.drain().code == 0
    assert bench.states() == {ALICE: "delivered"}
    assert server.connections == 3


@pytest.mark.parametrize("reply", ["500 5.5.1 what?", "502 5.5.1 not implemented"])
def test_a_primary_without_ehlo_is_greeted_with_helo(
    peer: StartPeer, bench: Bench, reply: str
) -> None:
    """RFC 5321 4.1.4: an old server gets HELO, and no parameter of any extension."""
    server = peer(ehlo=reply)
    bench.port = server.port
    bench.add(ALICE)
    assert bench.drain().code == 0
    assert verbs(server) == ["EHLO", "HELO", "MAIL", "RCPT", "DATA", ".", "QUIT"]
    assert server.accepted[0].parameters == {}


def test_helo_is_no_way_out_when_tls_is_required(peer: StartPeer, bench: Bench) -> None:
    """A server without EHLO cannot offer STARTTLS: the drain stops."""
    bench.configure(primary={"tls": "required"})
    script = {"ehlo": "502 5.5.1 not implemented"}
    server = refused_before_mail(peer, bench, script, again=False)
    assert "HELO" not in verbs(server)


def test_a_primary_that_calls_itself_by_our_name_is_a_loop(
    peer: StartPeer, bench: Bench
) -> None:
    """Without the health check the session itself notices: exit 2, nothing sent."""
    server = peer(name="backup.example", banner="220 other.example ESMTP")
    bench.port = server.port
    bench.add(ALICE)
    result = bench.drain()
    assert result.code == 2
    assert "loop" in result.stderr
    assert bench.states() == {ALICE: "pending"}
    assert "MAIL" not in verbs(server)


# ---- STARTTLS


def test_an_opportunistic_session_is_encrypted_when_it_can_be(
    peer: StartPeer, bench: Bench, certificate: Certificate
) -> None:
    """A large message survives TLS byte for byte."""
    server = peer(tls=certificate.server_context())
    bench.port = server.port
    bench.configure(primary={"tls": "opportunistic"})
    bench.add(ALICE, text=LARGE)
    bench.add(BOB)
    assert bench.drain().code == 0
    large, small = server.accepted
    assert large.tls
    assert small.tls
    assert large.content is not None
    assert large.content.endswith(LARGE.replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("reply", ["454 4.7.0 TLS not available", "554 5.7.0 no TLS"])
def test_starttls_refused_is_borne_when_tls_is_opportunistic(
    peer: StartPeer, bench: Bench, certificate: Certificate, reply: str
) -> None:
    """RFC 7435: some protection is better than none, and no mail waits for it."""
    server = peer(tls=certificate.server_context(), starttls=reply)
    bench.port = server.port
    bench.configure(primary={"tls": "opportunistic"})
    bench.add(ALICE)
    assert bench.drain().code == 0
    assert [message.tls for message in server.accepted] == [False]


def demanding(certificate: Certificate) -> ssl.SSLContext:
    """Return a server's context with which a handshake always fails."""
    context = certificate.server_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    return context


HANDSHAKES: dict[str, Answer] = {
    "alert": "220 2.0.0 go ahead",
    "dropped": ReplyThenDrop("220 2.0.0 go ahead"),
    "in-the-clear": Delay(0.05, "220 2.0.0 go ahead\n250 I speak no TLS"),
}


@pytest.mark.parametrize("starttls", HANDSHAKES.values(), ids=list(HANDSHAKES))
def test_a_failed_handshake_is_followed_by_a_connection_in_the_clear(
    peer: StartPeer, bench: Bench, certificate: Certificate, starttls: Answer
) -> None:
    """Opportunistic TLS gives up on TLS, never on the mail."""
    server = peer(tls=demanding(certificate), starttls=starttls)
    bench.port = server.port
    bench.configure(primary={"tls": "opportunistic"})
    bench.add(ALICE)
    assert bench.drain().code == 0
    assert [message.tls for message in server.accepted] == [False]
    assert server.connections == 2
    assert verbs(server).count("STARTTLS") == 1


def test_what_is_said_before_the_handshake_is_void(
    peer: StartPeer, bench: Bench, certificate: Certificate
) -> None:
    """RFC 3207 4.2, 6: replies injected behind the 220 answer nothing."""
    injected = Raw(b"220 2.0.0 go ahead\r\n250 2.1.0 injected\r\n")
    server = peer(
        tls=certificate.server_context(),
        starttls=injected,
        rcpt="550 5.1.1 unknown",
    )
    bench.port = server.port
    bench.configure(primary={"tls": "opportunistic"})
    queue_id = bench.add(ALICE)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "bounce-pending"}
    assert [v["reply"] for v in bench.verdicts(queue_id)] == ["550 5.1.1 unknown"]


REQUIRED: dict[str, tuple[dict[str, Any], bool]] = {
    "454": ({"starttls": "454 4.7.0 TLS not available"}, True),
    "554": ({"starttls": "554 5.7.0 no TLS"}, False),
    "502": ({"starttls": "502 5.5.1 not implemented"}, False),
    "dropped": ({"starttls": Drop()}, True),
}


@pytest.mark.parametrize(("script", "again"), REQUIRED.values(), ids=list(REQUIRED))
def test_required_tls_that_is_not_to_be_had_stops_the_drain(
    peer: StartPeer,
    bench: Bench,
    certificate: Certificate,
    script: dict[str, Any],
    *,
    again: bool,
) -> None:
    """Nothing goes in the clear, and nothing is judged."""
    bench.configure(primary={"tls": "required"})
    script = {"tls": demanding(certificate)} | script
    refused_before_mail(peer, bench, script, again=again)


def test_required_tls_whose_handshake_fails_stops_the_drain(
    peer: StartPeer, bench: Bench, certificate: Certificate
) -> None:
    """Nothing goes in the clear: exit 4."""
    server = peer(tls=demanding(certificate))
    bench.port = server.port
    bench.configure(primary={"tls": "required"})
    bench.add(ALICE)
    assert bench.drain().code == 4
    assert bench.states() == {ALICE: "pending"}
    assert "MAIL" not in verbs(server)


def test_required_tls_that_is_not_offered_stops_the_drain(
    peer: StartPeer, bench: Bench
) -> None:
    """EHLO does not list STARTTLS: exit 4."""
    bench.configure(primary={"tls": "required"})
    refused_before_mail(peer, bench, {}, again=False)


def test_a_certificate_that_does_not_verify_stops_the_drain(
    peer: StartPeer, bench: Bench, certificate: Certificate
) -> None:
    """With verify = true a self-signed certificate is none."""
    bench.configure(primary={"tls": "required", "verify": True})
    script = {"tls": certificate.server_context()}
    refused_before_mail(peer, bench, script, again=False)


# ---- AUTH


AUTH_EXTENSIONS = (*EXTENSIONS, "AUTH PLAIN LOGIN CRAM-MD5")
AUTH: dict[str, tuple[dict[str, Any], bool]] = {
    "535": ({"auth": "535 5.7.8 bad credentials"}, False),
    "500": ({"auth": "500 5.5.6 line too long"}, False),
    "454": ({"auth": "454 4.7.0 temporary failure"}, True),
    "432": ({"auth": "432 4.7.12 password transition"}, True),
    "421": ({"auth": ReplyThenDrop("421 4.7.0 bye")}, True),
    "dropped": ({"auth": Drop()}, True),
    "not-offered": ({"extensions": EXTENSIONS}, False),
    "no-mechanism-of-ours": ({"extensions": (*EXTENSIONS, "AUTH GSSAPI")}, False),
}


def trusting(
    bench: Bench, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configure a login, and let OpenSSL trust the peer's certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    monkeypatch.setenv("DRAINER_PRIMARY__PASSWORD", "open sesame")
    bench.configure(
        primary={"host": "localhost", "username": "drainer", "tls": "required"}
    )


@pytest.mark.parametrize(("script", "again"), AUTH.values(), ids=list(AUTH))
def test_a_refused_login_stops_the_drain_and_judges_nothing(  # noqa: PLR0913
    peer: StartPeer,
    bench: Bench,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    script: dict[str, Any],
    *,
    again: bool,
) -> None:
    """One password is tried once a connection: more would lock the account."""
    trusting(bench, certificate, monkeypatch)
    known = {"extensions": AUTH_EXTENSIONS, "tls": certificate.server_context()}
    server = refused_before_mail(peer, bench, known | script, again=again)
    assert verbs(server).count("AUTH") <= server.connections
    assert "open sesame" not in (bench.root / "drainer.toml").read_text()


def test_a_login_is_given_under_verified_tls(
    peer: StartPeer,
    bench: Bench,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """User and password arrive, once, and only inside TLS."""
    trusting(bench, certificate, monkeypatch)
    server = peer(extensions=AUTH_EXTENSIONS, tls=certificate.server_context())
    bench.port = server.port
    bench.add(ALICE)
    assert bench.drain().code == 0
    assert server.logins == [("drainer", "open sesame")]
    assert [message.tls for message in server.accepted] == [True]


# ---- from MAIL on: the stage table, both ways of sending


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: what the peer does, and what becomes of the recipients."""

    script: dict[str, Any]
    state: str
    rule: str
    attempts: int = 1
    code: int = 5
    settings: Mapping[str, object] = field(default_factory=dict)


#: One attempt each, whatever else goes on; a lost connection is waited out.
PATIENT: dict[str, dict[str, object]] = {
    "retry": dict.fromkeys(("first", "max", "long_first", "long_max", "unknown"), "1h"),
    "breaker": {"pauses": ["10ms"], "give_up_after": "30s"},
}
NOBODY = Message("", {}, 0, 0, Command(0, 0, b""))
TABLE: dict[str, Cell] = {
    "mail-450": Cell({"mail": "450 4.7.1 greylisted"}, "deferred", "text-greylisted"),
    "mail-451": Cell({"mail": "451 try later"}, "deferred", "text-later"),
    "mail-421": Cell({"mail": ReplyThenDrop("421 bye")}, "deferred", "mail-421", 0),
    "mail-452-4.3.1": Cell(
        {"mail": "452 4.3.1 disk full"}, "deferred", "mail-4.3.1", 0
    ),
    "mail-451-4.3.0": Cell(
        {"mail": "451 4.3.0 queue file write error"}, "deferred", "mail-4.3.0", 0
    ),
    "mail-552": Cell({"mail": "552 5.3.4 too big"}, "bounce-pending", "enhanced-5.3.4"),
    "mail-550": Cell({"mail": "550 no"}, "bounce-pending", "basic-550"),
    "mail-530": Cell({"mail": "530 5.7.0 log in"}, "deferred", "basic-530", 0, code=4),
    "mail-503": Cell({"mail": "503 5.5.1 bad sequence"}, "held", "enhanced-5.5.1"),
    "mail-555": Cell({"mail": "555 5.5.4 no parameters"}, "held", "enhanced-5.5.4"),
    "mail-dropped": Cell({"mail": Drop()}, "deferred", "mail-lost"),
    "mail-reset": Cell({"mail": Reset()}, "deferred", "mail-lost"),
    "mail-never": Cell({"mail": SILENT}, "deferred", "mail-lost", settings=SHORT),
    "mail-garbage": Cell({"mail": Garbage()}, "deferred", "mail-lost"),
    "mail-is-354": Cell({"mail": "354 go ahead"}, "deferred", "mail-protocol"),
    "rcpt-450": Cell({"rcpt": "450 4.2.1 busy"}, "deferred", "enhanced-4.2.1"),
    "rcpt-451": Cell({"rcpt": "451 4.7.1 later"}, "deferred", "basic-451"),
    "rcpt-421": Cell({"rcpt": ReplyThenDrop("421 bye")}, "deferred", "", 0),
    "rcpt-550": Cell({"rcpt": "550 5.1.1 unknown"}, "bounce-pending", "enhanced-5.1.1"),
    "rcpt-554": Cell({"rcpt": "554 no"}, "bounce-pending", "basic-554"),
    "rcpt-579": Cell({"rcpt": "579 policy"}, "bounce-pending", "basic-579"),
    "rcpt-556": Cell(
        {"rcpt": "556 5.1.10 null MX"}, "deferred", "enhanced-5.1.10", 0, code=4
    ),
    "rcpt-552-full": Cell({"rcpt": "552 5.2.2 full"}, "deferred", "enhanced-5.2.2"),
    "rcpt-dropped": Cell({"rcpt": Drop()}, "deferred", "rcpt-lost"),
    "rcpt-reset": Cell({"rcpt": Reset()}, "deferred", "rcpt-lost"),
    "rcpt-never": Cell({"rcpt": SILENT}, "deferred", "rcpt-lost", settings=SHORT),
    "rcpt-is-354": Cell({"rcpt": "354 what?"}, "deferred", ""),
    "data-451": Cell({"data": "451 4.3.0 later"}, "deferred", "enhanced-4.3.0"),
    "data-421": Cell({"data": ReplyThenDrop("421 bye")}, "deferred", "data-421", 0),
    "data-554": Cell({"data": "554 no"}, "bounce-pending", "basic-554"),
    "data-503": Cell({"data": "503 bad sequence"}, "held", "basic-503"),
    "data-is-250": Cell({"data": "250 ok"}, "deferred", "data-protocol"),
    "data-is-350": Cell({"data": "350 ok"}, "deferred", "data-protocol"),
    "data-dropped": Cell({"data": Drop()}, "deferred", "data-lost"),
    "data-reset": Cell({"data": Reset()}, "deferred", "data-lost"),
    "data-never": Cell({"data": SILENT}, "deferred", "data-lost", settings=SHORT),
    "dot-451": Cell({"dot": "451 4.3.0 later"}, "deferred", "enhanced-4.3.0"),
    "dot-452": Cell({"dot": "452 no space"}, "deferred", "basic-452"),
    "dot-421": Cell({"dot": ReplyThenDrop("421 bye")}, "deferred", "dot-421"),
    "dot-554": Cell({"dot": "554 no"}, "bounce-pending", "basic-554"),
    "dot-550-spf": Cell({"dot": "550 5.7.23 SPF"}, "held", "enhanced-5.7.23"),
    "dot-dropped": Cell({"dot": Drop()}, "unknown", "dot-lost"),
    "dot-reset": Cell({"dot": Reset()}, "unknown", "dot-lost"),
    "dot-never": Cell({"dot": SILENT}, "unknown", "dot-lost", settings=SHORT),
    "dot-is-354": Cell({"dot": "354 go ahead"}, "unknown", "dot-lost"),
    "dot-garbage": Cell({"dot": Garbage()}, "unknown", "dot-lost"),
    "dot-of-100-kB": Cell(
        {"dot": Raw(b"250-x\r\n" * 15000 + b"250 x\r\n")}, "unknown", "dot-lost"
    ),
    "dot-line-of-9-kB": Cell(
        {"dot": Raw(b"250 " + b"x" * 9000 + b"\r\n")}, "unknown", "dot-lost"
    ),
    "dot-line-of-5-kB": Cell(
        {"dot": Raw(b"250 " + b"x" * 5000 + b"\r\n")}, "unknown", "dot-lost"
    ),
    "quit-dropped": Cell({"quit": Drop()}, "delivered", "dot-accepted", code=0),
    "quit-500": Cell({"quit": "500 what?"}, "delivered", "dot-accepted", code=0),
    "quit-garbage": Cell({"quit": Garbage()}, "delivered", "dot-accepted", code=0),
}


#: What stops or pauses the whole route, or is said once a session: a drain for each.
ALONE = {
    name
    for name, cell in TABLE.items()
    if cell.attempts == 0 or cell.settings or "quit" in cell.script
}


def of_cell(stage: str, usual: str) -> Answer:
    """Answer as the cell wants that the sender of the transaction names."""

    def answer(view: View) -> Step:
        message = view.message or NOBODY
        path = view.path if stage == "mail" else message.reverse_path
        step: Step = TABLE[path.partition("@")[0]].script.get(stage, usual)
        refused = stage == "data" and step == usual and not message.forward_paths
        return "554 5.5.1 no valid recipients" if refused else step

    return answer


@pytest.fixture(
    scope="module", params=[EXTENSIONS, PLAIN], ids=["pipelined", "one-by-one"]
)
def table(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Any]]]:
    """Drain a message for each cell, each on a connection of its own."""
    bench = Bench(tmp_path_factory.mktemp("table"))
    bench.configure(primary={"max_messages": 1, "connections": 4}, **PATIENT)
    bench.configure(breaker=dict.fromkeys(("run", "votes", "first_votes"), 10_000))
    usual = {"mail": "250 ok", "rcpt": "250 ok", "data": "354 go", "dot": "250 taken"}
    answers: dict[str, Any] = {
        stage: of_cell(stage, reply) for stage, reply in usual.items()
    }
    with PeerThread(Script(extensions=request.param, **answers)) as server:
        bench.port = server.port
        for name in set(TABLE) - ALONE:
            people = (f"1-{name}@example.org", f"2-{name}@example.org")
            bench.add(*people, sender=f"{name}@cell.example")
        assert bench.drain().code == 5
        bench.assert_balanced()
        yield bench.recipients()
    assert server.violations == []
    taken = {message.reverse_path.partition("@")[0] for message in server.accepted}
    assert {TABLE[name].state for name in taken} <= {"delivered", "unknown"}


@pytest.mark.parametrize("name", sorted(set(TABLE) - ALONE))
def test_stage_table(table: dict[str, dict[str, Any]], name: str) -> None:
    """What a stage ends with decides for both recipients of the message."""
    cell = TABLE[name]
    for person in (1, 2):
        fact = table[f"{person}-{name}@example.org"]
        assert fact["state"] == cell.state, fact
        if cell.rule:
            assert (fact["rule"], fact["attempts"]) == (cell.rule, cell.attempts)


ROUTE = [
    pytest.param(name, extensions, id=name + suffix)
    for extensions, suffix in ((EXTENSIONS, ""), (PLAIN, "-one-by-one"))
    for name in sorted(ALONE)
    if extensions is EXTENSIONS or name.endswith("-421")
]


@pytest.mark.parametrize(("name", "extensions"), ROUTE)
def test_stage_table_for_the_route(
    peer: StartPeer, bench: Bench, name: str, extensions: tuple[str, ...]
) -> None:
    """The same for what concerns the whole route: a drain for each."""
    cell = TABLE[name]
    server = peer(extensions=extensions, **cell.script)
    bench.port = server.port
    bench.configure(primary=cell.settings)
    bench.add(ALICE, BOB)
    result = bench.drain()
    found = bench.recipients()
    assert {fact["state"] for fact in found.values()} == {cell.state}, found
    if cell.rule:
        assert {fact["rule"] for fact in found.values()} == {cell.rule}
        assert {fact["attempts"] for fact in found.values()} == {cell.attempts}
    assert result.code == cell.code
    assert result.json["recipients"][cell.state] == 2
    bench.assert_balanced()
    if cell.state not in ("delivered", "unknown"):
        assert server.accepted == []


# ---- recipients of one transaction (RFC 5321 4.2, 4.5.3.1.10)


@PIPELINING
def test_replies_belong_to_recipients_by_order_not_by_their_text(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...]
) -> None:
    """A reply that names somebody else is still the reply to its command."""
    server = peer(
        extensions=extensions,
        rcpt=per_recipient(
            {BOB: f"550 5.1.1 <{ALICE}> unknown", CAROL: f"450 4.2.1 <{BOB}> busy"}
        ),
    )
    bench.port = server.port
    bench.add(ALICE, BOB, CAROL)
    assert bench.drain().code == 5
    expected = {ALICE: "delivered", BOB: "bounce-pending", CAROL: "deferred"}
    assert bench.states() == expected
    assert sent(server) == [(ALICE,)]
    assert len(server.messages) == 1
    bench.assert_balanced()


@PIPELINING
def test_mail_refused_gives_every_recipient_that_reply(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...]
) -> None:
    """The 503 of pipelined RCPT and DATA is noise; the next message is not lost."""
    server = peer(
        extensions=extensions,
        mail=per_recipient({"bad@example.com": "550 5.1.8 sender domain bad"}),
    )
    bench.port = server.port
    bench.add(ALICE, BOB, sender="bad@example.com")
    bench.add(CAROL)
    assert bench.drain().code == 5
    found = bench.recipients()
    assert {found[ALICE]["rule"], found[BOB]["rule"]} == {"enhanced-5.1.8"}
    assert bench.states()[CAROL] == "delivered"
    assert server.connections == 1


DOTS = {
    "451": ("451 4.3.0 later", "deferred"),
    "554": ("554 5.7.1 spam", "bounce-pending"),
    "dropped": (Drop(), "unknown"),
}


@pytest.mark.parametrize(("dot", "state"), DOTS.values(), ids=list(DOTS))
def test_the_last_reply_is_shared_by_accepted_recipients_alone(
    peer: StartPeer, bench: Bench, dot: Step, state: str
) -> None:
    """Who was refused at RCPT keeps that reply, whatever the final dot brings."""
    refusals: dict[str, Step] = {BOB: "550 5.1.1 unknown", CAROL: "452 4.2.2 full"}
    server = peer(rcpt=per_recipient(refusals), dot=dot)
    bench.port = server.port
    bench.add(BOB, ALICE, CAROL)
    assert bench.drain().code == 5
    expected = {ALICE: state, BOB: "bounce-pending", CAROL: "deferred"}
    assert bench.states() == expected
    assert bench.recipients()[BOB]["reply"] == "550 5.1.1 unknown"
    assert bench.recipients()[CAROL]["reply"] == "452 4.2.2 full"


def at_most(count: int, reply: str) -> Answer:
    """Accept so many recipients in a transaction."""

    def answer(view: View) -> Step:
        taken = view.message.forward_paths if view.message else []
        return "250 2.1.5 ok" if len(taken) < count else reply

    return answer


@PIPELINING
@pytest.mark.parametrize(
    "reply",
    ["452 4.5.3 too many recipients", "452 too many", "552 too many", "550 5.5.3 no"],
    ids=["452-4.5.3", "452", "552", "550-5.5.3"],
)
def test_too_many_recipients_are_sent_at_once_in_more_transactions(
    peer: StartPeer, bench: Bench, reply: str, extensions: tuple[str, ...]
) -> None:
    """No attempt is counted, nothing is waited for, and the limit is learnt."""
    server = peer(extensions=extensions, rcpt=at_most(3, reply))
    bench.port = server.port
    people = [f"user{n}@example.org" for n in range(10)]
    bench.add(*people)
    assert bench.drain().code == 0
    assert set(bench.states()) == set(people)
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}
    assert sorted(sum(sent(server), ())) == sorted(people)
    first, *rest = server.transactions
    assert len(first.recipients) == 10
    assert [len(message.recipients) for message in rest] == [3, 3, 1]


def test_too_many_recipients_at_the_first_one_is_a_refusal(
    peer: StartPeer, bench: Bench
) -> None:
    """With nobody accepted it is no limit: the recipients are tried later."""
    server = peer(rcpt="452 4.5.3 too many recipients")
    bench.port = server.port
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"deferred"}
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}


def test_a_stated_recipient_limit_is_kept(peer: StartPeer, bench: Bench) -> None:
    """RFC 9422: LIMITS RCPTMAX says beforehand how many a transaction may have."""
    server = peer(extensions=(*EXTENSIONS, "LIMITS RCPTMAX=3"))
    bench.port = server.port
    people = [f"user{n}@example.org" for n in range(7)]
    bench.add(*people)
    assert bench.drain().code == 0
    assert sorted(len(message.recipients) for message in server.accepted) == [1, 3, 3]
    assert sorted(sum(sent(server), ())) == people
    assert {fact["attempts"] for fact in bench.recipients().values()} == {1}


# ---- pipelining (RFC 2920)


def test_nobody_accepted_and_354_is_answered_with_a_lone_dot(
    peer: StartPeer, bench: Bench
) -> None:
    """RFC 2920 3.1: no content leaves, and the session goes on."""
    server = peer(
        rcpt=per_recipient({ALICE: "550 5.1.1 no", BOB: "450 4.2.1 busy"}),
        data="354 go ahead",
    )
    bench.port = server.port
    bench.configure(retry=PATIENT["retry"])
    bench.add(ALICE, BOB)
    bench.add(CAROL)
    assert bench.drain().code == 5
    expected = {ALICE: "bounce-pending", BOB: "deferred", CAROL: "delivered"}
    assert bench.states() == expected
    empty, full = sorted(server.messages, key=lambda m: len(m.content or b""))
    assert empty.content == b""
    assert full.forward_paths == [CAROL]
    assert server.connections == 1


def test_an_empty_message_to_nobody_that_is_accepted_ends_the_session(
    peer: StartPeer, bench: Bench
) -> None:
    """A 2xx to the lone dot means that the primary has lost step."""
    server = peer(
        rcpt=per_recipient({ALICE: "550 5.1.1 no"}),
        data="354 go ahead",
        dot="250 2.0.0 taken",
    )
    bench.port = server.port
    bench.add(ALICE)
    bench.add(CAROL)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "bounce-pending", CAROL: "delivered"}
    if len({command.connection for command in server.commands}) == 1:
        assert server.messages[-1].content == b""


@PIPELINING
def test_421_amid_a_group_leaves_the_unanswered_without_a_verdict(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...]
) -> None:
    """Who was answered keeps the reply; who was not is tried again."""
    server = peer(
        extensions=extensions,
        rcpt=per_recipient(
            {ALICE: "550 5.1.1 unknown", CAROL: ReplyThenDrop("421 4.3.2 closing")}
        ),
    )
    bench.port = server.port
    bench.add(ALICE, BOB, CAROL, "dave@example.org")
    assert bench.drain().code == 5
    assert bench.states() == {
        ALICE: "bounce-pending",
        BOB: "deferred",
        CAROL: "deferred",
        "dave@example.org": "deferred",
    }
    assert bench.recipients()[CAROL]["attempts"] == 0
    assert server.messages == []
    server.script = Script()
    bench.drain()
    assert bench.run("requeue", "--state", "deferred", "--reason", "x").code == 0
    bench.drain()
    assert sorted(sum(sent(server), ())) == [BOB, CAROL, "dave@example.org"]


@PIPELINING
@pytest.mark.parametrize("step", [Drop(), Reset()], ids=["dropped", "reset"])
def test_a_connection_lost_amid_a_group_keeps_the_answers_before(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...], step: Step
) -> None:
    """The unanswered recipients are tried again, and the accepted ones as well."""
    server = peer(
        extensions=extensions,
        rcpt=per_recipient(
            {ALICE: "550 5.1.1 unknown", CAROL: step}, default="250 2.1.5 ok"
        ),
    )
    bench.port = server.port
    bench.add(ALICE, BOB, CAROL)
    assert bench.drain().code == 5
    if isinstance(step, Drop):  # a reset may overtake the answers before it
        assert bench.states()[ALICE] == "bounce-pending"
    assert bench.states()[BOB] == "deferred"
    assert bench.states()[CAROL] == "deferred"
    assert server.messages == []


def test_421_to_the_next_mail_does_not_touch_the_message_before(
    peer: StartPeer, bench: Bench
) -> None:
    """What was accepted before the primary closed is delivered; the rest goes later."""
    server = peer(mail=in_turn("250 ok", "250 ok", ReplyThenDrop("421 4.3.2 bye")))
    bench.port = server.port
    for path in (ALICE, BOB, CAROL):
        bench.add(path)
    assert bench.drain().code in (4, 5)
    states = list(bench.states().values())
    assert sorted(states) in (
        ["deferred", "delivered", "delivered"],
        ["delivered", "delivered", "pending"],
    )
    attempts = {fact["attempts"] for fact in bench.recipients().values()}
    assert attempts == ({1} if "deferred" in states else {0, 1})


def test_at_most_one_message_of_a_session_is_in_doubt(
    peer: StartPeer, bench: Bench
) -> None:
    """P2: the MAIL behind a lost final dot was never answered, so it is not unknown."""
    server = peer(dot=in_turn("250 ok", "250 ok", Drop(), "250 ok"))
    bench.port = server.port
    bench.configure(retry=PATIENT["retry"])
    for n in range(5):
        bench.add(f"user{n}@example.org")
    assert bench.drain().code == 5
    states = list(bench.states().values())
    assert states.count("unknown") == 1
    assert set(states) <= {"unknown", "delivered", "deferred"}


@pytest.mark.parametrize("apart", [False, True])
def test_a_refusal_of_us_that_one_recipient_alone_meets_holds_it(
    peer: StartPeer, bench: Bench, *, apart: bool
) -> None:
    """Another one is delivered, in the same transaction or in another."""
    refused = "554 5.7.1 <x>: Client host rejected: Access denied"
    bench.port = peer(rcpt=per_recipient({ALICE: refused})).port
    if apart:
        bench.add(ALICE)
        bench.add(BOB)
    else:
        bench.add(ALICE, BOB)
    bench.configure(breaker={"give_up_after": "5s"})
    assert bench.drain("--no-check").code == 5
    assert bench.states() == {ALICE: "held", BOB: "delivered"}


def test_a_session_is_used_for_many_messages(peer: StartPeer, bench: Bench) -> None:
    """One connection, until it has carried what it may carry."""
    server = peer()
    bench.port = server.port
    bench.configure(primary={"max_messages": 3})
    for n in range(7):
        bench.add(f"user{n}@example.org")
    assert bench.drain().code == 0
    carried = [message.connection for message in server.accepted]
    assert [carried.count(n) for n in (1, 2, 3)] == [3, 3, 1]


# ---- RSET


@pytest.mark.parametrize(
    "rset", ["500 what?", "421 bye", Drop(), Garbage()], ids=["500", "421", "drop", "?"]
)
def test_rset_that_fails_ends_the_session_and_judges_nothing(
    peer: StartPeer, bench: Bench, rset: Step
) -> None:
    """The next message takes another connection."""
    server = peer(rcpt=per_recipient({ALICE: "550 5.1.1 unknown"}), rset=rset)
    bench.port = server.port
    bench.configure(breaker={"give_up_after": "5s"})
    bench.add(ALICE)
    bench.add(BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "bounce-pending", BOB: "delivered"}


# ---- amid the content


EARLY: dict[str, tuple[BodyAnswer, str, str]] = {
    "552-then-rst": (
        EarlyReply(20_000, "552 5.3.4 too big", then_drop=True),
        "bounce-pending",
        "552 5.3.4 too big",
    ),
    "552-and-goes-on": (
        EarlyReply(20_000, "552 5.3.4 too big"),
        "bounce-pending",
        "552 5.3.4 too big",
    ),
    "452-then-rst": (
        EarlyReply(20_000, "452 4.3.1 disk full", then_drop=True),
        "deferred",
        "452 4.3.1 disk full",
    ),
    "421-then-rst": (
        EarlyReply(20_000, "421 4.3.2 closing", then_drop=True),
        "deferred",
        "421 4.3.2 closing",
    ),
    "250-too-early": (EarlyReply(20_000, "250 2.0.0 taken"), "deferred", ""),
    "dropped": (DropInBody(20_000), "deferred", ""),
}


@PIPELINING
@pytest.mark.parametrize(("body", "state", "reply"), EARLY.values(), ids=list(EARLY))
def test_an_answer_amid_a_large_content_counts_as_the_last_reply(  # noqa: PLR0913, PLR0917
    peer: StartPeer,
    bench: Bench,
    extensions: tuple[str, ...],
    body: BodyAnswer,
    state: str,
    reply: str,
) -> None:
    """It is read even though the connection broke while we were writing."""
    server = peer(extensions=extensions, body=body)
    bench.port = server.port
    bench.add(ALICE, text=LARGE)
    assert bench.drain().code == 5
    fact = bench.recipients()[ALICE]
    assert fact["state"] == state, fact
    if reply:
        assert fact["reply"] == reply
    assert server.accepted == []
    bench.assert_balanced()


def test_a_primary_that_stops_reading_is_given_up(
    peer: StartPeer, bench: Bench
) -> None:
    """RFC 5321 4.5.3.2.5: a block that cannot be written in time ends the attempt."""
    server = peer(body=StallInBody(20_000))
    bench.port = server.port
    bench.configure(primary={"body_timeout": "200ms"})
    bench.add(ALICE, text=LARGE * 5)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "deferred"}
    assert bench.recipients()[ALICE]["rule"] == "body-lost"


def test_a_content_that_was_interrupted_is_sent_whole_the_next_time(
    peer: StartPeer, bench: Bench
) -> None:
    """The primary discards the part it had; the second attempt is complete."""
    server = peer(body=DropInBody(50_000))
    bench.port = server.port
    bench.add(ALICE, text=LARGE)
    assert bench.drain().code == 5
    server.script = Script()
    bench.configure(breaker={"give_up_after": "5s"})
    assert bench.drain().code == 0
    (message,) = server.accepted
    assert message.content is not None
    assert message.content.endswith(LARGE.replace(b"\n", b"\r\n"))


# ---- in doubt (RFC 1047)


def test_a_lost_last_reply_rests_goes_alone_and_is_held_the_third_time(
    peer: StartPeer, bench: Bench
) -> None:
    """It is never bounced, and every attempt carries the same bytes."""
    server = peer(
        dot=lambda view: (
            Drop()
            if view.message and view.message.forward_paths == [ALICE]
            else "250 2.0.0 ok"
        )
    )
    bench.port = server.port
    queue_id = bench.add(ALICE)
    bench.configure(retry={"unknown": "1h"})
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "unknown"}
    assert bench.drain().code == 5
    assert len(server.messages) == 1, "it must rest"
    for attempt, state in ((2, "unknown"), (3, "held")):
        due(bench)
        others = [f"other{attempt}{n}@example.org" for n in range(3)]
        for other in others:
            bench.add(other)
        before = len(server.messages)
        assert bench.drain().code == 5
        assert bench.states()[ALICE] == state
        mine = [m for m in server.messages[before:] if m.forward_paths == [ALICE]]
        assert len(mine) == 1
        rivals = [m for m in server.transactions if m.connection == mine[0].connection]
        assert rivals == mine, "it must be alone on its connection"
    contents = {m.content for m in server.messages if m.forward_paths == [ALICE]}
    assert len(contents) == 1
    assert [v["verdict"] for v in bench.verdicts(queue_id)] == ["unknown"] * 3
    bench.assert_balanced()


def due(bench: Bench) -> None:
    """Let what rests be due, as an hour would."""
    with contextlib.closing(sqlite3.connect(bench.ledger)) as database:
        database.execute("UPDATE recipients SET due = 1 WHERE due IS NOT NULL")
        database.commit()


@pytest.mark.parametrize("stage", ["rcpt", "dot"])
def test_a_refusal_after_doubt_is_never_a_bounce(
    peer: StartPeer, bench: Bench, stage: str
) -> None:
    """It may mean "I have it already": a person must look."""
    server = peer(dot=Drop())
    bench.port = server.port
    bench.add(ALICE)
    bench.drain()
    assert bench.states() == {ALICE: "unknown"}
    due(bench)
    refusal: dict[str, Any] = {stage: "554 5.6.0 duplicate message"}
    server.script = Script(**refusal)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "held"}


def test_a_doubt_that_clears_up_is_delivered(peer: StartPeer, bench: Bench) -> None:
    """The second attempt got its reply: exit 0."""
    server = peer(dot=in_turn(Drop(), "250 2.0.0 ok"))
    bench.port = server.port
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    due(bench)
    assert bench.drain().code == 0
    assert sent(server) == [(ALICE, BOB)]


# ---- replies of every shape


class Dribble:
    """A proxy that hands on what the server says in pieces of one octet."""

    def __init__(self, port: int) -> None:  # noqa: D107
        self._target = port
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)

        async def upwards() -> None:
            while data := await reader.read(65536):
                up_writer.write(data)
            up_writer.close()

        with contextlib.suppress(ConnectionError):
            async with asyncio.TaskGroup() as group:
                group.create_task(upwards())
                while octet := await up_reader.read(1):
                    writer.write(octet)
                    await asyncio.sleep(0)
                writer.close()


@PIPELINING
def test_replies_may_come_octet_by_octet(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...]
) -> None:
    """Nothing depends on how a reply is cut into packets."""
    server = peer(
        extensions=extensions,
        mail="250-2.1.0 first\n250-2.1.0 second\n250 2.1.0 third",
        rcpt=per_recipient({BOB: "550-5.1.1 no\n550-5.1.1 such\n550 5.1.1 user"}),
        dot="250-2.0.0 taken\n250 2.0.0 as 12345",
    )
    with Dribble(server.port) as proxy:
        bench.port = proxy.port
        bench.add(ALICE, BOB)
        assert bench.drain().code == 5
    found = bench.recipients()
    assert found[ALICE]["reply"] == "250 2.0.0 taken as 12345"
    assert found[BOB]["reply"] == "550 5.1.1 no such user"


SHAPES: dict[str, tuple[bytes, str]] = {
    "bare-lf": (b"250 2.0.0 ok\n", "delivered"),
    "no-text": (b"250\r\n", "delivered"),
    "no-text-but-a-blank": (b"250 \r\n", "delivered"),
    "cr-cr-lf": (b"250 2.0.0 ok\r\r\n", "delivered"),
    "leading-blanks": (b"  250-a\r\n  250 b\r\n", "delivered"),
    "bare-lf-in-many-lines": (b"250-a\n250-b\n250 c\n", "delivered"),
    "100-lines": (b"250-x\r\n" * 99 + b"250 x\r\n", "delivered"),
    "a-line-of-4000": (b"250 " + b"x" * 4000 + b"\r\n", "delivered"),
    "latin-1": (b"250 2.0.0 \xfcber\r\n", "delivered"),
    "controls": (b"250 2.0.0 \x1b[2J\x00\r\n", "delivered"),
    "refused-with-controls": (b"550 5.1.1 \x1b[2J\x1b]0;x\x07\r\n", "bounce-pending"),
    "two-at-once": (b"250 2.0.0 ok\r\n421 4.4.2 idle\r\n", "delivered"),
    "1xx": (b"150 hm\r\n", "unknown"),
    "6xx": (b"650 hm\r\n", "unknown"),
    "no-code": (b"OK\r\n", "unknown"),
    "code-and-letter": (b"250ok\r\n", "unknown"),
    "empty-line": (b"\r\n", "unknown"),
    "mixed-to-550": (b"250-ok\r\n550 5.1.1 no\r\n", "held"),
    "mixed-to-554-5.6.0": (b"451-5.6.0 x\r\n554 5.6.0 no\r\n", "held"),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Drain a message for each shape of the last reply, each on its own connection."""
    bench = Bench(tmp_path_factory.mktemp("shapes"))
    bench.configure(primary={"max_messages": 1}, **PATIENT)

    def dot(view: View) -> Step:
        path = (view.message or NOBODY).reverse_path
        return Raw(SHAPES[path.partition("@")[0]][0])

    with PeerThread(Script(dot=dot)) as server:
        bench.port = server.port
        for name in SHAPES:
            bench.add(f"{name}@example.org", sender=f"{name}@shape.example")
        assert bench.drain().code == 5
        bench.assert_balanced()
        yield bench
    assert server.violations == []


@pytest.fixture(scope="module")
def shaped(shapes: Bench) -> dict[str, str]:
    """Give the state of every recipient after that."""
    return shapes.states()


@pytest.mark.parametrize("name", SHAPES)
def test_replies_of_every_shape(shaped: dict[str, str], name: str) -> None:
    """What can be understood is; what cannot be is never permanent."""
    assert shaped[f"{name}@example.org"] == SHAPES[name][1]


def test_what_a_primary_says_harms_no_terminal(shapes: Bench) -> None:
    """Controls in a reply are escaped wherever a person reads it."""
    for command in (["list"], ["status"], ["list", "--reply", "550"]):
        assert "\x1b" not in shapes.run(*command).stdout
    for fact in shapes.recipients().values():
        assert "\x1b" not in shapes.run("why", fact["id"]).stdout
        assert "\x1b" not in shapes.run("show", fact["id"]).stdout


def test_an_endless_reply_to_a_recipient_is_cut_off(
    peer: StartPeer, bench: Bench
) -> None:
    """A hundred kilobytes without a line end: the connection is given up."""
    server = peer(rcpt=Raw(b"550-" + b"x" * 100_000))
    bench.port = server.port
    bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    assert set(bench.states().values()) == {"deferred"}


# ---- what the primary offers


def test_a_message_over_the_size_limit_never_leaves(
    peer: StartPeer, bench: Bench
) -> None:
    """RFC 1870: it is held with the limit named; the next one goes."""
    limited = tuple(w for w in EXTENSIONS if not w.startswith("SIZE"))
    server = peer(extensions=(*limited, "SIZE 1000"))
    bench.port = server.port
    bench.add(ALICE, text=b"Subject: x\n\n" + b"y" * 990 + b"\n")
    bench.add(BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "held", BOB: "delivered"}
    assert bench.recipients()[ALICE]["rule"] == "local-too-large"
    assert "1000" in bench.recipients()[ALICE]["reply"]
    assert len(server.transactions) == 1


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", "SIZE many"])
def test_a_size_without_a_limit_limits_nothing(
    peer: StartPeer, bench: Bench, size: str
) -> None:
    """RFC 1870 3: zero or nothing means that no limit is stated."""
    server = peer(extensions=("PIPELINING", size))
    bench.port = server.port
    bench.add(ALICE)
    assert bench.drain().code == 0
    assert "SIZE" in server.accepted[0].parameters


@pytest.mark.parametrize(
    ("missing", "rule", "message"),
    [
        ("8BITMIME", "local-needs-8bitmime", {"text": b"Subject: x\n\n\xc3\xa4\n"}),
        ("SMTPUTF8", "local-needs-smtputf8", {"sender": "j\u00fcrgen@example.com"}),
    ],
)
def test_what_the_primary_cannot_take_is_held_with_the_reason(
    peer: StartPeer, bench: Bench, missing: str, rule: str, message: dict[str, Any]
) -> None:
    """It is never sent all the same, and never altered to fit."""
    offered = tuple(word for word in EXTENSIONS if word != missing)
    server = peer(extensions=offered)
    bench.port = server.port
    bench.add(ALICE, **message)
    bench.add(BOB)
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "held", BOB: "delivered"}
    assert bench.recipients()[ALICE]["rule"] == rule
    assert len(server.transactions) == 1
    assert missing in bench.recipients()[ALICE]["reply"]


def test_parameters_are_passed_on_as_the_backup_recorded_them(
    peer: StartPeer, bench: Bench
) -> None:
    """SIZE, BODY, SMTPUTF8, RET, ENVID, NOTIFY and ORCPT reach the primary."""
    server = peer()
    bench.port = server.port
    text = "Subject: \u00e4\n\nb\u00f6dy\n".encode()
    bench.add(
        sender="j\u00fcrgen@example.com",
        text=text,
        envelope=[
            record("A", "envelope_id=a+2Bb"),
            record("A", "ret_flags=1"),
            record("A", "dsn_orig_rcpt=rfc822;bob+40x@example.org"),
            record("A", "notify_flags=6"),
            record("R", BOB),
            record("R", CAROL),
        ],
    )
    assert bench.drain().code == 0
    (message,) = server.accepted
    assert message.reverse_path == "j\u00fcrgen@example.com"
    assert message.parameters["SMTPUTF8"] == ""
    assert message.parameters["BODY"] == "8BITMIME"
    assert message.parameters["SIZE"] == str(len(message.content or b""))
    assert [r.forward_path for r in message.recipients] == [BOB, CAROL]


def test_a_primary_without_extensions_gets_bare_commands(
    peer: StartPeer, bench: Bench
) -> None:
    """RFC 3461 4.5: DSN parameters are dropped where nobody understands them."""
    server = peer(extensions=())
    bench.port = server.port
    bench.add(envelope=[record("A", "notify_flags=1"), record("R", BOB)])
    assert bench.drain().code == 0
    (message,) = server.accepted
    assert message.parameters == {}
    assert message.recipients[0].parameters == {}


def test_verp_gives_every_recipient_a_transaction_and_a_sender_of_its_own(
    peer: StartPeer, bench: Bench
) -> None:
    """The delimiters of the backup's record shape the reverse-path."""
    server = peer()
    bench.port = server.port
    bench.add(
        sender="list@example.com",
        envelope=[record("V", "+="), record("R", ALICE), record("R", BOB)],
    )
    assert bench.drain().code == 0
    assert {(m.reverse_path, *m.forward_paths) for m in server.accepted} == {
        ("list+alice=example.org@example.com", ALICE),
        ("list+bob=example.org@example.com", BOB),
    }


def test_the_null_sender_stays_null(peer: StartPeer, bench: Bench) -> None:
    """A bounce that lay in the spool is sent as one."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE, sender="")
    assert bench.drain().code == 0
    assert server.accepted[0].reverse_path == ""
    assert b"MAIL FROM:<>" in server.accepted[0].mail.line


# ---- bytes are sacred


LINE = b"x" * 70 + b"\n"
CONTENTS: dict[str, bytes] = {
    "dots": b"Subject: x\n\n.\n..\n...\n.a\n a.\n.\n",
    "a-dot-first": b".Subject: x\n.\n",
    "no-final-newline": b"Subject: x\n\nlast line",
    "a-final-dot-without-newline": b"Subject: x\n\n.",
    "long-lines": b"Subject: x\n\n" + b"y" * 5000 + b"\n" + b"z" * 2048 + b"\n",
    "8-bit": b"Subject: x\n\n" + bytes(range(128, 256)) + b"\n",
    "nul": b"Subject: x\n\na\0b\n",
    "header-only": b"Subject: x\n",
    "blank-lines": b"Subject: x\n\n\n\n\n",
    "large-dots": b"Subject: x\n\n" + (b".\n..\n" + LINE) * 8000,
}


@pytest.fixture(scope="module")
def contents(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Message]]:
    """Drain a message for each content; give what arrived."""
    bench = Bench(tmp_path_factory.mktemp("contents"))
    with PeerThread() as server:
        bench.port = server.port
        for name, text in CONTENTS.items():
            bench.add(f"{name}@example.org", sender=f"{name}@example.com", text=text)
        assert bench.drain().code == 0
        yield {m.reverse_path.partition("@")[0]: m for m in server.accepted}
    assert server.violations == []


@pytest.mark.parametrize("name", CONTENTS)
def test_what_arrives_is_what_lay_in_the_spool(
    contents: dict[str, Message], name: str
) -> None:
    """Byte for byte, but for the line ends of SMTP; SIZE says how many."""
    content = contents[name].content or b""
    head, _, wire = content.partition(b"\r\n")
    assert head.startswith(b"Message-ID: ")
    text = CONTENTS[name].replace(b"\n", b"\r\n")
    assert wire == text + (b"" if text.endswith(b"\r\n") else b"\r\n")
    assert contents[name].parameters["SIZE"] == str(len(content))


def test_a_bare_newline_never_leaves(peer: StartPeer, bench: Bench) -> None:
    """RFC 5321 2.3.8: the message is set aside, or mended when that was asked for."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE, text=b"Subject: x\n\na\rb\n.\r.\n")
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "held"}
    assert bench.recipients()[ALICE]["rule"] == "local-bare-newline"
    bench.configure(primary={"bare_newlines": "space"})
    bench.add(BOB, text=b"Subject: y\n\na\rb\n.\r.\n")
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "held", BOB: "delivered"}
    content = server.accepted[0].content or b""
    assert content.endswith(b"\r\n\r\na b\r\n. .\r\n")


# ---- the breaker: refusals of us from MAIL on


def test_one_message_alone_never_stops_a_drain(peer: StartPeer, bench: Bench) -> None:
    """A refusal worded like one of us hits that message only."""
    server = peer(mail=per_recipient({"odd@example.net": "530 5.7.0 log in first"}))
    bench.port = server.port
    bench.configure(breaker={"give_up_after": "5s"})
    bench.add(ALICE, sender="odd@example.net")
    for n in range(5):
        bench.add(f"user{n}@example.org", sender=f"s{n}@example.com")
    assert bench.drain().code == 5
    states = bench.states()
    assert states.pop(ALICE) == "held"  # refused again, while others were taken
    assert set(states.values()) == {"delivered"}


@PIPELINING
def test_refusals_of_us_for_two_sender_domains_stop_the_drain(
    peer: StartPeer, bench: Bench, extensions: tuple[str, ...]
) -> None:
    """Exit 4: nothing is judged, no attempt is counted, the rest is not even tried."""
    server = peer(extensions=extensions, mail="530 5.7.0 log in first")
    bench.port = server.port
    for n in range(30):
        bench.add(f"user{n}@example.org", sender=f"s@example{n}.com")
    result = bench.drain()
    assert result.code == 4
    assert set(bench.states().values()) == {"deferred", "pending"}
    assert {fact["attempts"] for fact in bench.recipients().values()} == {0}
    assert verbs(server).count("MAIL") <= 4
    bench.assert_balanced()


def test_an_open_breaker_is_not_closed_by_what_was_under_way(
    peer: StartPeer, bench: Bench
) -> None:
    """A message that another session had begun may end well: exit 4 all the same."""
    server = peer(
        extensions=PLAIN,
        mail=lambda view: (
            "250 ok" if view.path == "ok@ok.example" else Delay(0.3, "530 5.7.0 no")
        ),
        dot=Delay(0.8, "250 2.0.0 ok"),
    )
    bench.port = server.port
    bench.configure(primary={"connections": 7})
    bench.add(ALICE, sender="ok@ok.example")
    for n in range(6):
        bench.add(f"user{n}@example.org", sender=f"s@example{n}.com")
    assert bench.drain().code == 4
    states = bench.states()
    assert states.pop(ALICE) == "delivered"
    assert set(states.values()) <= {"deferred", "pending"}


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
def test_421_pauses_the_route_and_the_drain_goes_on(
    peer: StartPeer, bench: Bench, stage: str
) -> None:
    """A short stop: everything is delivered in the same run, no attempt lost by it."""
    usual = "354 go ahead" if stage == "data" else "250 ok"
    bye = ReplyThenDrop("421 4.3.2 restarting")
    server = peer(**{stage: in_turn(bye, usual)})
    bench.port = server.port
    bench.configure(breaker={"give_up_after": "10s"})
    for path in (ALICE, BOB, CAROL):
        bench.add(path)
    assert bench.drain().code == 0
    assert sorted(sum(sent(server), ())) == [ALICE, BOB, CAROL]


# ---- within one run


def test_a_temporary_refusal_is_tried_again_within_the_run(
    peer: StartPeer, bench: Bench
) -> None:
    """On the schedule, until it is accepted: exit 0."""
    later = "451 4.7.1 try again later"
    server = peer(rcpt=in_turn(later, later, "250 2.1.5 ok"))
    bench.port = server.port
    bench.configure(breaker={"give_up_after": "10s"})
    queue_id = bench.add(ALICE)
    assert bench.drain().code == 0
    assert bench.recipients()[ALICE]["attempts"] == 3
    verdicts = [v["verdict"] for v in bench.verdicts(queue_id)]
    assert verdicts == ["retry", "retry", "deliver"]


def test_what_is_refused_for_good_is_neither_bounced_nor_sent_again(
    peer: StartPeer, bench: Bench
) -> None:
    """It rests in bounce-pending, the spool keeps it, a second drain leaves it alone."""  # noqa: E501
    server = peer(rcpt="550 5.1.1 unknown")
    bench.port = server.port
    bench.add(ALICE)
    files = sorted({*bench.spool.rglob("*"), bench.spool / MARKER})
    assert bench.drain().code == 5
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "bounce-pending"}
    assert verbs(server).count("MAIL") == 1
    assert sorted(bench.spool.rglob("*")) == files


def test_what_was_delivered_is_never_sent_again(peer: StartPeer, bench: Bench) -> None:
    """A second drain of the same spool finds nothing to do: exit 0."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE, BOB)
    assert bench.drain().code == 0
    assert bench.drain().code == 0
    assert sent(server) == [(ALICE, BOB)]
