"""DANE where nobody asked for it: what DNS proves is required (RFC 7672)."""

import asyncio
import hashlib
import ssl
from collections.abc import Iterator

import pytest

from drainer.mail.reply import Lost, Stage
from drainer.policy.breaker.remedies import hint
from drainer.smtp import dane
from drainer.smtp.connection import ConnectFailure, Connection, connect
from drainer.smtp.dane import Dane, DaneSettings
from drainer.smtp.route import Route
from tests.support.dns.zones import SERVFAIL, Zone, serving
from tests.support.scenarios.sessions import StartPeer
from tests.support.tls.certificates import Certificate

NAME = "mx.example.test"


def of(addresses: tuple[str, ...], port: int) -> Dane:
    """Return DANE by a resolver."""
    return Dane(DaneSettings(addresses=addresses, port=port, timeout=1))


@pytest.fixture
def zone() -> Iterator[tuple[Zone, Dane]]:
    """Serve a zone with an address of NAME as a resolver that validates does."""
    zone = Zone(proven=True).add(NAME, "A", "127.0.0.1")
    with serving(zone, timeout=1) as dns:
        yield zone, of(dns.addresses, dns.port)


def opened(known: Dane, port: int) -> Connection | ConnectFailure:
    """Open a session with a server on loopback that has a name."""
    route = Route(host=NAME, address="127.0.0.1", port=port, dane=known)

    async def ask() -> Connection | ConnectFailure:
        answer = await connect(route)
        if isinstance(answer, Connection):
            answer.wire.abort(Lost(reason="closed"))
        return answer

    return asyncio.run(ask())


def record(certificate: Certificate, usage: int = 3) -> str:
    """Return a TLSA record that names a certificate."""
    der = ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text("ascii"))
    return f"{usage} 0 1 {hashlib.sha256(der).hexdigest()}"


def test_records_that_dns_proves_are_required(
    peer: StartPeer, certificate: Certificate, zone: tuple[Zone, Dane]
) -> None:
    """The certificate that they name is verified; another, or no TLS, gets nothing."""
    with_tls, without = peer(tls=certificate.server_context()), peer()
    for server in (with_tls, without):
        zone[0].add(f"_{server.port}._tcp.{NAME}", "TLSA", record(certificate))
    good = opened(zone[1], with_tls.port)
    assert isinstance(good, Connection)
    assert (good.tls, good.verified) == (True, True)
    plain = opened(zone[1], without.port)
    assert isinstance(plain, ConnectFailure)
    assert plain.steps[-1].stage is Stage.STARTTLS
    other = peer(tls=certificate.server_context())
    zone[0].add(f"_{other.port}._tcp.{NAME}", "TLSA", f"3 1 1 {'ab' * 32}")
    wrong = opened(zone[1], other.port)
    assert isinstance(wrong, ConnectFailure)
    assert "none that its TLSA records name" in str(wrong.steps[-1].answer)
    assert not other.accepted


def test_records_that_smtp_does_not_use_require_tls_only(
    peer: StartPeer, certificate: Certificate, zone: tuple[Zone, Dane]
) -> None:
    """RFC 7672 2.2: encrypted, with any certificate; never in the clear."""
    with_tls, without = peer(tls=certificate.server_context()), peer()
    for server in (with_tls, without):
        zone[0].add(f"_{server.port}._tcp.{NAME}", "TLSA", record(certificate, 1))
    good = opened(zone[1], with_tls.port)
    assert isinstance(good, Connection)
    assert (good.tls, good.verified) == (True, False)
    assert isinstance(opened(zone[1], without.port), ConnectFailure)


def test_dns_that_fails_in_a_proven_zone_lets_nothing_out(
    peer: StartPeer, zone: tuple[Zone, Dane]
) -> None:
    """RFC 7672 2.1.2: it could be an attack; the server counts as not reachable."""
    server = peer()
    zone[0].add(f"_{server.port}._tcp.{NAME}", SERVFAIL)
    failed = opened(zone[1], server.port)
    assert isinstance(failed, ConnectFailure)
    step = failed.steps[-1]
    assert step.stage is Stage.CONNECT
    assert isinstance(step.answer, Lost)
    assert step.answer.reason == "unresolved"
    assert "tls_pin" in hint(step.stage, step.answer)
    assert server.commands == []


def test_an_answer_is_asked_for_once_and_stays_while_dns_is_away(
    peer: StartPeer,
    certificate: Certificate,
    zone: tuple[Zone, Dane],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the first session in a TTL waits for DNS."""
    server = peer(tls=certificate.server_context())
    name = f"_{server.port}._tcp.{NAME}"
    zone[0].add(name, "TLSA", record(certificate))
    for _ in range(3):
        assert isinstance(opened(zone[1], server.port), Connection)
    assert zone[0].asked == [(NAME, "A"), (name, "TLSA")]
    monkeypatch.setattr(dane, "LEAST", 0.0)
    zone[0].ttl = 0
    zone[0].add(f"_25._tcp.{NAME}", "TLSA", record(certificate))
    found = asyncio.run(zone[1].find(NAME, 25))
    zone[0].records[NAME] = [(SERVFAIL, "")]
    zone[0].asked.clear()
    assert found == asyncio.run(zone[1].find(NAME, 25)) is not None
    assert (NAME, "A") in zone[0].asked


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_what_is_no_full_name_is_not_asked_for(
    zone: tuple[Zone, Dane], host: str
) -> None:
    """An address has no TLSA record, and a short name is none of the Internet."""
    assert asyncio.run(zone[1].find(host, 25)) is None
    assert zone[0].asked == []


def test_a_resolver_that_does_not_validate_gets_no_question_about_dane(
    peer: StartPeer, zone: tuple[Zone, Dane]
) -> None:
    """The address shows that; mail goes on as without DANE. So does a dead resolver."""
    server = peer()
    zone[0].proven = False
    assert isinstance(opened(zone[1], server.port), Connection)
    assert zone[0].asked == [(NAME, "A")]
    assert isinstance(opened(of(("127.0.0.1",), 1), server.port), Connection)
