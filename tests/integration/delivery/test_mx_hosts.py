"""Routes by MX records, against a real DNS server on loopback."""

import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drainer.config import load as config_file
from drainer.delivery.mx_hosts import routes_now
from drainer.smtp.certificate import key_digest
from tests.support.command.runner import Bench, call
from tests.support.dns.zones import SERVFAIL, TIMEOUT, Zone, serving
from tests.support.smtp_peer.peer import PeerThread
from tests.support.tls.certificates import self_signed

StartPeer = Callable[..., PeerThread]


@pytest.fixture
def zone() -> Zone:
    """Give an empty zone."""
    return Zone()


@pytest.fixture
def bench(tmp_path: Path, peer: StartPeer, zone: Zone) -> Iterator[Bench]:
    """Give a bench whose domains go by MX; every server has the port of one peer."""
    with serving(zone) as servers:
        bench = Bench(tmp_path, peer().port)
        bench.configure(
            primary={"host": "", "hosts": "mx", "domains": ["example.org"]},
            bounce={
                "dns_servers": list(servers.addresses),
                "dns_port": servers.port,
                "dns_timeout": "2s",
            },
        )
        yield bench


def test_mail_goes_to_the_servers_that_are_preferred_to_this_backup(
    bench: Bench, zone: Zone
) -> None:
    """The best that answers gets it; what is not better than we are is never asked."""
    zone.add("example.org", "MX", "5 nowhere.invalid")
    zone.add("example.org", "MX", "10 localhost")
    zone.add("example.org", "MX", "20 Backup.Example.")
    zone.add("example.org", "MX", "30 worse.invalid")
    bench.add("a@example.org")
    assert bench.drain().code == 0
    assert bench.recipients()["a@example.org"]["route"].startswith("nowhere.invalid:")


def test_domains_with_the_same_servers_are_one_route(bench: Bench, zone: Zone) -> None:
    """So that these servers see one rate limit; an alias is followed."""
    bench.configure(primary={"domains": ["a.example", "b.example", "c.example"]})
    for name in ("a.example", "real.example"):
        zone.add(name, "MX", "10 localhost")
    zone.add("b.example", "CNAME", "real.example")
    zone.add("c.example", "A", "127.0.0.1")  # no MX: its own address
    for domain in ("a.example", "b.example", "c.example"):
        bench.add(f"u@{domain}")
    bench.drain()
    routes = {path: fact["route"] for path, fact in bench.recipients().items()}
    assert routes["u@a.example"] == routes["u@b.example"]
    assert routes["u@c.example"].startswith("c.example:")
    states = bench.states()
    assert states["u@a.example"] == states["u@b.example"] == "delivered"


def test_domains_with_some_servers_in_common_end_no_run(
    bench: Bench, zone: Zone
) -> None:
    """Each server is of one route; a domain of a named server waits, and is named."""
    domains = ["a.example", "b.example", "c.example"]
    bench.configure(primary={"domains": domains})
    bench.routes = [{"domains": ["d.example"], "host": "mx3.invalid"}]
    zone.add("a.example", "MX", "10 localhost").add("a.example", "MX", "20 mx2.invalid")
    zone.add("b.example", "MX", "10 LOCALHOST.").add(
        "b.example", "MX", "10 mx1.invalid"
    )
    zone.add("c.example", "MX", "10 mx3.invalid")
    for domain in domains:
        bench.add(f"u@{domain}")
    result = bench.drain()
    assert result.code == 5, result.stderr
    assert "the MX of c.example, mx3.invalid, is a server of another" in result.stderr
    assert list(bench.states().values()).count("delivered") == 2
    assert bench.states()["u@c.example"] == "pending"
    asked = call("config", "--config", bench.config, "--route", "u@c.example")
    assert "is a server of another route" in asked.stdout
    bench.configure(primary={"domains": domains[:2]})
    bench.routes = [{"domains": ["c.example", "d.example"], "host": "127.0.0.1"}]
    assert bench.drain().code == 0


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([("MX", "0 .")], "null MX"),
        ([("MX", "10 backup.example"), ("MX", "10 localhost")], "preferred"),
        ([("MX", "10 mx2.other.example")], "preferred"),
        ([], "does not exist"),
    ],
)
def test_without_a_server_the_mail_is_held(
    bench: Bench, zone: Zone, records: list[tuple[str, str]], words: str
) -> None:
    """It is held with the reason, and goes once DNS names a server."""
    primary = {"domains": ["example.org", "b.example"]}
    bench.configure(primary={**primary, "backup_names": ["mx2.other.example"]})
    zone.add("b.example", "MX", "10 localhost")
    for kind, value in records:
        zone.add("example.org", kind, value)
    name = bench.add("a@example.org")
    result = bench.drain()
    assert words in result.stderr
    assert bench.states() == {"a@example.org": "held"}
    assert bench.recipients()["a@example.org"]["rule"] == "local-no-route"
    assert "no-route" in str(bench.why(name))
    remedy = "correct the MX records of the domain, or name its hosts"
    assert remedy in bench.run("why", name).stdout
    again = bench.run("drain", f"postfix:{bench.spool}", "--no-check")
    assert remedy in " ".join(again.stdout.split())
    zone.records["example.org"] = [("MX", "10 localhost")]
    assert bench.drain().code == 0


@pytest.mark.parametrize("failure", [SERVFAIL, TIMEOUT])
def test_a_dns_that_does_not_answer_holds_nothing(
    bench: Bench, zone: Zone, failure: str
) -> None:
    """What it is asked for waits, and the rest is sent."""
    bench.configure(primary={"domains": ["example.org", "b.example"]})
    bench.configure(bounce={"dns_timeout": "1s"})
    zone.add("example.org", failure)
    zone.add("b.example", "MX", "10 localhost")
    bench.add("a@example.org", "b@b.example")
    assert bench.drain().code == 5
    assert Counter(bench.states().values()) == {"pending": 1, "delivered": 1}
    zone.records["example.org"] = [("MX", "10 localhost")]
    assert bench.drain().code == 0


def test_with_dane_dnssec_must_prove_the_mx_records(
    bench: Bench, zone: Zone, tmp_path: Path, peer: StartPeer
) -> None:
    """Until then the mail waits; the certificate is that of the server's name."""
    made = self_signed(tmp_path, "localhost")
    der = ssl.PEM_cert_to_DER_cert(made.certificate.read_text("ascii"))
    server = peer(tls=made.server_context())
    bench.configure(primary={"tls": "dane", "port": server.port})
    zone.add("example.org", "MX", "10 localhost")
    zone.add(f"_{server.port}._tcp.localhost", "TLSA", f"3 1 1 {key_digest(der)}")
    bench.add("a@example.org")
    refused = bench.drain()
    assert refused.code == 3
    assert "does not prove the MX records" in refused.stderr
    assert server.accepted == []
    zone.proven = True
    assert bench.drain().code == 0
    assert [each.tls for each in server.accepted] == [True]


def test_without_any_server_nothing_is_sent(bench: Bench, zone: Zone) -> None:
    """The exit status is that of a primary that is not ready."""
    zone.add("example.org", SERVFAIL)
    bench.add("a@example.org")
    result = bench.drain()
    assert result.code == 3
    assert "DNS does not answer" in result.stderr
    checked = call("check", "--config", bench.config)
    assert checked.code == 3
    assert "DNS does not answer" in checked.stderr


def test_by_mx_the_domains_must_be_named(bench: Bench) -> None:
    """Which domains a spool has is not known before it is read."""
    bench.configure(primary={"domains": []})
    result = bench.drain()
    assert result.code == 2
    assert "needs the names of the domains" in result.stderr


def test_the_routes_of_primary_have_what_is_its_own(bench: Bench, zone: Zone) -> None:
    """The pins, and the known-good recipients of the domains of each."""
    domains, known = ["a.example", "b.example"], ["u@a.example", "u@b.example"]
    pin = "00" * 32
    bench.configure(primary={"domains": domains, "tls_pin": [pin], "tls": "required"})
    bench.configure(health={"accept": known})
    for n, domain in enumerate(domains):
        zone.add(domain, "MX", f"10 mx{n}.invalid")
    found = routes_now(config_file.load(bench.config, {}))
    assert [each.health.accept for each in found] == [(known[0],), (known[1],)]
    assert {each.primary.tls_pin for each in found} == {(pin,)}
