"""Check whether mail can be sent to a domain at all (bounce rule G12)."""

from collections.abc import Iterator

from drainer.bounce.evidence.dns import DnsOutcome, Resolver
from drainer.policy.bounce.facts import Reachability, is_public

MAX_HOSTS = 10
"""How many MX hosts drainer looks up addresses for."""


def reach_of(
    dns: Resolver,
    domain: str,
    *,
    own: frozenset[str] = frozenset(),
    private: bool = False,
) -> Reachability:
    """Return whether a domain has a mail server that is neither private nor this host.

    ``own`` are our names, in lower case. ``private`` addresses count if the operator
    allows it.
    """
    answer = dns.ask(domain, "MX")
    if answer.outcome is DnsOutcome.FAILED:
        return Reachability.LATER
    if answer.outcome is DnsOutcome.NXDOMAIN:
        return Reachability.NXDOMAIN
    hosts = [text.partition(" ")[2] for text in answer.texts] or [domain]
    if hosts in (["."], [""]):  # RFC 7505 3
        return Reachability.NULL_MX
    return _best(list(_reaches(dns, hosts[:MAX_HOSTS], own, private)))


def _reaches(
    dns: Resolver,
    hosts: list[str],
    own: frozenset[str],
    private: bool,  # noqa: FBT001
) -> Iterator[Reachability]:
    ours = {text for name in own for text in _addresses(dns, name)[0]}
    for host in hosts:
        if host.lower() in own:
            yield Reachability.OURS
            continue
        addresses, failed = _addresses(dns, host)
        if failed and not addresses:
            yield Reachability.LATER
        for text in addresses:
            is_ours = text in ours or not (private or is_public(text))
            yield Reachability.OURS if is_ours else Reachability.YES


def _addresses(dns: Resolver, host: str) -> tuple[list[str], bool]:
    """Return the addresses of a host, and whether a question got no answer."""
    answers = [dns.ask(host, kind) for kind in ("A", "AAAA")]
    failed = any(answer.outcome is DnsOutcome.FAILED for answer in answers)
    return [text for answer in answers for text in answer.texts], failed


def _best(found: list[Reachability]) -> Reachability:
    for reach in (Reachability.YES, Reachability.LATER, Reachability.OURS):
        if reach in found:
            return reach
    return Reachability.NO_ADDRESS
