"""The token buckets at the wire: aiolimiter's, fed with our arithmetic.

The last token of a message is taken, and MAIL is written, without anything in between
that could wait: so what the buckets allow is what the primary sees.

A throttle that is narrowed takes more tokens for each message, so that the bucket, and
with it the bound of the configured rate, stays as it is.
"""

import asyncio
import sys
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

from aiolimiter import AsyncLimiter

from drainer.policy.pacing.rate import UNLIMITED, Rate, Rates

_ALMOST = 1e-9
"""Of a token: what floating point may be off."""


class RateLimiter:
    """Messages, octets, recipients and new connections per time.

    Several drains of one primary each have a share of the rates (``resize``).
    """

    def __init__(
        self, rates: Rates = UNLIMITED, *, idle: timedelta | None = None
    ) -> None:
        """Send nothing yet. So long ago a run before this one ended; None = never."""
        self._rates = rates
        self._idle = idle
        self._share = 0.0
        self._level = 1.0
        self._buckets: dict[str, AsyncLimiter] = {}
        self._turns = {each.name: asyncio.Lock() for each in fields(Rates)}
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._closed = False
        #: Done when a limit changes, or the drain is to end.
        self._moved = asyncio.Event()

    def resume(self, idle: timedelta | None) -> None:
        """Go on where a run before this one ended; before the first ``resize``."""
        self._idle = idle

    async def resize(self, share: float) -> None:
        """Go on with a share of the rates, 0 to 1; 0 sends nothing.

        Later buckets begin without a burst: what the old ones have let through and
        what the new ones will, stays within the rates.
        """
        self._share = share
        if share > 0:
            self._buckets = {
                each.name: await _limiter(rate.part(share), self._idle)
                for each in fields(Rates)
                if (rate := getattr(self._rates, each.name)) is not None
            }
            self._idle = timedelta(0)
        self._pulse()

    async def limit(self, messages: Rate | None) -> None:
        """Go on with another rate of messages: somebody has decided so."""
        self._rates = replace(self._rates, messages=messages)
        await self.resize(self._share)

    def scale(self, level: float) -> None:
        """Let only a part of the rate of messages through, above 0 and up to 1."""
        self._level = level
        self._pulse()

    def close(self) -> None:
        """Let nobody wait any more: the drain is to end."""
        self._closed = True
        self._pulse()

    @property
    def burst_bytes(self) -> int:
        """How many octets may leave at once: a burst."""
        bucket = self._buckets.get("octets")
        return sys.maxsize if bucket is None else max(1, int(bucket.max_rate))

    async def message(
        self, recipients: int = 1, gone: asyncio.Future[float] | None = None
    ) -> bool:
        """Wait until one message may be sent; False when the drain ends first.

        Or when the session that asks is ``gone``: then the token is another's.
        """
        if await self.message_now(recipients):
            return True
        self._waiting += 1
        try:
            async with self._turn:  # who came first goes first
                if not await self._take("recipients", recipients, gone=gone):
                    return False
                return await self._take("messages", 1, gone=gone)
        finally:
            self._waiting -= 1

    async def message_now(self, recipients: int = 1) -> bool:
        """Take the tokens if that needs no waiting and nobody waits for some."""
        if self._closed or self._waiting or self._share <= 0:
            return False
        if not self._buckets:
            return True
        costs = [
            (bucket, self._cost(name, count))
            for name, count in (("recipients", recipients), ("messages", 1))
            if (bucket := self._buckets.get(name)) is not None
        ]
        if not all(bucket.has_capacity(cost) for bucket, cost in costs):
            return False
        for bucket, cost in costs:
            await bucket.acquire(cost)  # never suspends: there is capacity
        return True

    async def connection(self) -> bool:
        """Wait until one session may be opened; False when the drain ends first."""
        return await self._take("connections", 1)

    async def octets(self, size: int) -> None:
        """Wait until so many octets may leave, in slices of at most a burst.

        Neither the end of the drain nor a lost share ends a message amid its content.
        """
        if "octets" in self._buckets:
            await self._take("octets", size, begun=True)

    async def _take(
        self,
        name: str,
        count: int,
        *,
        begun: bool = False,
        gone: asyncio.Future[float] | None = None,
    ) -> bool:
        """Take tokens, in slices; False when the drain ends first.

        What was paid into a bucket that is in force no more is lost; and so is what was
        paid of a higher price, which with the bucket would be more than a burst.
        """
        async with self._turns[name]:  # aiolimiter serves the smallest wish first
            paid, price, bucket = 0.0, 0.0, None
            while begun or not (self._closed or (gone and gone.done())):
                if self._share <= 0 and not begun:
                    await self._unless_moved(None, 0, gone)
                    continue
                if bucket is not self._buckets.get(name):
                    paid, bucket = 0.0, self._buckets.get(name)
                if bucket is None:
                    return True
                cost = self._cost(name, count)
                if cost < price:
                    paid = 0.0
                price, left = cost, cost - paid
                if left <= _ALMOST:
                    return True
                part = min(left, bucket.max_rate)
                if await self._unless_moved(bucket, part, gone):
                    paid += part
            return False

    def _cost(self, name: str, count: int) -> float:
        """Return how many tokens so many of something need."""
        if name != "messages":
            return count
        # A share of a third of a burst of three is a millionth less than one token.
        return min(1.0, self._buckets[name].max_rate) / self._level

    async def _unless_moved(
        self,
        bucket: AsyncLimiter | None,
        part: float,
        gone: asyncio.Future[float] | None,
    ) -> bool:
        """Take tokens, unless a limit changes or who asks is gone; True for the former.

        Without a bucket there are none to be had.
        """
        if bucket is not None and bucket.has_capacity(part):
            await bucket.acquire(part)  # never suspends
            return True
        waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._moved.wait())}
        taking = asyncio.ensure_future(bucket.acquire(part)) if bucket else None
        if taking is not None:
            waits.add(taking)
        try:
            everything = waits | {gone} if gone else waits
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            return taking is not None and taking.done()
        finally:
            for each in waits:
                each.cancel()

    def _pulse(self) -> None:
        """Wake whoever waits for what is in force no more."""
        self._moved.set()
        self._moved = asyncio.Event()


async def _limiter(rate: Rate, idle: timedelta | None) -> AsyncLimiter:
    """Return a bucket as it is so long after the last activity; None: after none."""
    limiter = AsyncLimiter(rate.burst, rate.period)
    if idle is not None:
        await limiter.acquire(rate.level_after(idle))
    return limiter
