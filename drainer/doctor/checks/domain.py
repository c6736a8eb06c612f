"""Checks of the domain's MX records; pure."""

import ipaddress
from collections import Counter
from collections.abc import Iterable

from drainer.bounce.evidence.dns import DnsOutcome
from drainer.doctor.checks.check import (
    Check,
    CheckResult,
    fail,
    ok,
    skip,
    unknown,
    warn,
)
from drainer.doctor.checks.facts import DomainFacts, MailExchanger
from drainer.policy.bounce.facts import Network, is_private, parse_address

NETWORK = {4: 24, 6: 48}
"""Prefix length of what counts as one network, by IP version."""


def _present(domain: DomainFacts) -> CheckResult:
    match domain.outcome:
        case DnsOutcome.FAILED:
            words = f"DNS does not answer: {domain.detail}"
            return fail(
                words, "", "check the name servers in /etc/resolv.conf, or --dns"
            )
        case DnsOutcome.NXDOMAIN:
            return fail(f"{domain.name} does not exist")
        case DnsOutcome.ABSENT:
            return fail("no MX record: mail goes only to the domain's own address")
        case DnsOutcome.FOUND:  # pragma: no branch
            more = f"; {domain.unseen} more are not checked" if domain.unseen else ""
            return ok(f"{len(domain.exchanges)} MX records{more}")


def _null(domain: DomainFacts) -> CheckResult:
    if domain.outcome is not DnsOutcome.FOUND:
        return skip("there is no MX record")
    nulls = [each for each in domain.exchanges if not each.host]
    if not nulls:
        return ok("no null MX")
    if len(nulls) == len(domain.exchanges):  # RFC 7505 3
        return fail("null MX: the domain says that it accepts no mail")
    return fail("a null MX beside other records contradicts them")


def _tiers(domain: DomainFacts) -> CheckResult:
    ranks = sorted({each.rank for each in domain.hosts})
    words = "; ".join(f"{rank}: {_names(domain, rank)}" for rank in ranks)
    counts = Counter(each.host for each in domain.hosts)
    twice = [host for host, count in counts.items() if count > 1]
    if twice:
        return warn(f"{words}; {', '.join(twice)} is listed more than once")
    number = min(each.rank for each in domain.first)
    known = {each.host for each in domain.first} | set(domain.backups)
    before = [e.host for e in domain.hosts if e.rank < number and e.host not in known]
    if before:
        return warn(f"{words}; {', '.join(before)} comes before the primary")
    return ok(words)


def _names(domain: DomainFacts, rank: int) -> str:
    hosts = [each.host for each in domain.hosts if each.rank == rank]
    equal = " (senders choose at random)" if len(hosts) > 1 else ""
    return ", ".join(hosts) + equal


def _primary(domain: DomainFacts) -> CheckResult:
    if domain.own:
        return ok(f"{domain.primary} is an MX of the domain")
    taken = ", ".join(each.host for each in domain.first)
    if not domain.primary:
        return unknown("no primary is named, and DNS names none")
    return warn(
        f"{domain.primary} is not an MX of the domain; {taken} is compared instead"
    )


def _order(domain: DomainFacts) -> CheckResult | list[CheckResult]:
    if not domain.backups:
        only = ", ".join(each.host for each in domain.first)
        return fail(f"no backup: {only} is the only MX")
    return [_rank(domain, backup) for backup in domain.backups]


def _rank(domain: DomainFacts, backup: str) -> CheckResult:
    ranks = [each.rank for each in domain.hosts if each.host == backup]
    if not ranks:
        return fail("no MX record names it, so no sender would use it", backup)
    own, first = min(ranks), min(each.rank for each in domain.first)
    if own < first:
        words = f"{own} is lower than the primary's {first}: all mail goes there first"
        return fail(words, backup)
    if own == first:
        words = f"{own}, like the primary: it always gets half of the mail"
        return warn(words, backup)
    return ok(f"{own}, behind the primary's {first}", backup)


def _alias(domain: DomainFacts) -> list[CheckResult]:
    return [
        fail(f"an alias of {each.alias}", each.host)  # RFC 2181 10.3, RFC 5321 5.1
        if each.alias
        else ok("not an alias", each.host)
        for each in domain.hosts
    ]


def _literal(domain: DomainFacts) -> list[CheckResult]:
    return [
        ok("a name", each.host)
        if parse_address(each.host) is None
        else fail("an address, where only a name is allowed", each.host)
        for each in domain.hosts
    ]


def _check_address(exchange: MailExchanger) -> CheckResult:
    if not exchange.addresses and exchange.outcome is DnsOutcome.FAILED:
        return unknown("DNS does not answer", exchange.host)
    if not exchange.addresses:
        return fail("it has no address", exchange.host)
    words = ", ".join(exchange.addresses)
    if all(":" in text for text in exchange.addresses):
        return warn(f"{words}: only IPv6, which many senders lack", exchange.host)
    return ok(words, exchange.host)


def _check_public(exchange: MailExchanger) -> CheckResult:
    found = [(text, parse_address(text)) for text in exchange.addresses]
    private = [text for text, address in found if address and is_private(address)]
    if private:
        words = f"{', '.join(private)}: private, as this host sees it in DNS"
        return warn(words, exchange.host)
    return ok("public", exchange.host)


def _networks(domain: DomainFacts) -> list[CheckResult]:
    primary = [text for each in domain.first for text in each.addresses]
    return [_check_network(each, primary) for each in _backups(domain)]


def _check_network(backup: MailExchanger, primary: list[str]) -> CheckResult:
    if not backup.addresses or not primary:
        return unknown("an address is missing", backup.host)
    same = set(backup.addresses) & set(primary)
    if same:
        words = f"{', '.join(sorted(same))} is the primary's address too"
        return fail(words, backup.host)
    shared = _nets(backup.addresses) & _nets(primary)
    if shared:
        words = ", ".join(sorted(map(str, shared)))
        return warn(f"{words} is the primary's network too", backup.host)
    return ok("on another network", backup.host)


def _nets(addresses: Iterable[str]) -> set[Network]:
    parsed = filter(None, map(parse_address, addresses))
    return {
        ipaddress.ip_network(f"{address}/{NETWORK[address.version]}", strict=False)
        for address in parsed
    }


def _name_servers(domain: DomainFacts) -> list[CheckResult]:
    primary = frozenset[str]().union(*(each.name_servers for each in domain.first))
    return [_check_name_servers(each, primary) for each in _backups(domain)]


def _check_name_servers(backup: MailExchanger, primary: frozenset[str]) -> CheckResult:
    own = backup.name_servers
    if not own or not primary:
        return unknown("DNS does not say which are its name servers", backup.host)
    words = ", ".join(sorted(own))
    if own <= primary:
        return warn(f"all of them serve the primary's name too: {words}", backup.host)
    return ok(words, backup.host)


def _backups(domain: DomainFacts) -> list[MailExchanger]:
    return [each for each in domain.hosts if each.host in domain.backups]


RECORDS: tuple[Check[DomainFacts], ...] = (
    Check(
        id="mx-records",
        about="the domain has MX records",
        unless="it does not exist, has none, or DNS does not answer",
        remedy="publish an MX record for the primary, and one for each backup",
        look=_present,
    ),
    Check(
        id="mx-null",
        about="the domain accepts mail",
        unless="it has a null MX (RFC 7505)",
        remedy='remove the MX record whose host is "."',
        look=_null,
    ),
)
"""The first checks; the others make sense only if these pass."""

CHECKS: tuple[Check[DomainFacts], ...] = (
    Check(
        id="mx-tiers",
        about="the MX records say what you mean",
        unless="warns: a host is listed twice, or one comes before the primary",
        remedy="use one record for each host; the primary has the lowest number",
        look=_tiers,
    ),
    Check(
        id="mx-primary",
        about="the primary is an MX of the domain",
        unless="warns: it is not, by name or address",
        remedy="name the host of the MX record with --primary or [primary] host",
        look=_primary,
    ),
    Check(
        id="mx-order",
        about="each backup's number is higher than the primary's",
        unless="there is no backup, its number is lower, or no MX names it; warns: both"
        " numbers are equal",
        remedy="give the backup an MX record with a higher number than the primary's",
        look=_order,
    ),
    Check(
        id="mx-alias",
        about="an MX record does not name an alias",
        unless="its host has a CNAME",
        remedy="name the host itself in the MX record; senders may refuse an alias",
        look=_alias,
    ),
    Check(
        id="mx-literal",
        about="an MX record names a host",
        unless="it names an IP address",
        remedy="give the host a name with an A record, and put that into the MX record",
        look=_literal,
    ),
    Check(
        id="mx-address",
        about="each MX host has an address",
        unless="it has none; warns: only IPv6",
        remedy="publish an A record for the host",
        look=lambda domain: [_check_address(each) for each in domain.hosts],
    ),
    Check(
        id="mx-public",
        about="each MX host can be reached from all networks",
        unless="warns: an address is private",
        remedy="publish a public address, or ask an outside resolver with --dns",
        look=lambda domain: [_check_public(e) for e in domain.hosts if e.addresses],
    ),
    Check(
        id="mx-network",
        about="a backup is not on the primary's network",
        unless="it has an address of the primary's; warns: they share a /24 or /48",
        remedy="move the backup to another network, which fails independently",
        look=_networks,
    ),
    Check(
        id="mx-name-servers",
        about="a backup's name does not depend on the primary's name servers alone",
        unless="warns: no other name server knows the backup's name",
        remedy="let a name server elsewhere serve the zone of the backup's name too",
        look=_name_servers,
    ),
)
