"""Which servers of a domain's MX records a backup may deliver to (RFC 5321 5.1)."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from drainer.mail.mailbox import ascii_domain


class MxRecord(NamedTuple):
    """One MX record; a lower preference goes first."""

    preference: int
    exchange: str


class MxChoice(NamedTuple):
    """The servers in order of preference, equal ones together; or why there is none."""

    tiers: tuple[tuple[str, ...], ...]
    reason: str = ""


def choose_mx(
    domain: str, records: Sequence[MxRecord], ours: Collection[str]
) -> MxChoice:
    """Return the servers that are preferred to every name of this backup.

    Without records the domain's own address is its server (RFC 5321 5.1). A null MX
    says that the domain takes no mail (RFC 7505).
    """
    found = sorted({MxRecord(r.preference, _normal(r.exchange)) for r in records})
    if any(each.exchange == "" for each in found):
        return MxChoice((), f"{domain} accepts no mail (null MX)")
    if not found:
        found = [MxRecord(0, domain)]
    own = {_normal(name) for name in ours}
    limit = min((r.preference for r in found if r.exchange in own), default=None)
    better = [r for r in found if limit is None or r.preference < limit]
    if not better:
        return MxChoice((), f"no MX of {domain} is preferred to this backup")
    tiers: dict[int, list[str]] = {}
    for each in better:
        tiers.setdefault(each.preference, []).append(each.exchange)
    return MxChoice(tuple(tuple(tiers[key]) for key in sorted(tiers)))


class MxGroup(NamedTuple):
    """Domains whose mail goes to the same servers, which no other group has."""

    tiers: tuple[tuple[str, ...], ...]
    domains: tuple[str, ...]


def divide_servers(
    found: Mapping[str, tuple[tuple[str, ...], ...]], taken: Collection[str] = ()
) -> tuple[list[MxGroup], dict[str, str]]:
    """Return groups of domains with servers of their own, because each has one rate.

    ``found`` are the servers of each domain. A server belongs to the domains that
    prefer it: these go together, to the best servers that all of them have. A worse
    server belongs to the first group of which every domain has it. Also returns the
    domains whose best servers are all ``taken`` by other routes, each with one of them.
    """
    barred = frozenset(taken)
    best: list[tuple[str, ...]] = []
    members: list[list[str]] = []
    conflicts: dict[str, str] = {}
    for domain, tiers in found.items():
        first = tuple(host for host in tiers[0] if host not in barred)
        if not first:
            conflicts[domain] = tiers[0][0]
            continue
        for n, others in enumerate(best):
            if common := tuple(host for host in others if host in first):
                best[n] = common
                members[n].append(domain)
                break
        else:
            best.append(first)
            members.append([domain])
    used = set(barred).union(*best)
    groups = []
    for first, domains in zip(best, members, strict=True):
        worse = _common(found, domains, used)
        used.update(host for tier in worse for host in tier)
        groups.append(MxGroup((first, *worse), tuple(domains)))
    return groups, conflicts


def _common(
    found: Mapping[str, tuple[tuple[str, ...], ...]],
    domains: Sequence[str],
    used: Collection[str],
) -> tuple[tuple[str, ...], ...]:
    """Return the servers that all domains have, without those in use, by tiers."""
    sets = ({host for tier in found[each] for host in tier} for each in domains)
    free = set.intersection(*sets).difference(used)
    tiers = (tuple(h for h in tier if h in free) for tier in found[domains[0]])
    return tuple(tier for tier in tiers if tier)


def _normal(name: str) -> str:
    return ascii_domain(name) or name.lower().rstrip(".")
