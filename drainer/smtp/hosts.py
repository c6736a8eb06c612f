"""Several servers behind one route: which one the next session goes to.

A server that cannot be reached, or that refuses to greet us, is passed over for a
while. What a server says about a recipient or a message is never asked of another one
here: that reply is the answer.
"""

import math
import random
import time
from collections import Counter

from msgspec.structs import replace

from drainer.mail.reply import Stage
from drainer.smtp.connection import ConnectFailure, Connection, ConnectStep, connect
from drainer.smtp.route import Host, Route

PASSED_OVER = 60.0
"""Seconds before a server that failed is tried again ahead of the others."""
FINAL_STAGES = (Stage.AUTH,)
"""Another server would refuse the same password, and count it."""


class HostChoice:
    """The servers of one route, as the sessions of one drain find them."""

    def __init__(self, route: Route) -> None:
        """Start with every server well."""
        #: Its name stays that of the server that was preferred at the start.
        self.route = route
        self._open: Counter[Host] = Counter()
        self._failed: dict[Host, float] = {}

    @property
    def tiers(self) -> tuple[tuple[Host, ...], ...]:
        """The servers in order of preference, equal ones together."""
        return _tiers(self.route)

    def adopt(self, tiers: tuple[tuple[Host, ...], ...]) -> None:
        """Open the next sessions with other servers; open ones stay."""
        self.route = replace(self.route, tiers=tiers)

    async def connect(self) -> Connection | ConnectFailure:
        """Open a session with the best server that answers; see smtp.connection.

        Equal servers get equally many sessions. ``release`` ends the session's count.
        """
        steps: list[ConnectStep] = []
        for host in self._order():
            self._open[host] += 1  # before it answers: others choose meanwhile
            taken = False
            try:
                answer = await connect(at_host(self.route, host))
                taken = isinstance(answer, Connection)
            finally:
                self._open[host] -= not taken
            if isinstance(answer, Connection):
                self._failed.pop(host, None)
                return replace(answer, server=host, steps=(*steps, *answer.steps))
            self._failed[host] = time.monotonic()
            steps += answer.steps
            if answer.steps[-1].stage in FINAL_STAGES:
                break
        return ConnectFailure(steps)

    def release(self, connection: Connection) -> None:
        """Note that a session has ended."""
        if connection.server is not None:
            self._open[connection.server] -= 1

    def _order(self) -> list[Host]:
        """Return the servers to try, the best first."""
        now = time.monotonic()
        well: list[Host] = []
        rest: list[Host] = []
        tiers = self.tiers
        for tier in tiers:
            for host in random.sample(tier, len(tier)):
                lately = now - self._failed.get(host, -math.inf) < PASSED_OVER
                (rest if lately else well).append(host)
        places = {h: n for n, tier in enumerate(tiers) for h in tier}
        well.sort(key=lambda host: (places[host], self._open[host]))
        return well + rest


def _tiers(route: Route) -> tuple[tuple[Host, ...], ...]:
    return route.tiers or ((Host(host=route.host, port=route.port),),)


def all_hosts(route: Route) -> list[Host]:
    """Return the servers of a route in order of preference."""
    return [host for tier in _tiers(route) for host in tier]


def at_host(route: Route, host: Host) -> Route:
    """Return the route to one of its servers."""
    return replace(route, host=host.host, port=host.port, tiers=())


async def connect_any(route: Route) -> Connection | ConnectFailure:
    """Open a session with the first server of a route that answers."""
    return await HostChoice(route).connect()
