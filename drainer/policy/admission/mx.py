"""Which servers of a domain's MX records a backup may deliver to (RFC 5321 5.1)."""

from collections.abc import Collection, Sequence
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


def _normal(name: str) -> str:
    return ascii_domain(name) or name.lower().rstrip(".")
