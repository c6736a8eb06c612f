"""TLS from the start, certificates of both sides, pinned keys, and access tokens."""

import base64
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drainer.smtp.certificate import key_digest
from tests.support.command.runner import Bench, call
from tests.support.smtp_peer.peer import PeerThread
from tests.support.tls.certificates import Certificate, expired, self_signed

StartPeer = Callable[..., PeerThread]


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """Give a certificate for both loopback addresses."""
    return self_signed(tmp_path)


def bench_for(tmp_path: Path, port: int, **primary: object) -> Bench:
    """Return a bench with one message and these keys of [primary]."""
    bench = Bench(tmp_path / "bench", port)
    bench.configure(primary=primary)
    bench.add("a@example.org")
    return bench


def digest_of(certificate: Certificate) -> str:
    """Return the pin of a certificate, in hex."""
    pem = certificate.certificate.read_bytes()
    return key_digest(ssl.PEM_cert_to_DER_cert(pem.decode()))


def check(bench: Bench) -> tuple[int, str, str]:
    """Return the exit status of `check`, the stage that failed, and what it says."""
    result = call("check", "--config", bench.config, "--json")
    failed = [s for s in result.json["stages"] if s["verdict"] == "fail"]
    stage = failed[0] if failed else {"stage": "", "reply": "", "hint": ""}
    return result.code, stage["stage"], f"{stage['reply']} {stage['hint']}"


def test_mail_goes_by_tls_from_the_start(
    tmp_path: Path, peer: StartPeer, certificate: Certificate
) -> None:
    """No STARTTLS is asked for; the certificate of a CA of ours is verified."""
    server = peer(tls=certificate.server_context(), implicit_tls=True)
    bench = bench_for(
        tmp_path,
        server.port,
        tls="implicit",
        verify=True,
        tls_ca=str(certificate.certificate),
    )
    assert bench.drain().code == 0
    assert len(server.accepted) == 1
    assert all(message.tls for message in server.accepted)
    assert check(bench)[0] == 0


def test_what_is_wrong_with_a_certificate_is_named(
    tmp_path: Path, peer: StartPeer, certificate: Certificate
) -> None:
    """An unknown CA, an expired one, a key that is not the pinned one: at its stage."""
    server = peer(tls=certificate.server_context(), implicit_tls=True, lenient=True)
    unknown = bench_for(tmp_path, server.port, tls="implicit", verify=True)
    code, stage, words = check(unknown)
    assert (code, stage) == (3, "starttls")
    assert "self-signed" in words
    unknown.configure(primary={"verify": None, "tls_pin": ["0" * 64]})
    code, stage, words = check(unknown)
    assert (code, stage) == (3, "starttls")
    assert digest_of(certificate) in words
    old = expired(tmp_path, "localhost")
    stale = peer(tls=old.server_context(), implicit_tls=True, lenient=True)
    known = bench_for(
        tmp_path / "b",
        stale.port,
        tls="implicit",
        verify=True,
        host="localhost",
        tls_ca=str(old.certificate),
    )
    code, stage, words = check(known)
    assert (code, stage) == (3, "starttls")
    assert "expired" in words


@pytest.mark.parametrize("implicit", [True, False])
def test_a_pinned_key_needs_no_ca(
    tmp_path: Path, peer: StartPeer, certificate: Certificate, *, implicit: bool
) -> None:
    """In hex or base64; it makes TLS required."""
    server = peer(tls=certificate.server_context(), implicit_tls=implicit)
    digest = digest_of(certificate)
    pins = ["f" * 64, base64.b64encode(bytes.fromhex(digest)).decode()]
    tls = "implicit" if implicit else None
    bench = bench_for(tmp_path, server.port, tls=tls, tls_pin=pins)
    assert bench.drain().code == 0
    assert all(message.tls for message in server.accepted)


def test_our_certificate_is_shown_to_a_primary_that_wants_it(
    tmp_path: Path, peer: StartPeer, certificate: Certificate
) -> None:
    """Without it the handshake fails, and nothing is sent."""
    ours = self_signed(tmp_path, "backup.example")
    context = certificate.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ours.certificate)
    server = peer(tls=context, implicit_tls=True, lenient=True)
    bench = bench_for(tmp_path, server.port, tls="implicit")
    assert bench.drain().code != 0
    assert server.accepted == []
    assert "may want a client certificate" in check(bench)[2]
    keys = {"tls_cert": str(ours.certificate), "tls_key": str(ours.key)}
    bench.configure(primary=keys)
    assert bench.drain().code == 0


def test_a_port_that_speaks_tls_is_named_within_seconds(
    tmp_path: Path, peer: StartPeer, certificate: Certificate
) -> None:
    """It is not a firewall that drops the banner."""
    server = peer(tls=certificate.server_context(), implicit_tls=True, lenient=True)
    bench = bench_for(tmp_path, server.port, banner_timeout="5m")
    code, stage, words = check(bench)
    assert (code, stage) == (3, "banner")
    assert 'tls = "implicit"' in words


def test_a_port_that_speaks_tls_delays_no_finding_about_dane(
    tmp_path: Path, peer: StartPeer, certificate: Certificate
) -> None:
    """The session that looks at the certificate does not wait for the banner either."""
    server = peer(tls=certificate.server_context(), implicit_tls=True, lenient=True)
    bench = bench_for(tmp_path, server.port, tls="dane", banner_timeout="2m")
    began = time.monotonic()
    code, stage, words = check(bench)
    assert time.monotonic() - began < 90
    assert (code, stage) == (3, "starttls")
    assert "TLSA record" in words


def test_a_port_that_waits_for_starttls_is_named(
    tmp_path: Path, peer: StartPeer
) -> None:
    """The other way round: drainer speaks TLS first, and the port answers in plain."""
    bench = bench_for(tmp_path, peer(lenient=True).port, tls="implicit")
    code, stage, words = check(bench)
    assert (code, stage) == (3, "starttls")
    assert 'set "required" for STARTTLS' in words


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_a_command_prints_the_access_token(
    tmp_path: Path, peer: StartPeer, certificate: Certificate, mechanism: str
) -> None:
    """It is sent once, and shown nowhere."""
    server = peer(
        tls=certificate.server_context(),
        implicit_tls=True,
        extensions=("PIPELINING", f"AUTH {mechanism}"),
    )
    program = tmp_path / "token"
    program.write_text("#!/bin/sh\necho secret.token\n", "ascii")
    program.chmod(0o700)
    bench = bench_for(
        tmp_path,
        server.port,
        tls="implicit",
        username="relay@example.org",
        token_command=str(program),
        tls_ca=str(certificate.certificate),
    )
    result = bench.drain()
    assert result.code == 0, result.stderr
    [(who, shown)] = server.logins
    assert shown == "auth=Bearer secret.token\x01\x01"
    assert "relay@example.org" in who
    assert "secret.token" not in result.stdout + result.stderr
    program.write_text("#!/bin/sh\nexit 1\n", "ascii")
    bench.add("b@example.org")
    failed = bench.drain()
    assert failed.code == 4
    assert "token_command" in bench.run("status").stdout
