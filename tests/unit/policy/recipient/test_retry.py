"""When a recipient is due again."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.retry import (
    RetrySchedule,
    usual_confirm_after,
    wait_for_dot,
)

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
STILL = RetrySchedule(jitter=0)


@pytest.mark.parametrize(
    ("attempts", "minutes"),
    [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (100_000, 30)],
)
def test_delays_double_up_to_the_longest(attempts: int, minutes: int) -> None:
    """By default from one minute to thirty."""
    assert STILL.delay(Verdict.RETRY, attempts, 0.5) == minutes * MINUTE


@pytest.mark.parametrize(("attempts", "hours"), [(1, 1), (2, 2), (3, 4), (4, 6)])
def test_retry_long_takes_hours(attempts: int, hours: int) -> None:
    """A full mailbox is not emptied within minutes."""
    assert STILL.delay(Verdict.RETRY_LONG, attempts, 0.5) == hours * HOUR


def test_doubt_rests_as_long_as_it_should() -> None:
    """Five minutes, without jitter: what the primary took may show up."""
    for draw in (0.0, 0.5, 0.999):
        assert RetrySchedule().delay(Verdict.UNKNOWN, 1, draw) == 5 * MINUTE


@pytest.mark.parametrize("attempts", [0, -1])
def test_no_attempt_counts_as_the_first(attempts: int) -> None:
    """A stop spends no attempt, and still waits for the first delay."""
    assert STILL.delay(Verdict.STOP, attempts, 0.5) == MINUTE


@pytest.mark.parametrize(
    ("draw", "seconds"), [(0.0, 48), (0.25, 54), (0.5, 60), (0.75, 66)]
)
def test_jitter_spreads_the_delay_both_ways(draw: float, seconds: float) -> None:
    """A fifth by default: 80 % to 120 %."""
    assert RetrySchedule().delay(Verdict.RETRY, 1, draw) == timedelta(seconds=seconds)


@given(
    st.sampled_from([Verdict.RETRY, Verdict.RETRY_LONG, Verdict.STOP]),
    st.integers(0, 10_000),
    st.floats(0, 1, exclude_max=True),
    st.floats(1, 10),
    st.floats(0, 0.9),
)
def test_a_delay_is_bounded_and_never_shrinks_with_the_attempts(
    verdict: Verdict, attempts: int, draw: float, factor: float, jitter: float
) -> None:
    """Between the first delay and the longest, but for the jitter; never zero."""
    schedule = RetrySchedule(factor=factor, jitter=jitter)
    long = verdict is Verdict.RETRY_LONG
    first = schedule.long_first if long else schedule.first
    longest = schedule.long_max if long else schedule.max
    delay = schedule.delay(verdict, attempts, draw)
    tolerance = timedelta(microseconds=2)
    assert first * (1 - jitter) - tolerance <= delay
    assert delay <= longest * (1 + jitter) + tolerance
    assert delay > timedelta(0)
    assert schedule.delay(verdict, attempts + 1, draw) >= delay - tolerance


def test_a_whole_queue_never_falls_due_in_one_second() -> None:
    """A thousand messages refused together come back over a good part of a minute."""
    draws = [n / 1000 for n in range(1000)]
    seconds = [
        RetrySchedule().delay(Verdict.RETRY, 1, d).total_seconds() for d in draws
    ]
    busiest = max(sum(1 for s in seconds if t <= s < t + 1) for t in range(40, 80))
    assert busiest < 50


@pytest.mark.parametrize(
    ("verdict", "spent", "is_spent"),
    [
        (Verdict.RETRY, timedelta(days=5), False),
        (Verdict.RETRY, timedelta(days=5, seconds=1), True),
        (Verdict.RETRY_LONG, timedelta(days=3), False),
        (Verdict.RETRY_LONG, timedelta(days=3, seconds=1), True),
        (Verdict.RETRY, timedelta(0), False),
    ],
)
def test_a_recipient_waits_five_days_a_full_mailbox_three(
    verdict: Verdict, spent: timedelta, *, is_spent: bool
) -> None:
    """The sum of its delays, so that an outage costs nobody anything."""
    assert RetrySchedule().is_spent(verdict, spent) is is_spent


def test_a_short_lifetime_is_the_full_mailboxs_too() -> None:
    """The shorter one counts."""
    short = RetrySchedule(lifetime=HOUR)
    assert short.is_spent(Verdict.RETRY_LONG, HOUR + MINUTE)


@pytest.mark.parametrize(
    ("age", "hours"),
    [(timedelta(0), 4), (timedelta(hours=23), 4), (timedelta(days=1), 1)],
)
def test_a_refusal_rests_longer_on_the_first_day(age: timedelta, hours: int) -> None:
    """User tables and filters are half up then."""
    assert usual_confirm_after(age) == hours * HOUR


@pytest.mark.parametrize(
    ("limit", "doubts", "seconds"),
    [(1, 0, 1), (1, 1, 4), (1, 2, 16), (600, 2, 600), (900, 1, 900), (300, 1, 600)],
)
def test_after_a_lost_reply_drainer_waits_longer_for_the_next(
    limit: float, doubts: int, seconds: float
) -> None:
    """Up to ten minutes, and never less than configured (RFC 5321 4.5.3.2.6)."""
    assert wait_for_dot(limit, doubts) == seconds
