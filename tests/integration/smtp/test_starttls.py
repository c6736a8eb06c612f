"""STARTTLS, refused, failed or required.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

import ssl
from typing import Any

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import (
    ALICE,
    BOB,
    LARGE,
    StartPeer,
    refused_before_mail,
    verbs,
)
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Answer,
    Delay,
    Drop,
    Raw,
    ReplyThenDrop,
    Step,
    View,
)
from tests.support.tls.certificates import Certificate


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
    small, large = sorted(server.accepted, key=lambda each: len(each.content or b""))
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


def offers(view: View, before: tuple[str, ...], after: tuple[str, ...]) -> Step:
    """Return an EHLO reply with other extensions under TLS."""
    *lines, last = ("peer.example", *(after if view.tls else before))
    return "".join(f"250-{line}\n" for line in lines) + f"250 {last}"


@pytest.mark.parametrize("is_less", [True, False], ids=["less", "more"])
def test_only_what_ehlo_offers_under_tls_counts(
    peer: StartPeer, bench: Bench, certificate: Certificate, *, is_less: bool
) -> None:
    """RFC 3207 4.2: what was offered in the clear may be forged."""
    few, many = ("STARTTLS", "SIZE 10"), ("STARTTLS", *EXTENSIONS)
    before, after = (many, ("HELP",)) if is_less else (few, EXTENSIONS)
    server = peer(
        tls=certificate.server_context(),
        ehlo=lambda view: offers(view, before, after),
    )
    bench.port = server.port
    bench.configure(primary={"tls": "required"})
    bench.add(ALICE, BOB)
    assert bench.drain().code == 0
    (message,) = server.accepted
    assert message.tls
    assert ("SIZE" in message.parameters) is not is_less


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
