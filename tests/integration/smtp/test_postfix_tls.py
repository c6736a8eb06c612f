"""A real Postfix that speaks TLS from the start: what `check` says is wrong."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.support.command.runner import Bench, call
from tests.support.mta.postfix import free_port, instance_directory, missing_reason
from tests.support.mta.roles import Primary, primary
from tests.support.tls.certificates import Authority, Certificate, authority, issue

LOCALHOST = [x509.DNSName("localhost")]


@dataclass(frozen=True, slots=True)
class Scene:
    """A Postfix with a port for each kind of server, and the CA of them all."""

    server: Primary
    ports: dict[str, int]
    ca: Authority
    good: Certificate
    ours: Certificate

    def keys(self, kind: str) -> dict[str, object]:
        """Return [primary] for one of the ports."""
        return {
            "host": "localhost",
            "port": self.ports[kind],
            "tls": "implicit",
            "verify": True,
            "tls_ca": str(self.ca.made.certificate),
        }

    @property
    def our_files(self) -> dict[str, object]:
        """Return our client certificate."""
        made = self.ours
        return {"tls_cert": str(made.certificate), "tls_key": str(made.key)}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Run it."""
    if reason := missing_reason():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("tls")
    ca = authority(folder)
    good = issue(folder, "good", LOCALHOST, issuer=ca)
    old = issue(folder, "old", LOCALHOST, issuer=ca, days=(-30, -1))
    ours = issue(folder, "ours", [x509.DNSName("backup.example")], issuer=ca)
    ports = {kind: free_port() for kind in ("good", "old", "strict")}
    usual = "smtpd -o smtpd_tls_wrappermode=yes"
    more = {
        "good": "",
        "old": f" -o smtpd_tls_cert_file={old.certificate}"
        f" -o smtpd_tls_key_file={old.key}",
        "strict": " -o smtpd_tls_ask_ccert=yes -o smtpd_tls_req_ccert=yes",
    }
    with instance_directory() as base:
        server = primary(base)
        server.set(
            smtpd_tls_cert_file=str(good.certificate),
            smtpd_tls_key_file=str(good.key),
            smtpd_tls_CAfile=str(ca.made.certificate),
        )
        server.add_master(
            "".join(
                f"127.0.0.1:{port} inet n - n - - {usual}{more[kind]}\n"
                for kind, port in ports.items()
            )
        )
        with server:
            yield Scene(server, ports, ca, good, ours)


def bench_of(tmp_path: Path, keys: dict[str, Any]) -> Bench:
    """Return a bench with these keys of [primary]."""
    bench = Bench(tmp_path, 0)
    bench.configure(primary=keys, health={"reject": ""})
    return bench


def finding(tmp_path: Path, keys: dict[str, Any]) -> str:
    """Return stage, reply and hint of what a check finds wrong."""
    bench = bench_of(tmp_path, keys)
    result = call("check", "--config", bench.config, "--json")
    assert result.code == 3
    (found,) = (each for each in result.json["stages"] if each["verdict"] == "fail")
    return f"{found['stage']}: {found['reply']}: {found['hint']}"


def test_mail_goes_to_a_postfix_that_wants_tls_and_our_certificate(
    tmp_path: Path, scene: Scene
) -> None:
    """Port 465 as Postfix offers it, smtpd_tls_req_ccert included."""
    bench = bench_of(tmp_path, scene.keys("strict") | scene.our_files)
    bench.add("a@example.org")
    assert bench.drain(check=True).code == 0
    (received,) = scene.server.wait_received(1)
    assert b"ESMTPS" in received.trace


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_missing_client_certificate_is_named(
    tmp_path: Path, scene: Scene, version: str
) -> None:
    """Postfix says so instead of a banner."""
    keys = scene.keys("strict") | {"tls_minimum": version}
    words = finding(tmp_path, keys)
    assert words.startswith("banner: 421 4.7.1")
    assert "set [primary] tls_cert and tls_key" in words


def test_a_wrong_ca_is_named(tmp_path: Path, scene: Scene) -> None:
    """The remedy says where the right one goes."""
    other = authority(tmp_path, "other")
    keys = scene.keys("good") | {"tls_ca": str(other.made.certificate)}
    words = finding(tmp_path, keys)
    assert words.startswith("starttls: tls")
    assert "does not know the primary's CA" in words
    assert "[primary] tls_ca" in words


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        ("old", {}, "has expired: renew it on the primary"),
        ("good", {"host": "127.0.0.1"}, "does not name [primary] host"),
        ("good", {"tls_pin": ["ab" * 32]}, "another key than [primary] tls_pin names"),
    ],
)
def test_what_is_wrong_with_the_certificate_is_named(
    tmp_path: Path, scene: Scene, kind: str, changed: dict[str, object], words: str
) -> None:
    """With a remedy for each."""
    found = finding(tmp_path, scene.keys(kind) | changed)
    assert found.startswith("starttls: tls")
    assert words in found
