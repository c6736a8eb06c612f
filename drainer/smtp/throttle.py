"""The token buckets at the wire: aiolimiter's, fed with our arithmetic.

A token is taken, and MAIL is written, without anything in between that could
wait: so what the buckets allow is what the primary sees.
"""

import asyncio

from aiolimiter import AsyncLimiter

from drainer.policy.throttle import Rate


class Throttle:
    """Messages per time and octets per time; None means unlimited."""

    def __init__(
        self, messages: Rate | None, octets: Rate | None, *, level: float = 0.0
    ) -> None:
        """Start with ``level`` messages in the bucket, as a restart finds it."""
        self.rate = messages
        self._messages = _limiter(messages)
        self._octets = _limiter(octets)
        self._level = level
        self._waiting = 0
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Fill the bucket up to where the run before left it."""
        if self._messages is not None and self._level > 0:
            await self._messages.acquire(min(self._level, self._messages.max_rate))

    async def message(self) -> None:
        """Wait until one message may be sent."""
        if self._messages is None:
            return
        self._waiting += 1
        try:
            await self._messages.acquire()
        finally:
            self._waiting -= 1

    async def message_now(self) -> bool:
        """Take a token if that needs no waiting and nobody waits for one."""
        if self._messages is None:
            return True
        if self._waiting or not self._messages.has_capacity():
            return False
        await self._messages.acquire()  # never suspends: there is capacity
        return True

    async def octets(self, size: int) -> None:
        """Wait until so many octets may leave, in slices of at most a burst."""
        if self._octets is None:
            return
        left = float(size)
        while left > 0:
            part = min(left, self._octets.max_rate)
            async with self._turn:  # aiolimiter serves the smallest wish first
                await self._octets.acquire(part)
            left -= part


def _limiter(rate: Rate | None) -> AsyncLimiter | None:
    return None if rate is None else AsyncLimiter(rate.burst, rate.period)
