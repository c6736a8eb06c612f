"""Ask DNS about the domain, its MX hosts, and the hosts that the operator named."""

import asyncio
import socket
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from drainer.bounce.evidence.dns import DnsAnswer, DnsOutcome, Resolver
from drainer.bounce.evidence.request import DnsServers
from drainer.doctor.checks.facts import DomainFacts, MailExchanger
from drainer.mail.mailbox import ascii_domain
from drainer.policy.bounce.facts import parse_address
from drainer.runtime.public_suffixes import organisation_of
from drainer.runtime.threads import aside

MAX_HOSTS = 10
"""Number of MX records that are examined, lowest numbers first."""
QUESTION_SECONDS, HOST_SECONDS = 2.5, 6.0
"""Time limits: for one question; for all questions about one host."""


class NamedHosts(Struct, frozen=True, kw_only=True):
    """The hosts that the operator named."""

    domain: str
    #: '' = the MX host with the lowest number.
    primary: str = ""
    #: None = every MX host but the primary.
    backups: tuple[str, ...] = ()


async def look_up(
    servers: DnsServers, named: NamedHosts
) -> tuple[DomainFacts, dict[str, MailExchanger]]:
    """Return the domain, and each host to ask later, by name.

    Takes at most QUESTION_SECONDS and HOST_SECONDS together. Raises UsageError when
    there is no DNS server to ask.
    """
    servers = replace(
        servers,
        timeout=min(servers.timeout, QUESTION_SECONDS),
        budget=min(servers.budget, HOST_SECONDS),
    )
    answer = await _ask(servers, named.domain, "MX")
    records = _records(answer)[:MAX_HOSTS]
    wanted = dict.fromkeys(host for _, host in records if host)
    wanted |= dict.fromkeys(filter(None, (named.primary, *named.backups)))
    given = {named.primary, *named.backups}
    found = await asyncio.gather(
        *(_host(servers, host, is_given=host in given) for host in wanted)
    )
    hosts = {each.host: each for each in found}
    return _domain(named, answer, records, hosts), hosts


async def _ask(servers: DnsServers, name: str, kind: str) -> DnsAnswer:
    return await aside(lambda: Resolver(servers).ask(name, kind), 2 * servers.budget)


async def _host(servers: DnsServers, host: str, *, is_given: bool) -> MailExchanger:
    def look() -> MailExchanger:
        return exchange_of(Resolver(servers), host, is_given=is_given)

    try:
        return await aside(look, servers.budget + 1)
    except TimeoutError:
        return MailExchanger(host=host, rank=0, outcome=DnsOutcome.FAILED)


def _records(answer: DnsAnswer) -> list[tuple[int, str]]:
    """Return (number, host) of MX records, in order; '' for a null MX."""
    pairs = (text.partition(" ") for text in answer.texts)
    return sorted((int(rank), host.lower().rstrip(".")) for rank, _, host in pairs)


def _domain(
    named: NamedHosts,
    answer: DnsAnswer,
    records: Sequence[tuple[int, str]],
    hosts: dict[str, MailExchanger],
) -> DomainFacts:
    exchanges = tuple(
        replace(hosts[host], rank=rank) if host else MailExchanger(host="", rank=rank)
        for rank, host in records
    )
    primary = named.primary or next((host for _, host in records if host), "")
    known = DomainFacts(
        name=named.domain,
        outcome=answer.outcome,
        detail=answer.detail,
        exchanges=exchanges,
        primary=primary,
        primary_addresses=hosts[primary].addresses if primary else (),
        backups=named.backups,
        unseen=len(answer.records) - len(records),
    )
    if named.backups:
        return known
    first = {each.host for each in known.first}
    others = dict.fromkeys(e.host for e in known.hosts if e.host not in first)
    return replace(known, backups=tuple(others))


def exchange_of(dns: Resolver, host: str, *, is_given: bool) -> MailExchanger:
    """Return what DNS says about a host; for a named one, also what the system says.

    Blocks.
    """
    if parse_address(host) is not None:
        return MailExchanger(host=host, rank=0, addresses=(host,))
    if not ascii_domain(host):
        return MailExchanger(host=host, rank=0, outcome=DnsOutcome.ABSENT)
    answers = [dns.ask(host, kind) for kind in ("A", "AAAA")]
    outcomes = [answer.outcome for answer in answers]
    outcome = next(
        (t for t in (DnsOutcome.FOUND, DnsOutcome.FAILED) if t in outcomes), outcomes[0]
    )
    addresses = tuple(text for answer in answers for text in answer.texts)
    if is_given and outcome in (DnsOutcome.ABSENT, DnsOutcome.NXDOMAIN):
        addresses = _system(host)  # /etc/hosts, as a drain would find it
    alias = dns.ask(host, "CNAME").texts
    return MailExchanger(
        host=host,
        rank=0,
        outcome=outcome,
        addresses=addresses,
        alias=alias[0] if alias else "",
        name_servers=_name_servers(dns, host),
    )


def _system(host: str) -> tuple[str, ...]:
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(info[4][0]) for info in infos))


def _name_servers(dns: Resolver, host: str) -> frozenset[str]:
    """Return the name servers of the zone of a host, if they can be found."""
    organisation = organisation_of(host)
    zone = host
    while True:
        texts = dns.ask(zone, "NS").texts
        if texts or zone == organisation or "." not in zone:
            return frozenset(text.lower().rstrip(".") for text in texts)
        zone = zone.partition(".")[2]


def is_strict(dns: Resolver, domain: str) -> bool | None:
    """Return whether a domain's SPF allows no other host to send; None = unknown."""
    answer = dns.ask(domain, "TXT")
    if answer.outcome is DnsOutcome.FAILED:
        return None
    for text in answer.texts:
        terms = text.lower().split()
        if terms[:1] == ["v=spf1"]:
            follows = any(term.startswith("redirect=") for term in terms)
            return None if follows and "-all" not in terms else "-all" in terms
    return False
