"""Where mail for a domain goes: its MX hosts, in order, and which hosts to leave out.

Null MX, private addresses and this host itself lead nowhere: bounce rule G12 says so,
and the delivery of a report checks it again, because a zone may change meanwhile.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from drainer.bounce.evidence.dns import UNKNOWN_TTL, DnsOutcome, Resolver
from drainer.mail.mailbox import ascii_domain
from drainer.policy.admission.mx import MxRecord, choose_mx
from drainer.policy.bounce.facts import Reachability, is_public

MAX_TARGETS = 5
"""Addresses that are tried, one after the other."""
MAX_HOSTS = 10
"""MX hosts of which addresses are looked up to see whether mail can be sent at all."""


class MxTargets(NamedTuple):
    """What was found: (host, address) pairs, or why there are none."""

    targets: tuple[tuple[str, str], ...] = ()
    problem: str = ""
    #: DNS did not answer: the result may be different later.
    later: bool = False


def mx_of(
    dns: Resolver, domain: str, own: frozenset[str], *, proven: bool = False
) -> tuple[tuple[str, ...], ...] | MxTargets:
    """Return a domain's mail servers that are preferred to ours, equal ones together.

    Returns why there are none instead. ``own`` are our names. With ``proven`` only an
    answer counts that DNSSEC proves (RFC 7672 2.2.1).
    """
    name = ascii_domain(domain)
    if not name:
        return MxTargets(problem=f"{domain} is not a DNS name")
    answer = dns.ask(name, "MX")
    if answer.outcome is DnsOutcome.FAILED:
        problem = f"DNS does not answer for the MX of {domain}: {answer.detail}"
        return MxTargets(problem=problem, later=True)
    if proven and not answer.proven:
        problem = f"the resolver does not prove the MX records of {name} by DNSSEC"
        return MxTargets(problem=problem, later=True)
    if answer.outcome is DnsOutcome.NXDOMAIN:
        return MxTargets(problem=f"{name} does not exist")
    texts = (text.partition(" ") for text in answer.texts)
    records = [MxRecord(int(rank), host) for rank, _, host in texts]
    chosen = choose_mx(name, records, own)
    return chosen.tiers or MxTargets(problem=chosen.reason)


def mx_ttl(dns: Resolver, domain: str) -> float:
    """Return for how many seconds the answer behind ``mx_of`` is valid."""
    name = ascii_domain(domain)
    return dns.ask(name, "MX").ttl if name else UNKNOWN_TTL


def relays_of(
    dns: Resolver, domain: str, own: frozenset[str], *, private: bool = False
) -> MxTargets:
    """Return the mail servers of a domain (RFC 5321 5.1).

    ``own`` are our names, in lower case; hosts from ours on, by preference, would send
    it back. ``private`` addresses count if the operator allows it.
    """
    found = mx_of(dns, domain, own)
    if isinstance(found, MxTargets):
        return found
    # Equal ones take turns (RFC 5321 5.1).
    better = [host for tier in found for host in random.sample(tier, len(tier))]
    return _targets(dns, domain, better, _address_filter(dns, own, private=private))


def _targets(
    dns: Resolver, name: str, hosts: list[str], is_barred: Callable[[str], bool]
) -> MxTargets:
    found: list[tuple[str, str]] = []
    failed = False
    for host in hosts[:MAX_TARGETS]:
        addresses, has_failed = _addresses(dns, host)
        failed = failed or has_failed
        found += [(host, text) for text in addresses if not is_barred(text)]
    if found:
        return MxTargets(targets=tuple(found[:MAX_TARGETS]))
    if failed:
        return MxTargets(problem=f"DNS did not answer about {name}", later=True)
    return MxTargets(problem=f"{name} has only private mail servers, or ours")


def _address_filter(
    dns: Resolver, own: frozenset[str], *, private: bool
) -> Callable[[str], bool]:
    """Return what says whether an address is private or this host's."""
    ours = {text for name in own for text in _addresses(dns, name)[0]}
    return lambda text: text in ours or not (private or is_public(text))


def _addresses(dns: Resolver, host: str) -> tuple[list[str], bool]:
    """Return the addresses of a host, and whether a question got no answer."""
    answers = [dns.ask(host, kind) for kind in ("A", "AAAA")]
    failed = any(answer.outcome is DnsOutcome.FAILED for answer in answers)
    return [text for answer in answers for text in answer.texts], failed


def reach_of(
    dns: Resolver,
    domain: str,
    *,
    own: frozenset[str] = frozenset(),
    private: bool = False,
) -> Reachability:
    """Return whether a domain has a mail server that is neither private nor this host.

    ``own`` and ``private`` are as for ``relays_of``.
    """
    answer = dns.ask(domain, "MX")
    if answer.outcome is DnsOutcome.FAILED:
        return Reachability.LATER
    if answer.outcome is DnsOutcome.NXDOMAIN:
        return Reachability.NXDOMAIN
    hosts = [text.partition(" ")[2] for text in answer.texts] or [domain]
    if hosts in (["."], [""]):  # RFC 7505 3
        return Reachability.NULL_MX
    is_barred = _address_filter(dns, own, private=private)
    found = set(_reaches(dns, hosts[:MAX_HOSTS], own, is_barred))
    best = (Reachability.YES, Reachability.LATER, Reachability.OURS)
    return next((each for each in best if each in found), Reachability.NO_ADDRESS)


def _reaches(
    dns: Resolver,
    hosts: list[str],
    own: frozenset[str],
    is_barred: Callable[[str], bool],
) -> Iterator[Reachability]:
    for host in hosts:
        if host.lower() in own:
            yield Reachability.OURS
            continue
        addresses, failed = _addresses(dns, host)
        if failed and not addresses:
            yield Reachability.LATER
        for text in addresses:
            yield Reachability.OURS if is_barred(text) else Reachability.YES
