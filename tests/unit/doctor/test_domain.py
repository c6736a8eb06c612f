"""The doctor's checks of MX records: each row, and what only just is not one."""

import pytest
from msgspec.structs import replace

from drainer.bounce.evidence.dns import DnsOutcome
from drainer.doctor.checks import examine
from drainer.doctor.checks.check import DoctorFinding, Grade
from drainer.doctor.checks.facts import (
    DoctorFacts,
    DomainFacts,
    MailExchanger,
)

HEALTHY = DomainFacts(
    name="example.org",
    exchanges=(
        MailExchanger(
            host="mx1.example.org",
            rank=10,
            addresses=("192.0.2.1", "2001:db8:1::1"),
            name_servers=frozenset(("ns1.example.org", "ns2.example.org")),
        ),
        MailExchanger(
            host="mx2.example.net",
            rank=20,
            addresses=("198.51.100.1", "2001:db8:2::1"),
            name_servers=frozenset(("ns1.example.net", "ns2.example.net")),
        ),
    ),
    primary="mx1.example.org",
    primary_addresses=("192.0.2.1", "2001:db8:1::1"),
    backups=("mx2.example.net",),
)
FIRST, SECOND = HEALTHY.exchanges
THIRD = replace(SECOND, host="mx3.example.com", addresses=("203.0.113.1",))


def found(domain: DomainFacts) -> dict[str, list[DoctorFinding]]:
    """Return the findings about MX records by check."""
    by_check: dict[str, list[DoctorFinding]] = {}
    for each in examine(DoctorFacts(domain=domain)):
        if each.check.startswith("mx-"):
            by_check.setdefault(each.check, []).append(each)
    return by_check


def worst(domain: DomainFacts, check: str) -> DoctorFinding:
    """Return what a check says that is not ok, or else what it says last."""
    findings = found(domain)[check]
    return next((f for f in findings if f.grade is not Grade.OK), findings[-1])


def first(**changes: object) -> DomainFacts:
    """Return the healthy domain with another primary."""
    return replace(HEALTHY, exchanges=(replace(FIRST, **changes), SECOND))


def second(**changes: object) -> DomainFacts:
    """Return the healthy domain with another backup."""
    return replace(HEALTHY, exchanges=(FIRST, replace(SECOND, **changes)))


def mx(*exchanges: MailExchanger, **changes: object) -> DomainFacts:
    """Return the healthy domain with other records."""
    return replace(HEALTHY, exchanges=exchanges, **changes)


NOTHING = {"exchanges": (), "primary": "", "primary_addresses": (), "backups": ()}
NULL = MailExchanger(host="", rank=0)


def test_a_healthy_domain_has_nothing_to_mend() -> None:
    """Every check is ok, about whom it concerns, and has no remedy."""
    findings = [each for several in found(HEALTHY).values() for each in several]
    assert {each.grade for each in findings} == {Grade.OK}
    assert {each.remedy for each in findings} == {""}
    assert {each.subject for each in found(HEALTHY)["mx-address"]} == {
        "mx1.example.org",
        "mx2.example.net",
    }
    assert {each.subject for each in found(HEALTHY)["mx-order"]} == {"mx2.example.net"}


ROWS = {
    "a domain that does not exist": (
        "mx-records", replace(HEALTHY, outcome=DnsOutcome.NXDOMAIN, **NOTHING),
        Grade.FAIL, "does not exist",
    ),
    "a domain without MX": (
        "mx-records", replace(HEALTHY, outcome=DnsOutcome.ABSENT, **NOTHING),
        Grade.FAIL, "no MX record",
    ),
    "DNS that does not answer": (
        "mx-records",
        replace(HEALTHY, outcome=DnsOutcome.FAILED, detail="Timeout", **NOTHING),
        Grade.FAIL, "Timeout",
    ),
    "without MX there is no null MX": (
        "mx-null", replace(HEALTHY, outcome=DnsOutcome.ABSENT, **NOTHING),
        Grade.SKIPPED, "no MX record",
    ),
    "a null MX": ("mx-null", mx(NULL, backups=()), Grade.FAIL, "accepts no mail"),
    "a null MX beside others is in no tier": (
        "mx-tiers", mx(NULL, FIRST, SECOND), Grade.OK, "10: mx1.example.org; 20",
    ),
    "more records than are looked at": (
        "mx-records", replace(HEALTHY, unseen=3), Grade.OK, "3 more are not",
    ),
    "a null MX beside others": (
        "mx-null", mx(NULL, FIRST, SECOND), Grade.FAIL, "contradicts",
    ),
    "after a null MX nothing else is looked at": (
        "mx-order", mx(NULL, backups=()), Grade.SKIPPED, "no MX record to check",
    ),
    "tiers are told in order": (
        "mx-tiers", mx(FIRST, SECOND, THIRD), Grade.OK,
        "10: mx1.example.org; 20: mx2.example.net, mx3.example.com (senders choose",
    ),
    "a host that stands there twice": (
        "mx-tiers", mx(FIRST, replace(FIRST, rank=30), SECOND), Grade.WARN,
        "mx1.example.org is listed more than once",
    ),
    "a stranger before the primary": (
        "mx-tiers", mx(replace(THIRD, rank=5), FIRST, SECOND), Grade.WARN,
        "mx3.example.com comes before the primary",
    ),
    "a backup before the primary is for another check": (
        "mx-tiers", second(rank=5), Grade.OK, "5: mx2.example.net; 10: mx1",
    ),
    "a primary that is no MX": (
        "mx-primary",
        replace(HEALTHY, primary="in.example.org", primary_addresses=("203.0.113.9",)),
        Grade.WARN, "mx1.example.org is compared instead",
    ),
    "a primary by another name": (
        "mx-primary",
        replace(HEALTHY, primary="in.example.org", primary_addresses=("192.0.2.1",)),
        Grade.OK, "in.example.org is an MX",
    ),
    "no primary at all": (
        "mx-primary", replace(HEALTHY, primary="", primary_addresses=()),
        Grade.UNKNOWN, "no primary is named",
    ),
    "a backup with a lower number": (
        "mx-order", second(rank=9), Grade.FAIL, "9 is lower than the primary's 10",
    ),
    "a backup with the same number": (
        "mx-order", second(rank=10), Grade.WARN, "half of the mail",
    ),
    "a backup with the next number": (
        "mx-order", second(rank=11), Grade.OK, "11, behind the primary's 10",
    ),
    "a backup that no MX names": (
        "mx-order", replace(HEALTHY, backups=("mx9.example.net",)),
        Grade.FAIL, "no MX record names it",
    ),
    "no backup": (
        "mx-order", mx(FIRST, backups=()), Grade.FAIL, "mx1.example.org is the only MX",
    ),
    "an alias": (
        "mx-alias", second(alias="real.example.net"), Grade.FAIL, "real.example.net",
    ),
    "an IPv4 address as a host": (
        "mx-literal", second(host="198.51.100.1"), Grade.FAIL, "an address",
    ),
    "an IPv6 address as a host": (
        "mx-literal", second(host="2001:db8::2"), Grade.FAIL, "an address",
    ),
    "a host that only looks like an address": (
        "mx-literal", second(host="198.51.100.1.example.net"), Grade.OK, "a name",
    ),
    "a host without address": (
        "mx-address", second(addresses=(), outcome=DnsOutcome.NXDOMAIN),
        Grade.FAIL, "no address",
    ),
    "a host about which DNS does not answer": (
        "mx-address", second(addresses=(), outcome=DnsOutcome.FAILED),
        Grade.UNKNOWN, "DNS does not answer",
    ),
    "a host of which half is known": (
        "mx-address", second(addresses=("198.51.100.1",), outcome=DnsOutcome.FAILED),
        Grade.OK, "198.51.100.1",
    ),
    "a host with IPv6 alone": (
        "mx-address", second(addresses=("2001:db8:2::1",)), Grade.WARN, "only IPv6",
    ),
    "a private address": (
        "mx-public", second(addresses=("10.0.0.2",)), Grade.WARN, "10.0.0.2: private",
    ),
    "an address beside a private network": (
        "mx-public", second(addresses=("11.0.0.2",)), Grade.OK, "public",
    ),
    "the same address": (
        "mx-network", second(addresses=("192.0.2.1",)), Grade.FAIL,
        "192.0.2.1 is the primary's address",
    ),
    "the same /24": (
        "mx-network", second(addresses=("192.0.2.200",)), Grade.WARN, "192.0.2.0/24",
    ),
    "the next /24": (
        "mx-network", second(addresses=("192.0.3.1",)), Grade.OK, "another network",
    ),
    "the same /48": (
        "mx-network", second(addresses=("2001:db8:1:ffff::1",)), Grade.WARN,
        "2001:db8:1::/48",
    ),
    "the next /48": (
        "mx-network", second(addresses=("2001:db8:3::1",)), Grade.OK, "another network",
    ),
    "a network that nobody knows": (
        "mx-network", second(addresses=()), Grade.UNKNOWN, "an address is missing",
    ),
    "a primary's network that nobody knows": (
        "mx-network", first(addresses=()), Grade.UNKNOWN, "an address is missing",
    ),
    "the same name servers": (
        "mx-name-servers", second(name_servers=FIRST.name_servers), Grade.WARN,
        "ns1.example.org, ns2.example.org",
    ),
    "some of the primary's name servers": (
        "mx-name-servers", second(name_servers=frozenset(("ns1.example.org",))),
        Grade.WARN, "all of them",
    ),
    "one name server more": (
        "mx-name-servers",
        second(name_servers=FIRST.name_servers | {"ns.example.net"}),
        Grade.OK, "ns.example.net",
    ),
    "name servers that nobody knows": (
        "mx-name-servers", second(name_servers=frozenset()), Grade.UNKNOWN, "not say",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "domain", "grade", "words"), ROWS.values(), ids=list(ROWS)
)
def test_a_row(check: str, domain: DomainFacts, grade: Grade, words: str) -> None:
    """The verdict, the words, and a remedy exactly where there is something to mend."""
    finding = worst(domain, check)
    assert (finding.grade, words in finding.found) == (grade, True), finding
    assert bool(finding.remedy) is (grade in (Grade.WARN, Grade.FAIL, Grade.UNKNOWN))


def test_every_check_of_records_can_go_wrong_and_right() -> None:
    """The rows above have both for each, the healthy domain counting as right."""
    bad = {check for check, _, grade, _ in ROWS.values() if grade is not Grade.OK}
    assert bad == set(found(HEALTHY))


def test_one_row_for_each_backup() -> None:
    """Each with its own number and network."""
    domain = mx(FIRST, SECOND, replace(THIRD, rank=5))
    domain = replace(domain, backups=("mx2.example.net", "mx3.example.com"))
    settings = {f.subject: f.grade for f in found(domain)["mx-order"]}
    assert settings == {"mx2.example.net": Grade.OK, "mx3.example.com": Grade.FAIL}
    assert len(found(domain)["mx-network"]) == 2
