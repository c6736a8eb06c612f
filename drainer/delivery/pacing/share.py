"""Sharing a primary's rate between the drains that send to it at the same time.

Promise P3 is about the primary, not about one process: all living runs on a route in
one ledger share its rate equally. A run lowers its own rate before it reports that to
the ledger. It raises its rate only by what the others have released there.
"""

from drainer.ledger.repository import Ledger
from drainer.smtp.rate_limiter import RateLimiter


class RateShare:
    """Keeps one run's rate limiter at its share."""

    def __init__(self, ledger: Ledger, route: str, rate_limiter: RateLimiter) -> None:
        """Share nothing yet."""
        self._ledger = ledger
        self._route = route
        self._rate_limiter = rate_limiter
        #: Part of the rate, 0 to 1.
        self.share = 0.0

    async def move(self, fair: float) -> None:
        """Move to the fair share, as far as the others have released it."""
        if fair == self.share:
            return
        if fair < self.share:
            await self._rate_limiter.resize(fair)
        share = await self._ledger.runs.take_share(self._route, fair)
        if share > self.share:
            await self._rate_limiter.resize(share)
        self.share = share
