"""MX records during a drain: drainer asks again when their TTL ends.

New sessions use the new answer, but for servers that another route has: each has one
rate. The old answer stays while DNS does not answer, when the domains of a route do not
have the same servers, and when other routes have all the best of the new servers. The
next run assigns the domains again.
"""

import asyncio
import logging
from collections.abc import Mapping

from msgspec import Struct

from drainer.bounce.evidence.request import DnsServers
from drainer.smtp.hosts import HostChoice
from drainer.smtp.route import Host

LEAST, MOST = 5.0, 3600.0
"""Seconds between two rounds of questions."""

Tiers = tuple[tuple[str, ...], ...]

_log = logging.getLogger(__name__)


class MxSettings(Struct, frozen=True, kw_only=True):
    """Which routes go by MX records, and whom drainer asks."""

    servers: DnsServers
    #: The names of this backup: only servers that are preferred to them count.
    ours: frozenset[str]
    #: Route -> its domains, which have the same servers.
    domains: dict[str, tuple[str, ...]]
    #: Those of them whose records DNSSEC must prove.
    proven: frozenset[str] = frozenset()
    #: Seconds for which the answers are valid that the drain starts with.
    ttl: float = 0.0


class MxRefresh:
    """Keeps the servers of routes as DNS names them."""

    def __init__(self, settings: MxSettings, hosts: Mapping[str, HostChoice]) -> None:
        """Follow the records of these routes; ``hosts`` are those of all routes."""
        self._settings = settings
        self._hosts = hosts
        self._ended = False

    async def run(self) -> None:
        """Ask whenever a TTL has ended, until it is cancelled."""
        seconds = _pause(self._settings.ttl)
        try:
            while self._settings.domains:
                await asyncio.sleep(seconds)
                seconds = await self.look()
        finally:
            self._ended = True

    async def look(self) -> float:
        """Ask once, and use the answers; return in how many seconds to ask again."""
        answers, ttl = await asyncio.to_thread(self._ask)
        for route, tiers in answers.items():
            self._adopt(route, tiers)
        return _pause(ttl)

    def _ask(self) -> tuple[dict[str, Tiers], float]:
        """Return the servers of the routes whose domains agree; and the least TTL."""
        # dnspython takes a sixth of a start; most drains ask no DNS.
        from drainer.bounce.evidence.dns import Resolver  # noqa: PLC0415
        from drainer.bounce.evidence.mx import MxTargets, mx_of, mx_ttl  # noqa: PLC0415

        resolver = Resolver(self._settings.servers)
        found: dict[str, Tiers] = {}
        ttl = MOST
        for route, domains in self._settings.domains.items():
            answers = set()
            for domain in domains:
                if self._ended:  # a drain does not wait for slow DNS at its end
                    return {}, ttl
                resolver.begin()
                proven = route in self._settings.proven
                ours = self._settings.ours
                servers = mx_of(resolver, domain, ours, proven=proven)
                answers.add(None if isinstance(servers, MxTargets) else servers)
                ttl = min(ttl, mx_ttl(resolver, domain))
            tiers = answers.pop() if len(answers) == 1 else None
            if tiers is not None:
                found[route] = tiers
        return found, ttl

    def _adopt(self, route: str, names: Tiers) -> None:
        """Let new sessions of a route use these servers, but those of other routes."""
        choice = self._hosts[route]
        tiers = tuple(
            tuple(Host(host=name, port=choice.route.port) for name in tier)
            for tier in names
        )
        if tiers == choice.route.all_tiers:
            return
        shown = ", ".join(name for tier in names for name in tier)
        others = (each for name, each in self._hosts.items() if name != route)
        taken = {
            host for each in others for tier in each.route.all_tiers for host in tier
        }
        if taken.issuperset(tiers[0]):
            _log.warning(f"{route}: DNS now names {shown}, which another route has")
            return
        free = (tuple(host for host in tier if host not in taken) for tier in tiers)
        tiers = tuple(tier for tier in free if tier)
        if tiers != choice.route.all_tiers:
            _log.info(f"{route}: DNS now names {shown}")
            choice.adopt(tiers)


def _pause(ttl: float) -> float:
    return min(MOST, max(LEAST, ttl))
