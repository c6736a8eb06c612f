"""Whole drains against a primary that misbehaves, at every stage and in every way.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Certificate, self_signed
from tests.peer import PeerThread
from tests.postfix import free_port
from tests.queue_files import record
from tests.running import Bench
from tests.script import (
    EXTENSIONS,
    Answer,
    Delay,
    Drop,
    DropInBody,
    EarlyReply,
    Garbage,
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

ALICE, BOB, CAROL = "alice@example.org", "bob@example.org", "carol@example.org"
PLAIN = tuple(word for word in EXTENSIONS if word != "PIPELINING")
PIPELINING = pytest.mark.parametrize(
    "extensions", [EXTENSIONS, PLAIN], ids=["pipelined", "one-by-one"]
)
#: More than any socket buffer takes, so that the peer's words come in the middle.
LARGE = b"Subject: large\n\n" + b"0123456789abcdef" * 4 * 1024 * 64 + b"\n"
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
    "banner-450": ({"banner": "450 4.3.2 not now"}, True),
    "banner-554": ({"banner": "554 5.3.2 no SMTP service here"}, False),
    "banner-521": ({"banner": "521 5.3.2 this host accepts no mail"}, False),
    "banner-550": ({"banner": "550 5.7.1 blocked using a list"}, False),
    "banner-556": ({"banner": "556 5.1.10 no mail here"}, False),
    "banner-dropped": ({"banner": Drop()}, True),
    "banner-reset": ({"banner": Reset()}, True),
    "banner-never": ({"banner": Stall()}, True),
    "banner-garbage": ({"banner": Garbage()}, True),
    "banner-is-250": ({"banner": "250 hello"}, True),
    "banner-is-354": ({"banner": "354 go ahead"}, True),
    "ehlo-421": ({"ehlo": ReplyThenDrop("421 4.7.0 too many connections")}, True),
    "ehlo-451": ({"ehlo": "451 4.3.0 later"}, True),
    "ehlo-501": ({"ehlo": "501 5.5.4 bad name"}, False),
    "ehlo-504": ({"ehlo": "504 5.5.2 need fully-qualified hostname"}, False),
    "ehlo-550": ({"ehlo": "550 5.7.1 client host rejected"}, False),
    "ehlo-554": ({"ehlo": "554 5.7.1 go away"}, False),
    "ehlo-500-helo-refused": (
        {"ehlo": "500 5.5.1 what?", "helo": "550 5.7.1 no"},
        False,
    ),
    "ehlo-dropped": ({"ehlo": Drop()}, True),
    "ehlo-reset": ({"ehlo": Reset()}, True),
    "ehlo-never": ({"ehlo": Stall()}, True),
    "ehlo-garbage": ({"ehlo": Garbage()}, True),
    "ehlo-is-354": ({"ehlo": "354 go ahead"}, True),
    "ehlo-of-100-kB": ({"ehlo": Raw(b"250-x\r\n" * 15000 + b"250 x\r\n")}, True),
}


def refused_before_mail(bench: Bench, peer: PeerThread, *, again: bool) -> None:
    """Check that the drain stopped, that nothing was judged, and how often it asked."""
    bench.port = peer.port
    bench.configure(
        primary={"banner_timeout": "150ms"}, gate={"give_up_after": "600ms"}
    )
    queue_id = bench.add(ALICE, BOB)
    result = bench.drain()
    assert result.code == 4, result
    assert result.json["exit"] == 4
    assert bench.states() == {ALICE: "pending", BOB: "pending"}
    assert {fact["attempts"] for fact in bench.recipients().values()} == {0}
    assert bench.verdicts(queue_id) == []
    assert "MAIL" not in verbs(peer)
    assert (peer.connections > 1) is again
    bench.assert_balanced()


@pytest.mark.parametrize(
    ("script", "again"), BEFORE_MAIL.values(), ids=list(BEFORE_MAIL)
)
def test_a_refusal_before_mail_stops_the_drain_and_judges_nothing(
    peer: StartPeer, bench: Bench, script: dict[str, Any], *, again: bool
) -> None:
    """A temporary one is tried again within the run, a permanent one is not."""
    refused_before_mail(bench, peer(**script), again=again)


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
    bench.configure(gate={"give_up_after": "10s"})
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


def test_helo_is_no_way_out_when_tls_is_required(
    peer: StartPeer, bench: Bench
) -> None:
    """A server without EHLO cannot offer STARTTLS: the drain stops."""
    bench.configure(primary={"tls": "required"})
    server = peer(ehlo="502 5.5.1 not implemented")
    refused_before_mail(bench, server, again=False)
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


def no_handshake(_view: View) -> Step:
    """Promise TLS, then say something that is none."""
    return Raw(b"220 2.0.0 go ahead\r\n" + b"\x15\x03\x01\x00\x02\x02\x28" * 3)


BROKEN_TLS: dict[str, Answer] = {
    "no-tls-after-220": no_handshake,
    "dropped-after-220": ReplyThenDrop("220 2.0.0 go ahead"),
}


@pytest.mark.parametrize("starttls", BROKEN_TLS.values(), ids=list(BROKEN_TLS))
def test_a_failed_handshake_is_followed_by_a_connection_in_the_clear(
    peer: StartPeer, bench: Bench, certificate: Certificate, starttls: Answer
) -> None:
    """Opportunistic TLS gives up on TLS, never on the mail."""
    server = peer(tls=certificate.server_context(), starttls=starttls, lenient=True)
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
        lenient=True,
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
    "no-tls-after-220": ({"starttls": no_handshake}, False),
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
    server = peer(tls=certificate.server_context(), lenient=True, **script)
    refused_before_mail(bench, server, again=again)


def test_required_tls_that_is_not_offered_stops_the_drain(
    peer: StartPeer, bench: Bench
) -> None:
    """EHLO does not list STARTTLS: exit 4."""
    bench.configure(primary={"tls": "required"})
    refused_before_mail(bench, peer(), again=False)


def test_a_certificate_that_does_not_verify_stops_the_drain(
    peer: StartPeer, bench: Bench, certificate: Certificate
) -> None:
    """With verify = true a self-signed certificate is none."""
    bench.configure(primary={"tls": "required", "verify": True})
    server = peer(tls=certificate.server_context(), lenient=True)
    refused_before_mail(bench, server, again=False)


# ---- AUTH


AUTH_EXTENSIONS = (*EXTENSIONS, "AUTH PLAIN LOGIN CRAM-MD5")
AUTH: dict[str, tuple[dict[str, Any], bool]] = {
    "535": ({"auth": "535 5.7.8 bad credentials"}, False),
    "534": ({"auth": "534 5.7.9 too weak"}, False),
    "538": ({"auth": "538 5.7.11 encryption required"}, False),
    "525": ({"auth": "525 5.7.13 disabled"}, False),
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
    server = peer(**(known | script))
    refused_before_mail(bench, server, again=again)
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
    settings: dict[str, object] = field(default_factory=dict)


SILENT = Stall()
TABLE: dict[str, Cell] = {
    "mail-450": Cell({"mail": "450 4.7.1 greylisted"}, "deferred", "enhanced-4.7.1"),
    "mail-451": Cell({"mail": "451 try later"}, "deferred", "basic-451"),
    "mail-421": Cell({"mail": ReplyThenDrop("421 bye")}, "deferred", "mail-421", 0),
    "mail-452-4.3.1": Cell(
        {"mail": "452 4.3.1 disk full"}, "deferred", "enhanced-4.3.1", 0
    ),
    "mail-451-4.3.0": Cell(
        {"mail": "451 4.3.0 queue file write error"}, "deferred", "mail-4.3.0", 0
    ),
    "mail-552": Cell(
        {"mail": "552 5.3.4 too big"}, "bounce-pending", "enhanced-5.3.4"
    ),
    "mail-550": Cell({"mail": "550 no"}, "bounce-pending", "basic-550"),
    "mail-530": Cell({"mail": "530 5.7.0 log in"}, "deferred", "basic-530", 0),
    "mail-503": Cell({"mail": "503 5.5.1 bad sequence"}, "held", "enhanced-5.5.1"),
    "mail-555": Cell({"mail": "555 5.5.4 no parameters"}, "held", "enhanced-5.5.4"),
    "mail-dropped": Cell({"mail": Drop()}, "deferred", "mail-lost"),
    "mail-reset": Cell({"mail": Reset()}, "deferred", "mail-lost"),
    "mail-never": Cell({"mail": SILENT}, "deferred", "mail-lost", settings=SHORT),
    "mail-garbage": Cell({"mail": Garbage()}, "deferred", "mail-lost"),
    "mail-is-354": Cell({"mail": "354 go ahead"}, "deferred", "mail-protocol"),
    "rcpt-450": Cell({"rcpt": "450 4.2.1 busy"}, "deferred", "enhanced-4.2.1"),
    "rcpt-451": Cell({"rcpt": "451 4.7.1 later"}, "deferred", "enhanced-4.7.1"),
    "rcpt-421": Cell({"rcpt": ReplyThenDrop("421 bye")}, "deferred", "", 0),
    "rcpt-550": Cell(
        {"rcpt": "550 5.1.1 unknown"}, "bounce-pending", "enhanced-5.1.1"
    ),
    "rcpt-554": Cell({"rcpt": "554 no"}, "bounce-pending", "basic-554"),
    "rcpt-579": Cell({"rcpt": "579 policy"}, "bounce-pending", "basic-579"),
    "rcpt-556": Cell({"rcpt": "556 5.1.10 null MX"}, "deferred", "enhanced-5.1.10", 0),
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


@PIPELINING
@pytest.mark.parametrize("cell", TABLE.values(), ids=list(TABLE))
def test_stage_table(
    peer: StartPeer, bench: Bench, cell: Cell, extensions: tuple[str, ...]
) -> None:
    """What a stage ends with decides for both recipients of the message."""
    server = peer(extensions=extensions, **cell.script)
    bench.port = server.port
    bench.configure(primary=cell.settings)
    bench.add(ALICE, BOB)
    result = bench.drain()
    found = bench.recipients()
    assert set(bench.states().values()) == {cell.state}, found
    if cell.rule:
        assert {fact["rule"] for fact in found.values()} == {cell.rule}
        assert {fact["attempts"] for fact in found.values()} == {cell.attempts}
    assert result.code == cell.code
    assert result.json["recipients"][cell.state] == 2
    bench.assert_balanced()
    assert len(server.accepted) == (cell.state == "delivered")
