"""Between scan and sessions: a bounded look ahead, so that domains take turns.

The fair queue holds what is claimed and waits. The scan and the claims fill it; what
leaves it goes into the ready queue. Recipient domains take turns, as far as the fair
queue reaches. So a domain with a hundred thousand messages does not delay the domains
among or behind them. What is put in an order leaves in that order.

Contents stay with their messages up to a limit. Beyond it only the rows stay, and
drainer reads the contents again when it is their turn.
"""

import asyncio
from collections import deque

from msgspec.structs import replace

from drainer.delivery.ready_queue import notify, wait_until
from drainer.mail.content import held_bytes
from drainer.mail.envelope import domain_of
from drainer.policy.recipient.delivery import Delivery

WINDOW = 10_000
"""Messages; each takes some two kilobytes without its content."""
AHEAD = 1_000
"""Messages that keep the sessions busy for a while, whatever the scan does."""
HELD_TOGETHER = 16 * 1024 * 1024
"""Bytes of the contents that wait in memory."""


class FairQueue:
    """A bounded set of deliveries that it returns in turn."""

    def __init__(self, limit: int = WINDOW, *, fair: bool = True) -> None:
        """Hold at most ``limit`` deliveries; without ``fair`` domains take no turns."""
        self._limit = limit
        self._fair = fair
        self._jobs: dict[str, deque[Delivery]] = {}
        #: The domains that have deliveries, the next one first.
        self._turns: deque[str] = deque()
        self._count = 0
        self._bytes = 0
        self._putters: list[asyncio.Future[None]] = []
        self._takers: list[asyncio.Future[None]] = []
        self._closed = False
        #: Set when it is empty, and what was taken is under way (``done``).
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def is_full(self) -> bool:
        """Whether ``put`` would wait."""
        return self._count >= self._limit

    @property
    def is_roomy(self) -> bool:
        """Whether more than half of it is free."""
        return self._count * 2 < self._limit

    @property
    def is_ahead(self) -> bool:
        """Whether enough is queued that filling it further is not urgent."""
        return self._count > AHEAD or self._bytes > HELD_TOGETHER // 2

    async def put(self, delivery: Delivery) -> bool:
        """Add a delivery; wait while the fair queue is full. False when it is over."""
        if self.is_full:
            await wait_until(lambda: not self.is_full or self._closed, self._putters)
        return self.add(delivery)

    def add(self, delivery: Delivery) -> bool:
        """Add a delivery, even if the fair queue is full; False when it is over."""
        if self._closed:
            return False
        size = held_bytes(delivery.spooled)
        if self._bytes + size > HELD_TOGETHER:
            delivery = replace(delivery, spooled=None, facts=None)
        else:
            self._bytes += size
        self._count += 1
        self.idle.clear()
        domain = self._domain(delivery)
        if domain not in self._jobs:
            self._jobs[domain] = deque()
            self._turns.append(domain)
        self._jobs[domain].append(delivery)
        notify(self._takers)
        return True

    async def take(self) -> Delivery | None:
        """Wait for the next delivery in turn; return None when it is over.

        The caller that took it calls ``done`` when it is under way.
        """
        if not self._turns:
            await wait_until(lambda: bool(self._turns) or self._closed, self._takers)
        if self._closed:
            return None
        domain = self._turns.popleft()
        deliveries = self._jobs[domain]
        delivery = deliveries.popleft()
        if deliveries:
            self._turns.append(domain)
        else:
            del self._jobs[domain]
        return delivery

    def done(self, delivery: Delivery) -> None:
        """Make room for another delivery: one that was taken is under way."""
        self._count -= 1
        self._bytes -= held_bytes(delivery.spooled)
        if self._putters:
            notify(self._putters)
        if not self._count:
            self.idle.set()

    def close(self) -> list[Delivery]:
        """Take and give out nothing more; return what was in it."""
        self._closed = True
        dropped = [each for jobs in self._jobs.values() for each in jobs]
        self._jobs.clear()
        self._turns.clear()
        self.idle.set()
        notify(self._putters)
        notify(self._takers)
        return dropped

    def _domain(self, delivery: Delivery) -> str:
        """Return the domain whose turn it shares: that of its first recipient."""
        return (
            domain_of(delivery.claimed[0].recipient.forward_path) if self._fair else ""
        )
