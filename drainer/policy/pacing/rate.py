"""The rate limit as arithmetic: token buckets, and what a restart may still send.

Promise P3: no window of any length sees more than rate x window + burst. The buckets
themselves are aiolimiter's, in drainer.smtp.rate_limiter.
"""

import math
import re
from datetime import timedelta

from msgspec import Struct

_UNITS = {"second": 1, "minute": 60, "hour": 3600}
_SIZES = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_RATE = re.compile(
    r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*/\s*(s|sec|m|min|h|second|minute|hour)s?\s*"
)
_SHORT = {"s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour"}

BURST_SECONDS = 0.1
"""The usual burst: timers are coarse, so a bucket of one loses some percent."""

BURST_MESSAGES = 4
"""The smallest usual burst: as many drains can share the rate (Rate.sharers)."""


class Rate(Struct, frozen=True, kw_only=True):
    """An amount per second, with a burst that is never exceeded."""

    per_second: float
    burst: float

    @property
    def period(self) -> float:
        """Return the seconds in which a full burst drains away."""
        return self.burst / self.per_second

    @property
    def sharers(self) -> int:
        """Return how many drains can share it: each needs a bucket for one message."""
        return max(1, int(self.burst))

    def part(self, share: float) -> "Rate":
        """Return a share, 0 to 1, of rate and burst."""
        return Rate(per_second=self.per_second * share, burst=self.burst * share)

    def level_after(self, idle: timedelta) -> float:
        """Return how full the bucket still is, ``idle`` after the last activity.

        A run that ended had at most a full bucket. With this level its successor never
        adds a burst of its own to it.
        """
        level = self.burst - idle.total_seconds() * self.per_second
        return min(self.burst, max(0.0, level))  # a clock may have been set back


class Rates(Struct, frozen=True, kw_only=True):
    """What a primary may see per time; None means unlimited."""

    messages: Rate | None = None
    #: Bytes of contents.
    bytes: Rate | None = None
    #: A message with more of them than a burst waits until all are paid for.
    recipients: Rate | None = None
    #: New connections; the burst is at least the number that may be open at once.
    connections: Rate | None = None


UNLIMITED = Rates()


def parse_rate(text: str, *, sized: bool = False) -> float | None:
    """Return the amount per second; None for 'unlimited'.

    Accepts ``20/second``, ``90/minute``, ``1000/hour``; with ``sized`` also kB, MB, GB,
    MiB as in ``5MB/second``. Raises ValueError that says what is legal.
    """
    if text.strip().lower() == "unlimited":
        return None
    match = _RATE.fullmatch(text)
    unit = match[2].lower() if match else ""
    if match is None or (unit and not sized) or unit not in _SIZES:
        legal = "5MB/second" if sized else "20/second, 90/minute, 1000/hour"
        raise ValueError(f"{text!r} is not a rate; write e.g. {legal}, or unlimited")
    amount = float(match[1]) * _SIZES[unit] / _UNITS[_SHORT.get(match[3], match[3])]
    if amount <= 0:
        raise ValueError(f"the rate {text!r} would never send anything")
    if not math.isfinite(amount):
        raise ValueError(f"the rate {text[:20]!r}... is too large; write unlimited")
    return amount


def message_rate(per_second: float, burst: int | None) -> Rate:
    """Return the bucket for messages; its burst is at most one second's worth.

    Raises ValueError for a larger burst.
    """
    most = max(1.0, per_second)
    if burst is None:
        usual = max(BURST_MESSAGES, per_second * BURST_SECONDS)
        return Rate(per_second=per_second, burst=min(most, usual))
    if not 1 <= burst <= most:
        message = f"a burst of {burst}: legal is 1 to {int(most)} (one second's worth)"
        raise ValueError(message)
    return Rate(per_second=per_second, burst=float(burst))


def parse_size(text: str) -> int:
    """Return the bytes of 5MB, 64KiB, 1000; raise ValueError if it is not a size."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = match[2].lower() if match else ""
    size = float(match[1]) * _SIZES.get(unit, math.nan) if match else math.nan
    if not math.isfinite(size):
        raise ValueError(f"{text[:60]!r} is not a size; write e.g. 500kB, 5MB, 64KiB")
    return int(size)
