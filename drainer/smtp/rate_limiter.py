"""The token buckets at the wire: aiolimiter's, fed with our arithmetic.

The last token of a message is taken, and MAIL is written, without any wait between the
two. So the primary sees what the buckets allow.

A reduced rate takes more tokens for each message, so that the bucket, and with it the
bound of the configured rate, stays the same.
"""

import asyncio
import sys
from datetime import timedelta
from typing import Any

from aiolimiter import AsyncLimiter
from msgspec.structs import replace

from drainer.policy.pacing.rate import UNLIMITED, Rate, Rates

TOTAL = "total"
"""The bucket that several limiters have in common."""
_ALMOST = 1e-9
"""Part of a token that floating point may be off by."""


class TotalRate:
    """The rate of several routes together: one bucket for all their limiters."""

    def __init__(self, rate: Rate | None) -> None:
        """Limit nothing if the rate is None."""
        self._rate = rate
        self._bucket: AsyncLimiter | None = None

    async def bucket(self) -> AsyncLimiter | None:
        """Return the bucket; None = no limit.

        It starts without a burst, because another run may have ended just now.
        """
        if self._bucket is None and self._rate is not None:
            self._bucket = await _limiter(self._rate, timedelta(0))
        return self._bucket


class RateLimiter:
    """Messages, bytes, recipients and new connections per time.

    Several drains of one primary each have a share of the rates (``resize``). A bucket
    above them limits the messages of several routes together.
    """

    def __init__(
        self,
        rates: Rates = UNLIMITED,
        *,
        idle: timedelta | None = None,
        total: "TotalRate | None" = None,
    ) -> None:
        """Send nothing yet; the previous run ended ``idle`` ago, None = none did."""
        self._rates, self._total = rates, total
        self._idle = idle
        self._share = 0.0
        self._level = 1.0
        self._buckets: dict[str, AsyncLimiter] = {}
        names = (*Rates.__struct_fields__, TOTAL)
        self._turns = {name: asyncio.Lock() for name in names}
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._closed = False
        #: Done when a limit changes, or the drain must end.
        self._moved = asyncio.Event()

    def resume(self, idle: timedelta | None) -> None:
        """Continue where the previous run ended; call it before ``resize``."""
        self._idle = idle

    async def resize(self, share: float) -> None:
        """Continue with a share of the rates, 0 to 1; 0 sends nothing.

        Later buckets start without a burst: what the old ones have let through and what
        the new ones will, stays within the rates.
        """
        self._share = share
        if share > 0:
            self._buckets = {
                name: await _limiter(rate.part(share), self._idle)
                for name in Rates.__struct_fields__
                if (rate := getattr(self._rates, name)) is not None
            }
            if self._total and (bucket := await self._total.bucket()):
                self._buckets[TOTAL] = bucket
            self._idle = timedelta(0)
        self._wake_waiting()

    async def limit(self, messages: Rate | None) -> None:
        """Continue with another rate of messages, which the operator has set."""
        self._rates = replace(self._rates, messages=messages)
        await self.resize(self._share)

    def scale(self, level: float) -> None:
        """Let only a part of the rate of messages through, above 0 and up to 1."""
        self._level = level
        self._wake_waiting()

    def close(self) -> None:
        """Let no task wait any more: the drain must end."""
        self._closed = True
        self._wake_waiting()

    def burst_of(self, name: str) -> int:
        """Return how many bytes, recipients and so on may be sent at once."""
        bucket = self._buckets.get(name)
        return sys.maxsize if bucket is None else max(1, int(bucket.max_rate))

    async def take_recipients(self, count: int) -> bool:
        """Wait until this many may be named without a message.

        False when the drain ends first.
        """
        return await self._take("recipients", count)

    async def take_message(
        self, recipients: int = 1, gone: asyncio.Future[float] | None = None
    ) -> bool:
        """Wait until one message may be sent; False when the drain ends first.

        Also when the session that asks is ``gone``: then another session gets the
        token.
        """
        if await self.take_message_now(recipients):
            return True
        self._waiting += 1
        try:
            async with self._turn:  # first come, first served
                # The route's own token last: its bound is that of the primary.
                for name, count in (("recipients", recipients), (TOTAL, 1)):
                    if not await self._take(name, count, gone=gone):
                        return False
                return await self._take("messages", 1, gone=gone)
        finally:
            self._waiting -= 1

    async def take_message_now(self, recipients: int = 1) -> bool:
        """Take the tokens if that needs no waiting and no other task waits for some."""
        if self._closed or self._waiting or self._share <= 0:
            return False
        if not self._buckets:
            return True
        costs = [
            (bucket, self._cost(name, count))
            for name, count in (("recipients", recipients), (TOTAL, 1), ("messages", 1))
            if (bucket := self._buckets.get(name)) is not None
        ]
        if not all(bucket.has_capacity(cost) for bucket, cost in costs):
            return False
        for bucket, cost in costs:
            await bucket.acquire(cost)  # never suspends: there is capacity
        return True

    async def take_connection(self) -> bool:
        """Wait until one session may be opened; False when the drain ends first."""
        return await self._take("connections", 1)

    async def take_bytes(self, size: int) -> None:
        """Wait until this many bytes may be sent, in slices of at most a burst.

        Neither the end of the drain nor a lost share ends a message in mid-content.
        """
        if "bytes" in self._buckets:
            await self._take("bytes", size, started=True)

    async def _take(
        self,
        name: str,
        count: int,
        *,
        started: bool = False,
        gone: asyncio.Future[float] | None = None,
    ) -> bool:
        """Take tokens, in slices; False when the drain ends first.

        What was paid into a bucket that is no longer in force is lost. The same applies
        to tokens paid at a higher price, which with the bucket would be more than a
        burst.
        """
        async with self._turns[name]:  # aiolimiter serves the smallest request first
            paid, price, bucket = 0.0, 0.0, None
            while started or not (self._closed or (gone and gone.done())):
                if self._share <= 0 and not started:
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
        """Return how many tokens this many units need."""
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
        """Take tokens; return False if a limit changes or the caller is gone first.

        Without a bucket there are no tokens.
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

    def _wake_waiting(self) -> None:
        """Wake each task that waits for a limit that is no longer in force."""
        self._moved.set()
        self._moved = asyncio.Event()


async def _limiter(rate: Rate, idle: timedelta | None) -> AsyncLimiter:
    """Return a bucket as it is this long after the last activity; None: after none."""
    limiter = AsyncLimiter(rate.burst, rate.period)
    if idle is not None:
        await limiter.acquire(rate.level_after(idle))
    return limiter
