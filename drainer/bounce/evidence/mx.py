"""Where mail for a domain goes: its MX hosts, in order, and which hosts to leave out.

Null MX, private addresses and this host itself lead nowhere (bounce rule G12 says so
before; a zone may change meanwhile).
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from drainer.bounce.evidence.dns import UNKNOWN_TTL, DnsOutcome, Resolver
from drainer.mail.mailbox import ascii_domain
from drainer.policy.admission.mx import MxRecord, choose_mx
from drainer.policy.bounce.facts import is_public

MAX_TARGETS = 5
"""Addresses that are tried, one after the other."""


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

    ``own`` are our names, in lower case. Hosts from ours on, by preference, are left
    out, because they would send it back. ``private`` addresses count if the operator
    allows it.
    """
    found = mx_of(dns, domain, own)
    if isinstance(found, MxTargets):
        return found
    # Equal ones take turns (RFC 5321 5.1).
    better = [host for tier in found for host in random.sample(tier, len(tier))]
    barred = {text for each in own for text, _ in _addresses(dns, each)}

    def is_barred(text: str) -> bool:
        return text in barred or not (private or is_public(text))

    return _targets(dns, domain, better, is_barred)


def _targets(
    dns: Resolver, name: str, hosts: list[str], is_barred: Callable[[str], bool]
) -> MxTargets:
    found: list[tuple[str, str]] = []
    failed = False
    for host in hosts[:MAX_TARGETS]:
        for text, is_answer in _addresses(dns, host):
            failed = failed or not is_answer
            if is_answer and not is_barred(text):
                found.append((host, text))
    if found:
        return MxTargets(targets=tuple(found[:MAX_TARGETS]))
    if failed:
        return MxTargets(problem=f"DNS did not answer about {name}", later=True)
    return MxTargets(problem=f"{name} has only private mail servers, or ours")


def _addresses(dns: Resolver, host: str) -> list[tuple[str, bool]]:
    """Return the addresses of a host; ('', False) for a question without an answer."""
    found: list[tuple[str, bool]] = []
    for kind in ("A", "AAAA"):
        answer = dns.ask(host, kind)
        if answer.outcome is DnsOutcome.FAILED:
            found.append(("", False))
        found += [(text, True) for text in answer.texts]
    return found
