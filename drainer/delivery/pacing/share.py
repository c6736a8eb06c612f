"""Sharing a primary's rate between the drains that work on it at the same time.

Promise P3 is about the primary, not about one process: all living runs on a route
in one ledger share its rate alike. A run lowers its own rate before it tells the
ledger, and raises it only by what the others have left there.
"""

from drainer.ledger.repository import Ledger
from drainer.smtp.rate_limiter import RateLimiter


class RateShare:
    """Keeps one run's throttle at its share."""

    def __init__(self, ledger: Ledger, rate_limiter: RateLimiter) -> None:
        """Share nothing yet."""
        self._ledger = ledger
        self._rate_limiter = rate_limiter
        #: Of the rate, 0 to 1.
        self.share = 0.0

    async def move(self, fair: float) -> None:
        """Go to the fair share, as far as the others have left it."""
        if fair == self.share:
            return
        if fair < self.share:
            await self._rate_limiter.resize(fair)
        share = await self._ledger.runs.take_share(fair)
        if share > self.share:
            await self._rate_limiter.resize(share)
        self.share = share
