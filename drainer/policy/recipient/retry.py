"""When a recipient is due again (RFC 5321 4.5.4.1).

A drain may come back sooner than the 30 minutes of the RFC: the primary is
expected, and its operator is us. Jitter is a number that the caller drew.
"""

from datetime import timedelta

from drainer.policy.classify.verdict import Verdict
from drainer.runtime.values import dataclass

FIRST_DAY = timedelta(days=1)


def usual_confirm_after(age: timedelta) -> timedelta:
    """Return how long a refusal rests; ``age`` is the time since the first run.

    On the first day after an outage user tables and filters are half up.
    """
    return timedelta(hours=4 if age < FIRST_DAY else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySchedule:
    """``[retry]``: the delays between attempts."""

    first: timedelta = timedelta(minutes=1)
    factor: float = 2.0
    max: timedelta = timedelta(minutes=30)
    #: A share of the delay: 0.2 spreads it over 80 % to 120 %.
    jitter: float = 0.2
    #: First delay and cap for `retry-long` (quota, per-user rates).
    long_first: timedelta = timedelta(hours=1)
    long_max: timedelta = timedelta(hours=6)
    #: How long a recipient `unknown` rests: what the primary took may show up.
    unknown: timedelta = timedelta(minutes=5)
    #: What all delays together may come to; they run only while the primary answers.
    lifetime: timedelta = timedelta(days=5)
    #: The same for a full mailbox.
    quota: timedelta = timedelta(days=3)
    #: How long a refusal for good rests before it is tried for confirmation.
    confirm_after: timedelta = timedelta(hours=1)
    #: A delay that a reply states is never taken for less.
    soonest: timedelta = timedelta(seconds=1)

    def is_spent(self, verdict: Verdict, spent: timedelta) -> bool:
        """Whether delays of that sum are more than a recipient may wait."""
        limit = self.lifetime
        if verdict is Verdict.RETRY_LONG:
            limit = min(limit, self.quota)
        return spent > limit

    def delay(self, verdict: Verdict, attempts: int, draw: float) -> timedelta:
        """Return the delay after the given number of attempts (1 = the first).

        ``draw`` lies in [0, 1) and spreads the recipients of a whole queue, so
        that they never fall due in one second.
        """
        if verdict is Verdict.UNKNOWN:
            return self.unknown
        is_long = verdict is Verdict.RETRY_LONG
        first, cap = (
            (self.long_first, self.long_max) if is_long else (self.first, self.max)
        )
        steps = min(max(attempts, 1) - 1, 60)
        seconds = min(first.total_seconds() * self.factor**steps, cap.total_seconds())
        return timedelta(seconds=seconds * (1 + self.jitter * (2 * draw - 1)))
