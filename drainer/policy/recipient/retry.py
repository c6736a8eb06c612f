"""When a recipient is due again: exponential backoff with jitter (RFC 5321 4.5.4.1).

A drain may come back sooner than the 30 minutes of the RFC: the primary is expected,
and its operator runs drainer. Jitter is a number that the caller drew.
"""

from datetime import timedelta

from msgspec import Struct

from drainer.policy.classify.verdict import Verdict

FIRST_DAY = timedelta(days=1)
USUAL_DOT_TIMEOUT = 600.0
"""Seconds that a client should wait for the reply to a final dot."""


def usual_confirm_after(age: timedelta) -> timedelta:
    """Return the confirmation delay; ``age`` is the time since the first run.

    On the first day, user tables and filters are often only half restored.
    """
    return timedelta(hours=4 if age < FIRST_DAY else 1)


def wait_for_dot(limit: float, doubts: int) -> float:
    """Return how many seconds to wait for the reply to a final dot.

    ``limit`` is the configured time. After each lost reply drainer waits four times as
    long, up to the ten minutes of RFC 5321 4.5.3.2.6: a slow primary takes the message
    each time, and every new attempt may be one more copy.
    """
    return max(limit, min(limit * 4.0**doubts, USUAL_DOT_TIMEOUT))


class RetrySchedule(Struct, frozen=True, kw_only=True):
    """``[retry]``: the delays between attempts."""

    first: timedelta = timedelta(minutes=1)
    factor: float = 2.0
    max: timedelta = timedelta(minutes=30)
    #: A share of the delay: 0.2 spreads it over 80 % to 120 %.
    jitter: float = 0.2
    #: First delay and cap for `retry-long` (quota, per-user rates).
    long_first: timedelta = timedelta(hours=1)
    long_max: timedelta = timedelta(hours=6)
    #: How long an `unknown` recipient waits: mail that the primary accepted may show
    #: up.
    unknown: timedelta = timedelta(minutes=5)
    #: The limit of the sum of all delays; they count only while the primary answers.
    lifetime: timedelta = timedelta(days=5)
    #: The same limit for a full mailbox.
    quota: timedelta = timedelta(days=3)
    #: The confirmation delay of a permanent refusal.
    confirm_after: timedelta = timedelta(hours=1)
    #: The minimum for a delay that a reply states.
    soonest: timedelta = timedelta(seconds=1)

    def is_spent(self, verdict: Verdict, spent: timedelta) -> bool:
        """Return whether delays of this sum exceed the limit of a recipient."""
        limit = self.lifetime
        if verdict is Verdict.RETRY_LONG:
            limit = min(limit, self.quota)
        return spent > limit

    def delay(self, verdict: Verdict, attempts: int, draw: float) -> timedelta:
        """Return the delay after the given number of attempts (1 = the first).

        ``draw`` is in [0, 1): not all recipients of a queue are due in the same second.
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
