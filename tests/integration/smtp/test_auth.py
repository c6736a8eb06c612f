"""AUTH, refused or given only under verified TLS.

Each test tells the peer what to do, drains, and then asks what became of every
recipient: the exit code, the states of the ledger, and what reached the peer. The
peer itself notes what a client must not do; the fixture fails the test for it.
"""

from typing import Any

import pytest

from tests.support.command.runner import Bench
from tests.support.scenarios.sessions import (
    ALICE,
    StartPeer,
    refused_before_mail,
    verbs,
)
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Drop,
    ReplyThenDrop,
)
from tests.support.tls.certificates import Certificate

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
