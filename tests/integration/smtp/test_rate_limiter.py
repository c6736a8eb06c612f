"""The token buckets under any concurrency, in virtual time: promise P3, and the rate."""  # noqa: E501

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drainer.policy.pacing.rate import Rate, Rates, message_rate
from drainer.smtp.rate_limiter import RateLimiter, TotalRate
from tests.support.scenarios.virtual_time import run

Sent = list[tuple[float, float]]
"""When, and how much."""
EPSILON = 1e-3
"""Of a message: what floating point may be off."""


def assert_never_flooded(sent: Sequence[tuple[float, float]], rate: Rate) -> None:
    """Check every window: at most rate x window + burst.

    With ``s`` the sum up to a message, s - rate x time may never rise by more than
    the burst over what it was before any earlier message.
    """
    total, lowest = 0.0, float("inf")
    for at, amount in sorted(sent):
        lowest = min(lowest, total - rate.per_second * at)
        total += amount
        most = rate.burst + EPSILON * max(1.0, amount)
        assert total - rate.per_second * at - lowest <= most, (at, amount)


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


async def worker(throttle: RateLimiter, pauses: Sequence[float], sent: Sent) -> None:
    """Send a message after each pause, as a session does."""
    for pause in pauses:
        await asyncio.sleep(pause)
        await throttle.take_message()
        sent.append((now(), 1))


async def hasty(throttle: RateLimiter, pauses: Sequence[float], sent: Sent) -> None:
    """Send behind a final dot if nobody waits, as a pipelining session does."""
    for pause in pauses:
        await asyncio.sleep(pause)
        if await throttle.take_message_now():
            sent.append((now(), 1))


async def fickle(throttle: RateLimiter, pauses: Sequence[float], sent: Sent) -> None:
    """Give up waiting soon, as a session does that is cancelled."""
    for pause in pauses:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await throttle.take_message()
                sent.append((now(), 1))


RATES = st.one_of(st.floats(0.05, 1000), st.sampled_from([1.0, 20.0, 500.0, 1 / 3600]))
PAUSES = st.lists(st.floats(0, 3), max_size=25)
WORKERS = st.lists(
    st.tuples(st.sampled_from([worker, hasty, fickle]), PAUSES), min_size=1, max_size=12
)


@st.composite
def rates(draw: st.DrawFn) -> Rate:
    """Draw a legal rate with a legal burst."""
    per_second = draw(RATES)
    most = int(max(1, per_second))
    burst = draw(st.one_of(st.none(), st.integers(1, most)))
    return message_rate(per_second, burst)


@settings(max_examples=150, deadline=None)
@given(rates(), WORKERS, st.sampled_from([0.0, 0.001, 0.016]))
def test_no_window_ever_sees_more_than_rate_times_window_plus_burst(
    rate: Rate,
    workers: list[tuple[object, list[float]]],
    coarse: float,
) -> None:
    """Whoever waits, hurries or gives up, and however coarse the timers are."""
    sent: Sent = []

    async def everybody() -> None:
        throttle = RateLimiter(Rates(messages=rate))
        await throttle.resize(1)
        async with asyncio.TaskGroup() as group:
            for kind, pauses in workers:
                group.create_task(kind(throttle, pauses, sent))  # type: ignore[operator]

    run(everybody(), coarse=coarse)
    assert_never_flooded(sent, rate)
    patient = sum(len(pauses) for kind, pauses in workers if kind is worker)
    assert len(sent) >= patient, "whoever waits is served"


@settings(max_examples=100, deadline=None)
@given(
    rates(),
    st.lists(st.tuples(st.integers(1, 12), st.floats(0, 5)), min_size=2, max_size=5),
    st.integers(1, 8),
)
def test_runs_one_after_another_keep_the_bound_together(
    rate: Rate, runs: list[tuple[int, float]], sessions: int
) -> None:
    """P3 across restarts: a run begins with the bucket as the one before left it."""
    sent: Sent = []

    async def one_after_another() -> None:
        ended: float | None = None
        for messages, pause in runs:
            await asyncio.sleep(pause)
            idle = None if ended is None else timedelta(seconds=now() - ended)
            throttle = RateLimiter(Rates(messages=rate), idle=idle)
            await throttle.resize(1)
            shares = [messages // sessions] * sessions
            shares[0] += messages % sessions
            async with asyncio.TaskGroup() as group:
                for share in shares:
                    group.create_task(worker(throttle, [0.0] * share, sent))
            ended = now()

    run(one_after_another())
    assert_never_flooded(sent, rate)
    assert len(sent) == sum(messages for messages, _ in runs)


#: rate, seconds, and how many sessions.
LONG_RUN = [
    (1.0, 600, 1),
    (1.0, 600, 5),
    (20.0, 120, 5),
    (500.0, 20, 5),
    (500.0, 20, 50),
]


@pytest.mark.parametrize(("per_second", "seconds", "sessions"), LONG_RUN)
@pytest.mark.parametrize("coarse", [0.0, 0.001, 0.004], ids=["exact", "1ms", "4ms"])
def test_the_rate_is_reached_within_one_percent(
    per_second: float, seconds: int, sessions: int, coarse: float
) -> None:
    """Coarse timers cost nothing: a bucket of one message would lose some percent."""
    count = run(busy(per_second, seconds, sessions, dot=0.0), coarse=coarse)
    assert count == pytest.approx(per_second * seconds, rel=0.01)


@pytest.mark.parametrize(
    ("per_second", "seconds"), [(1.0, 600), (20.0, 120), (500.0, 20)]
)
def test_the_rate_is_reached_when_every_dot_takes_its_time(
    per_second: float, seconds: int
) -> None:
    """400 ms an answer, and enough sessions for it: within one percent all the same."""
    sessions = int(per_second * 0.4 * 1.5) + 2
    count = run(busy(per_second, seconds, sessions, dot=0.4), coarse=0.001)
    assert count == pytest.approx(per_second * seconds, rel=0.01)


async def busy(per_second: float, seconds: float, sessions: int, dot: float) -> int:
    """Return how many messages leave in that time after the first second."""
    throttle = RateLimiter(Rates(messages=message_rate(per_second, None)))
    await throttle.resize(1)
    sent: Sent = []

    async def session() -> None:
        while True:
            await throttle.take_message()
            sent.append((now(), 1))
            await asyncio.sleep(dot)

    tasks = [asyncio.ensure_future(session()) for _ in range(sessions)]
    await asyncio.sleep(1)
    before = len(sent)
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    return len(sent) - before


@given(
    rates(),
    st.lists(st.tuples(st.floats(0.1, 1), st.sampled_from([0, 0.3, 0.5])), max_size=8),
    st.integers(1, 8),
)
def test_drains_that_share_a_rate_keep_the_bound_together(
    rate: Rate, moves: list[tuple[float, float]], sessions: int
) -> None:
    """P3 across drains: one lowers its share before the other raises its own."""
    if rate.burst < 4:
        rate = Rate(per_second=rate.per_second, burst=4.0)
    sent: Sent = []

    async def everybody() -> None:
        ours, theirs = (
            RateLimiter(Rates(messages=rate)),
            RateLimiter(Rates(messages=rate), idle=timedelta(0)),
        )
        await ours.resize(1)
        async with asyncio.TaskGroup() as group:
            for throttle in (ours, theirs):
                for _ in range(sessions):
                    group.create_task(until_closed(throttle, sent))
            for pause, share in moves:
                await asyncio.sleep(pause)
                await ours.resize(share)
                await theirs.resize(1 - share)
                await asyncio.sleep(pause)
                await theirs.resize(0)
                await ours.resize(1)
            ours.close()
            theirs.close()

    run(everybody())
    assert_never_flooded(sent, rate)


async def until_closed(throttle: RateLimiter, sent: Sent) -> None:
    """Send as fast as the throttle lets."""
    while await throttle.take_message():
        sent.append((now(), 1))
        await asyncio.sleep(0.001)


LEVELS = st.sampled_from([1 / 16, 0.1, 0.3, 0.5, 0.9, 1.0])


@settings(max_examples=60, deadline=None)
@given(
    rates(),
    st.lists(st.tuples(st.floats(0.1, 2), LEVELS), min_size=1, max_size=8),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.016]),
)
def test_a_limit_that_moves_at_random_keeps_the_bound(
    rate: Rate, moves: list[tuple[float, float]], sessions: int, coarse: float
) -> None:
    """P3 under the controller: the configured rate always, and a lower one at once.

    After each move no window sees more than the rate of that moment and one burst, and
    the one message whose turn it was.
    """
    sent: Sent = []
    spans: list[tuple[float, float, float]] = []

    async def everybody() -> None:
        throttle = RateLimiter(Rates(messages=rate))
        await throttle.resize(1)
        async with asyncio.TaskGroup() as group:
            for _ in range(sessions):
                group.create_task(until_closed(throttle, sent))
            for pause, level in moves:
                throttle.scale(level)
                begun = now()
                await asyncio.sleep(pause)
                spans.append((begun, now(), level))
            throttle.close()

    run(everybody(), coarse=coarse)
    assert_never_flooded(sent, rate)
    for begun, ended, level in spans:
        within = [each for each in sent if begun <= each[0] < ended]
        lower = Rate(per_second=level * rate.per_second, burst=rate.burst + 1)
        assert_never_flooded(within, lower)


@pytest.mark.parametrize("level", [1 / 16, 0.3, 0.5, 0.9])
def test_a_narrowed_rate_is_reached_within_two_percent(level: float) -> None:
    """Above one burst as below: what a message costs is exact."""

    async def steady() -> int:
        throttle = RateLimiter(Rates(messages=message_rate(20, None)))
        await throttle.resize(1)
        throttle.scale(level)
        sent: Sent = []
        tasks = [asyncio.ensure_future(until_closed(throttle, sent)) for _ in range(3)]
        await asyncio.sleep(300)
        throttle.close()
        await asyncio.gather(*tasks)
        return len(sent)

    assert run(steady()) == pytest.approx(300 * 20 * level, rel=0.02)


def test_who_waits_at_a_slow_rate_goes_when_it_is_raised() -> None:
    """A person who sets another rate is obeyed at once, and again when it is over."""

    async def raised() -> list[float]:
        slow = message_rate(1 / 3600, None)
        throttle = RateLimiter(Rates(messages=slow), idle=timedelta(0))
        await throttle.resize(1)
        start = now()
        waiting = asyncio.ensure_future(throttle.take_message())
        await asyncio.sleep(5)
        await throttle.limit(message_rate(50, None))
        await waiting
        times = [now() - start]
        await throttle.limit(slow)
        await throttle.take_message()
        return [*times, now() - start]

    soon, late = run(raised())
    assert 5 <= soon < 5.2
    assert late >= 3600, "the old rate holds again, without a burst"


def test_routes_share_a_total_beside_their_own_rates() -> None:
    """Each keeps its own bound; together they keep that of the total, and reach it."""
    rate, total, seconds = message_rate(10, None), message_rate(12, None), 60

    async def scene(routes: int) -> list[Sent]:
        shared = TotalRate(total)
        throttles = [
            RateLimiter(Rates(messages=rate), total=shared) for _ in range(routes)
        ]
        sent: list[Sent] = [[] for _ in throttles]
        for throttle in throttles:
            await throttle.resize(1)
        async with asyncio.TaskGroup() as group:
            for throttle, those in zip(throttles, sent, strict=True):
                for _ in range(3):
                    group.create_task(until_closed(throttle, those))
            await asyncio.sleep(seconds)
            for throttle in throttles:
                throttle.close()
        return sent

    [alone] = run(scene(1))
    assert len(alone) == pytest.approx(10 * seconds, rel=0.02)
    two = run(scene(2))
    for each in two:
        assert_never_flooded(each, rate)
        assert len(each) == pytest.approx(6 * seconds, rel=0.02)
    # A route may have paid its total token a moment before its own: one message each.
    loose = Rate(per_second=total.per_second, burst=total.burst + len(two))
    assert_never_flooded([*two[0], *two[1]], loose)


def test_recipients_are_paid_for_before_their_message_leaves() -> None:
    """No window sees more of them, but for one message that is larger than a burst."""
    rate = Rate(per_second=10, burst=10)
    sent: Sent = []

    async def session(throttle: RateLimiter, counts: list[int]) -> None:
        for count in counts:
            assert await throttle.take_message(count)
            sent.append((now(), count))

    async def everybody() -> None:
        throttle = RateLimiter(Rates(recipients=rate, messages=message_rate(5, None)))
        await throttle.resize(1)
        async with asyncio.TaskGroup() as group:
            for counts in ([1, 7, 3], [10, 1, 1, 1], [25, 2]):
                group.create_task(session(throttle, counts))

    run(everybody())
    most = Rate(per_second=10, burst=rate.burst + 25)
    assert_never_flooded(sent, most)
    took = max(at for at, _ in sent) - min(at for at, _ in sent)
    assert took >= (sum(n for _, n in sent) - rate.burst - 25) / 10


def test_new_connections_are_limited_and_the_end_ends_the_waiting() -> None:
    """A burst of as many as may be open; whoever still waits then is told False."""

    async def connecting() -> tuple[float, bool]:
        rate = Rate(per_second=2, burst=5)
        throttle = RateLimiter(Rates(connections=rate))
        await throttle.resize(1)
        start = now()
        for _ in range(9):
            assert await throttle.take_connection()
        took = now() - start
        waiting = asyncio.ensure_future(throttle.take_connection())
        await asyncio.sleep(0.1)
        throttle.close()
        return took, await waiting

    took, more = run(connecting())
    assert took == pytest.approx(2, rel=0.01)
    assert not more


def test_who_waits_is_not_overtaken() -> None:
    """A message behind a final dot goes only when nobody waits for a token."""

    async def meet() -> tuple[bool, bool]:
        throttle = RateLimiter(Rates(messages=message_rate(1, None)))
        await throttle.resize(1)
        await throttle.take_message()
        waiting = asyncio.ensure_future(throttle.take_message())
        await asyncio.sleep(0.5)
        overtaken = await throttle.take_message_now()
        await waiting
        await asyncio.sleep(1.1)
        return overtaken, await throttle.take_message_now()

    assert run(meet()) == (False, True)


def test_unlimited_never_waits() -> None:
    """Neither messages nor bytes."""

    async def hurry() -> float:
        throttle = RateLimiter()
        await throttle.resize(1)
        start = now()
        for _ in range(1000):
            await throttle.take_message()
            await throttle.take_bytes(10**9)
            assert await throttle.take_message_now()
        return now() - start

    assert run(hurry()) < 0.01


# ---- bytes


SIZES = st.lists(st.integers(0, 30_000), max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.floats(100, 50_000), st.lists(SIZES, min_size=1, max_size=6))
def test_no_window_ever_sees_more_octets_than_allowed(
    per_second: float, sessions: list[list[int]]
) -> None:
    """A message larger than the burst leaves in slices; every octet is counted once."""
    rate = Rate(per_second=per_second, burst=per_second)
    taken: Sent = []

    async def session(throttle: RateLimiter, sizes: list[int]) -> None:
        for size in sizes:
            left = size
            while left > 0:
                part = min(left, int(per_second))
                await throttle.take_bytes(part)
                taken.append((now(), part))
                left -= part

    async def everybody() -> None:
        throttle = RateLimiter(Rates(bytes=rate))
        await throttle.resize(1)
        async with asyncio.TaskGroup() as group:
            for sizes in sessions:
                group.create_task(session(throttle, sizes))

    run(everybody())
    assert_never_flooded(taken, rate)
    assert sum(amount for _, amount in taken) == sum(map(sum, sessions))


def test_a_large_message_is_not_starved_by_small_ones() -> None:
    """While others keep the line busy it still gets its share, and finishes."""
    rate = Rate(per_second=1000, burst=1000)

    async def meet() -> float:
        throttle = RateLimiter(Rates(bytes=rate))
        await throttle.resize(1)

        async def small() -> None:
            while True:
                await throttle.take_bytes(300)
                await asyncio.sleep(0.01)

        tasks = [asyncio.ensure_future(small()) for _ in range(4)]
        await asyncio.sleep(2)
        start = now()
        async with asyncio.timeout(300):
            await throttle.take_bytes(10_000)
        took = now() - start
        for task in tasks:
            task.cancel()
        return took

    assert run(meet()) < 60
