"""What the doctor learns from DNS: a real server on loopback is asked."""

import asyncio
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from drainer.bounce.evidence.dns import DnsOutcome, Resolver
from drainer.bounce.evidence.request import DnsServers
from drainer.doctor.checks.facts import DomainFacts, MailExchanger
from drainer.doctor.probe_dns import MAX_HOSTS, NamedHosts, is_strict, look_up
from drainer.errors import UsageError
from tests.support.dns.zones import SERVFAIL, serving, zone_of

MX1, MX2, MX3 = "mx1.example.org", "mx2.example.net", "mx3.sub.example.com"
ZONE = zone_of(
    {
        "example.org": [
            ("MX", f"20 {MX2}"),
            ("MX", f"30 {MX3}"),
            ("MX", "10 MX1.Example.Org."),
            ("NS", "ns1.example.org"),
        ],
        MX1: [("A", "192.0.2.1"), ("AAAA", "2001:db8::1")],
        MX2: [("A", "198.51.100.1")],
        MX3: [("A", "203.0.113.1")],
        "example.net": [("NS", "NS1.example.net."), ("NS", "ns2.example.net")],
        "sub.example.com": [("NS", "ns.sub.example.com")],
        "example.com": [("NS", "ns.example.com")],
        "in.example.org": [("A", "198.51.100.1")],
        "twins.example": [("MX", f"10 {MX1}"), ("MX", "20 twin.example")],
        "twin.example": [("A", "192.0.2.1")],
        "equal.example": [("MX", f"10 {MX1}"), ("MX", f"10 {MX2}")],
        "null.example": [("MX", "0 .")],
        "many.example": [("MX", f"{n} mx{n}.many.example") for n in range(20)],
        "ghost.example": [("MX", "10 ghost.invalid"), ("MX", "20 sick.example")],
        "sick.example": [(SERVFAIL, "")],
        "strict.example": [("TXT", "other"), ("TXT", "V=SPF1 mx -ALL")],
        "soft.example": [("TXT", "v=spf1 mx ~all")],
        "long.example": [("TXT", "v=spf10 -all")],
        "led.example": [("TXT", "v=spf1 redirect=strict.example")],
        "open.example": [("A", "192.0.2.1")],
    }
)


@pytest.fixture(scope="module")
def servers() -> Iterator[DnsServers]:
    """Give the server of the zone."""
    with serving(ZONE) as found:
        yield found


def look(
    servers: DnsServers, domain: str, primary: str = "", backups: tuple[str, ...] = ()
) -> tuple[DomainFacts, dict[str, MailExchanger]]:
    """Look a domain up."""
    named = NamedHosts(domain=domain, primary=primary, backups=backups)
    return asyncio.run(look_up(servers, named))


def test_the_lowest_number_is_the_primary_and_the_rest_are_backups(
    servers: DnsServers,
) -> None:
    """In order, in lower case, with addresses of both kinds."""
    domain, hosts = look(servers, "example.org")
    assert [(each.rank, each.host) for each in domain.exchanges] == [
        (10, MX1),
        (20, MX2),
        (30, MX3),
    ]
    assert (domain.primary, domain.backups) == (MX1, (MX2, MX3))
    assert domain.primary_addresses == ("192.0.2.1", "2001:db8::1")
    assert set(hosts) == {MX1, MX2, MX3}


def test_name_servers_are_those_of_the_zone_that_is_nearest(
    servers: DnsServers,
) -> None:
    """From the host up to the organisation, and not further."""
    _, hosts = look(servers, "example.org")
    assert hosts[MX1].name_servers == {"ns1.example.org"}
    assert hosts[MX2].name_servers == {"ns1.example.net", "ns2.example.net"}
    assert hosts[MX3].name_servers == {"ns.sub.example.com"}
    assert look(servers, "twins.example")[1]["twin.example"].name_servers == set()


def test_a_primary_by_another_name_is_known_by_its_address(servers: DnsServers) -> None:
    """The MX record that leads to it is no backup."""
    domain, _ = look(servers, "example.org", primary="in.example.org")
    assert [each.host for each in domain.own] == [MX2]
    assert domain.backups == (MX1, MX3)


def test_a_backup_at_the_primarys_address_is_still_a_backup(
    servers: DnsServers,
) -> None:
    """So that it is told that both are one."""
    domain, _ = look(servers, "twins.example")
    assert domain.backups == ("twin.example",)


def test_of_two_with_one_number_the_first_is_the_primary(servers: DnsServers) -> None:
    """Unless the other one is named."""
    assert look(servers, "equal.example")[0].backups == (MX2,)
    assert look(servers, "equal.example", primary=MX2)[0].backups == (MX1,)


def test_named_backups_are_the_only_ones(servers: DnsServers) -> None:
    """Also one that is no MX; a name of this host's own is known to the system."""
    domain, hosts = look(servers, "example.org", backups=(MX3, "localhost"))
    assert domain.backups == (MX3, "localhost")
    assert "127.0.0.1" in hosts["localhost"].addresses


def test_a_null_mx_names_nobody(servers: DnsServers) -> None:
    """No primary, no backup, nobody to ask."""
    domain, hosts = look(servers, "null.example")
    assert [each.host for each in domain.exchanges] == [""]
    assert (domain.primary, domain.backups, hosts) == ("", (), {})


def test_no_more_than_ten_hosts_are_looked_at(servers: DnsServers) -> None:
    """The lowest numbers, and the rest is counted."""
    domain, hosts = look(servers, "many.example")
    assert (len(domain.exchanges), len(hosts), domain.unseen) == (10, MAX_HOSTS, 10)


def test_absent_and_unanswered_are_told_apart(servers: DnsServers) -> None:
    """The first is a fault, the second is not known to be one."""
    _, hosts = look(servers, "ghost.example")
    assert hosts["ghost.invalid"].outcome is DnsOutcome.NXDOMAIN
    assert hosts["sick.example"].outcome is DnsOutcome.FAILED


def test_addresses_are_not_looked_up(servers: DnsServers) -> None:
    """They are what they are."""
    _, hosts = look(servers, "example.org", primary="192.0.2.9")
    assert hosts["192.0.2.9"].addresses == ("192.0.2.9",)
    assert not [name for name, _ in ZONE.asked if "192.0.2.9" in name]


def test_a_dns_server_that_is_none_is_bad_usage(servers: DnsServers) -> None:
    """Told as such."""
    with pytest.raises(UsageError, match="no usable DNS server"):
        look(replace(servers, addresses=("nonsense",)), "example.org")


@pytest.mark.parametrize(
    ("domain", "answer"),
    [
        ("strict.example", True),
        ("soft.example", False),
        ("long.example", False),
        ("open.example", False),
        ("led.example", None),
        ("sick.example", None),
    ],
)
def test_a_strict_record_ends_with_minus_all(
    servers: DnsServers, domain: str, *, answer: bool | None
) -> None:
    """What leads elsewhere, or is not told, is not known."""
    assert is_strict(Resolver(servers), domain) is answer
