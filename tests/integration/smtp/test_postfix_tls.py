"""A real Postfix that speaks TLS from the start: what `check` says is wrong."""

import asyncio
import hashlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from drainer.bounce.evidence.request import DnsServers
from drainer.smtp.certificate import is_issued_by, public_key
from drainer.smtp.dane import Dane, DaneSettings
from tests.support.command.runner import Bench, call
from tests.support.dns.zones import Zone, serving
from tests.support.mta.postfix import free_port, instance_directory, missing_reason
from tests.support.mta.roles import Primary, primary
from tests.support.tls.certificates import Authority, Certificate, authority, issue

NO_DNS = DnsServers()
LOCALHOST = [x509.DNSName("localhost")]


@dataclass(frozen=True, slots=True)
class Scene:
    """A Postfix with a port for each kind of server, and the CA of them all."""

    server: Primary
    ports: dict[str, int]
    ca: Authority
    good: Certificate
    old: Certificate
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
            smtpd_tls_security_level="may",
        )
        server.add_master(
            "".join(
                f"127.0.0.1:{port} inet n - n - - {usual}{more[kind]}\n"
                for kind, port in ports.items()
            )
        )
        with server:
            yield Scene(server, ports, ca, good, old, ours)


@pytest.fixture
def zone() -> Iterator[tuple[Zone, DnsServers]]:
    """Serve a zone as a resolver that validates DNSSEC does."""
    zone = Zone(proven=True)
    with serving(zone) as servers:
        yield zone, servers


def bench_of(tmp_path: Path, keys: dict[str, Any], dns: DnsServers = NO_DNS) -> Bench:
    """Return a bench with these keys of [primary]."""
    bench = Bench(tmp_path, 0)
    asks = {"dns_servers": list(dns.addresses), "dns_port": dns.port}
    bench.configure(primary=keys, health={"reject": ""}, bounce=asks)
    return bench


def finding(tmp_path: Path, keys: dict[str, Any], dns: DnsServers = NO_DNS) -> str:
    """Return stage, reply and hint of what a check finds wrong."""
    bench = bench_of(tmp_path, keys, dns)
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
    assert "set tls_cert and tls_key ([primary], or the route)" in words


def test_a_wrong_ca_is_named(tmp_path: Path, scene: Scene) -> None:
    """The remedy says where the right one goes."""
    other = authority(tmp_path, "other")
    keys = scene.keys("good") | {"tls_ca": str(other.made.certificate)}
    words = finding(tmp_path, keys)
    assert words.startswith("starttls: tls")
    assert "does not know the primary's CA" in words
    assert "tls_ca ([primary], or the route)" in words


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        ("old", {}, "has expired: renew it on the primary"),
        ("good", {"host": "127.0.0.1"}, "does not name [primary] host"),
        (
            "good",
            {"tls_pin": ["ab" * 32]},
            "another key than tls_pin ([pri",
        ),
    ],
)
def test_what_is_wrong_with_the_certificate_is_named(
    tmp_path: Path, scene: Scene, kind: str, changed: dict[str, object], words: str
) -> None:
    """With a remedy for each."""
    found = finding(tmp_path, scene.keys(kind) | changed)
    assert found.startswith("starttls: tls")
    assert words in found


# ---- DANE (RFC 7672)


def der_of(certificate: Certificate) -> bytes:
    """Return a certificate as DER."""
    return ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text("ascii"))


def dane_keys(scene: Scene) -> dict[str, object]:
    """Return [primary] for DANE."""
    return {"host": "localhost", "port": scene.server.port, "tls": "dane"}


def tlsa(usage: int, selector: int, matching: int, der: bytes) -> str:
    """Return a TLSA record as text."""
    data = der if selector == 0 else public_key(der)
    made = {0: data, 1: hashlib.sha256(data).digest(), 2: hashlib.sha512(data).digest()}
    return f"{usage} {selector} {matching} {made[matching].hex()}"


@pytest.mark.parametrize(
    "form", [(3, 1, 1), (3, 0, 2), (3, 1, 0), (2, 0, 1), (2, 1, 2), (2, 0, 0)]
)
def test_a_certificate_that_dns_names_is_valid(
    tmp_path: Path,
    scene: Scene,
    zone: tuple[Zone, DnsServers],
    form: tuple[int, int, int],
) -> None:
    """The server's own, or that of its CA; no CA of this host is asked."""
    der = der_of(scene.good if form[0] == 3 else scene.ca.made)
    name = f"_{scene.server.port}._tcp.localhost"
    zone[0].add(name, "TLSA", "1 0 1 " + "00" * 32)
    zone[0].add(name, "TLSA", tlsa(*form, der))
    bench = bench_of(tmp_path, dane_keys(scene), zone[1])
    bench.add("dane@example.org")
    result = bench.drain(check=True)
    assert result.code == 0, result.stderr
    checked = call("check", "--config", bench.config)
    assert "verified" in checked.stdout
    assert "NOT VERIFIED" not in checked.stdout


def test_a_certificate_that_dns_does_not_name_is_refused(
    tmp_path: Path, scene: Scene, zone: tuple[Zone, DnsServers]
) -> None:
    """Also when the zone has no record that counts: nothing goes unproven."""
    name = f"_{scene.server.port}._tcp.localhost"
    other = authority(tmp_path, "other").made
    refused, absent = "is none that its TLSA records name", "has no TLSA record"
    for usage, known, words in (
        (3, scene.ours, refused),
        (3, scene.ca.made, refused),
        (2, other, refused),
        (1, scene.good, f"{absent} that SMTP uses"),
        (None, scene.good, absent),
    ):
        zone[0].records.pop(name, None)
        if usage is not None:
            zone[0].add(name, "TLSA", tlsa(usage, 1, 1, der_of(known)))
        found = finding(tmp_path, dane_keys(scene), zone[1])
        assert found.startswith("starttls: tls")
        assert words in found
        assert "TLSA" in found.partition(words)[2]


def test_a_ca_that_dns_names_vouches_for_valid_certificates_only(
    tmp_path: Path, scene: Scene
) -> None:
    """For the name, and for now; a server of the CA is no CA."""
    ca = der_of(scene.ca.made)
    for made in (scene.good, scene.old):
        chain = [der_of(made), ca]
        assert is_issued_by(chain, ca, ["localhost"]) == (made is scene.good)
        assert not is_issued_by(chain, ca, ["other.example"])
    key = serialization.load_pem_private_key(scene.good.key.read_bytes(), None)
    loaded = x509.load_pem_x509_certificate(scene.good.certificate.read_bytes())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    forged = issue(
        tmp_path, "forged", LOCALHOST, issuer=Authority(scene.good, loaded, key)
    )
    chain = [der_of(forged), der_of(scene.good), ca]
    assert not is_issued_by(chain, ca, ["localhost"])


def test_what_dnssec_does_not_prove_does_not_count(
    tmp_path: Path, scene: Scene, zone: tuple[Zone, DnsServers]
) -> None:
    """Anyone on the way could have written it."""
    record = tlsa(3, 1, 1, der_of(scene.good))
    zone[0].add(f"_{scene.server.port}._tcp.localhost", "TLSA", record)
    zone[0].proven = False
    found = finding(tmp_path, dane_keys(scene), zone[1])
    assert "does not prove the TLSA record" in found


def test_the_records_of_an_alias_are_those_of_its_target(
    zone: tuple[Zone, DnsServers],
) -> None:
    """If DNSSEC proves the alias; those of the alias itself go second."""
    dns = zone[1]
    settings = DaneSettings(required=True, addresses=dns.addresses, port=dns.port)
    zone[0].add("mx.example", "CNAME", "host.example")
    zone[0].add("host.example", "A", "192.0.2.1")
    record = "3 1 1 " + "ab" * 32
    zone[0].records["_25._tcp.mx.example"] = [("TLSA", record)]
    found = asyncio.run(Dane(settings).find("MX.example.", 25))
    assert found is not None
    assert found.names == ("mx.example", "mx.example")
    zone[0].records["_25._tcp.host.example"] = [("TLSA", record)]
    found = asyncio.run(Dane(settings).find("mx.example", 25))
    assert found is not None
    assert found.names == ("host.example", "mx.example")
