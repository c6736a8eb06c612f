"""Sharing a primary's rate between the drains that work on it at the same time.

Promise P3 is about the primary, not about one process: all living runs on a route
in one ledger share its rate alike. A run lowers its own rate before it tells the
ledger, and raises it only by what the others have left there.
"""

import asyncio

from drainer.ledger.sql import Ledger
from drainer.orders import Orders, Tally
from drainer.smtp.throttle import Throttle

LOOK_EVERY = 1.0
"""Seconds; a drain that begins waits so long for the others to make room."""
HURRY = 0.1
"""Seconds, while this run has less than its share."""


class Sharing:
    """Keeps one run's throttle at its share."""

    def __init__(
        self, orders: Orders, ledger: Ledger, throttle: Throttle, tally: Tally
    ) -> None:
        """Share nothing yet."""
        self._most = orders.messages.sharers if orders.messages else 1_000_000
        self._ledger = ledger
        self._throttle = throttle
        self._tally = tally
        self._share = 0.0

    async def run(self) -> None:
        """Look for other runs now and then, until it is cancelled."""
        while True:
            fair = await self._ledger.fair_share(self._most)
            if fair != self._share:
                await self._move(fair)
            self._tally.share = self._share
            await asyncio.sleep(LOOK_EVERY if self._share >= fair > 0 else HURRY)

    async def _move(self, fair: float) -> None:
        if fair < self._share:
            await self._throttle.resize(fair)
        share = await self._ledger.take_share(fair)
        if share > self._share:
            await self._throttle.resize(share)
        self._share = share
