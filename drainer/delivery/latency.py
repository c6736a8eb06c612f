"""How fast the primary has answered lately, for people to look at."""

import time
from collections import defaultdict, deque
from typing import Final, Literal

What = Literal["rcpt", "dot", "connect"]

KEPT: Final = 200
LATELY: Final = 60.0
"""Seconds after which a measurement is out of date."""


class LatencyStats:
    """The last measurements of each kind."""

    def __init__(self) -> None:
        """Start with no measurements."""
        self._seen: defaultdict[What, deque[tuple[float, float]]] = defaultdict(
            lambda: deque(maxlen=KEPT)
        )

    def record(self, what: What, seconds: float) -> None:
        """Record a measurement."""
        self._seen[what].append((time.monotonic(), seconds))

    def mean_ms(self, what: What, within: float = LATELY) -> float | None:
        """Return the mean of the last ``within`` seconds, in milliseconds."""
        since = time.monotonic() - within
        recent = [seconds for at, seconds in self._seen[what] if at >= since]
        return round(1000 * sum(recent) / len(recent), 3) if recent else None
