"""Several servers behind one route: which one the next session goes to.

A server that cannot be reached, or that refuses to greet us, is passed over for a
while. So is one that refuses what others accept, or that alone refuses all mail of
this host. Otherwise a server's reply about a recipient or a message is the answer, and
no other server is asked.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Iterator

from msgspec.structs import replace

from drainer.mail.reply import Stage
from drainer.smtp.connection import ConnectFailure, Connection, ConnectStep, connect
from drainer.smtp.route import Host, Route

PASSED_OVER = 60.0
"""Seconds before a server that failed is tried again ahead of the others."""
REFUSED_LATER = 3
"""Refusals of us in a row by a server that has delivered before: it changed."""
LEAST_LEAD, LEAD = 4, 0.03
"""Messages, and a part of all, by which one of several equal servers may be ahead."""
_LEADS = 2
"""Sessions by which one that is ahead seems to have more."""
FINAL_STAGES = (Stage.AUTH,)
"""Another server would refuse the same password, and count it."""


class HostChoice:
    """The servers of one route, as the sessions of one drain find them."""

    def __init__(self, route: Route) -> None:
        """Start with every server well."""
        #: Its name stays that of the server that was preferred at the start.
        self.route = route
        self._open: Counter[Host] = Counter()
        self._sent: Counter[Host] = Counter()
        self._failed: dict[Host, float] = {}
        #: Those whose last answer about a message was not a delivery.
        self._unwilling: set[Host] = set()
        #: Refusals of us since the last delivery.
        self._refusals: Counter[Host] = Counter()

    def adopt(self, tiers: tuple[tuple[Host, ...], ...]) -> None:
        """Open the next sessions with other servers; open ones stay."""
        self.route = replace(self.route, tiers=tiers)

    async def connect(self) -> Connection | ConnectFailure:
        """Open a session with the best server that answers; see smtp.connection.

        Equal servers get equally many sessions, then equally many messages. ``release``
        ends the session's count.
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

    def pass_over(self, server: Host | None) -> None:
        """Try a server after the others for a while: it refuses what they accept."""
        if server is not None:
            self._failed[server] = time.monotonic()

    def count(self, server: Host | None, *, delivered: bool) -> None:
        """Note how a transaction with a server ended."""
        if server is None or not self.route.tiers:
            return
        if delivered:
            self._sent[server] += 1
            self._refusals.pop(server, None)
            self._unwilling.discard(server)
        else:
            self._unwilling.add(server)

    def refuse(self, server: Host | None) -> bool:
        """Note a refusal of us; return whether it is for an equal server to answer.

        Then the server that refuses is passed over. If all equal ones do, the primary
        does, and that reply is the answer.
        """
        tier = self._equals(server)
        if server is None or len(tier) <= 1:
            return False
        self._refusals[server] += 1
        if self._refusals[server] < (REFUSED_LATER if self._sent[server] else 1):
            return False
        self.pass_over(server)
        return not all(map(self._has_failed, tier))

    @property
    def healthy(self) -> Route:
        """The route without the servers that are passed over, unless all are."""
        tiers = (
            tuple(h for h in t if not self._has_failed(h)) for t in self.route.all_tiers
        )
        healthy = tuple(filter(None, tiers))
        return replace(self.route, tiers=healthy) if healthy else self.route

    def _equals(self, server: Host | None) -> tuple[Host, ...]:
        return next((each for each in self.route.tiers if server in each), ())

    def is_ahead(self, server: Host | None) -> bool:
        """Whether an equal server had clearly fewer messages, and no more sessions.

        Then a session moves there: the messages are to be shared, not the sessions.
        None moves to a server that did not take its last message.
        """
        if server is None or not self.route.tiers:
            return False
        most = self._open[server]
        return any(self._open[other] <= most for other in self._behind(server))

    def _behind(self, server: Host) -> Iterator[Host]:
        """Yield equal servers that had clearly fewer messages, and take them."""
        tier = self._equals(server)
        lead = max(LEAST_LEAD, LEAD * sum(self._sent[host] for host in tier))
        for other in tier:
            is_willing = other not in self._unwilling and not self._has_failed(other)
            if self._sent[other] + lead < self._sent[server] and is_willing:
                yield other

    def _has_failed(self, host: Host) -> bool:
        lately = time.monotonic() - PASSED_OVER
        return self._failed.get(host, -math.inf) > lately

    def _order(self) -> list[Host]:
        """Return the servers to try, the best first."""
        well: list[Host] = []
        rest: list[Host] = []
        tiers = self.route.all_tiers
        for tier in tiers:
            for host in random.sample(tier, len(tier)):
                (rest if self._has_failed(host) else well).append(host)
        places = {h: n for n, tier in enumerate(tiers) for h in tier}
        well.sort(
            key=lambda h: (
                places[h],
                self._open[h] + _LEADS * any(self._behind(h)),
                h in self._unwilling,
                self._sent[h],
            )
        )
        return well + rest


def all_hosts(route: Route) -> list[Host]:
    """Return the servers of a route in order of preference."""
    return [host for tier in route.all_tiers for host in tier]


def at_host(route: Route, host: Host) -> Route:
    """Return the route to one of its servers."""
    return replace(route, host=host.host, port=host.port, tiers=())
