"""The states of a watch: what leads where, and what it never does."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from drainer.policy.watch.machine import (
    Observation,
    WatchSettings,
    WatchStatus,
    WatchTask,
    checks_needed,
    step,
)
from drainer.policy.watch.states import MOVES, WatchEvent, WatchState, WatchWait

NOON: Final = datetime(2026, 11, 25, 12, tzinfo=UTC)
S: Final = WatchSettings(
    successes=3,
    over=timedelta(seconds=60),
    interval=timedelta(seconds=30),
    longest=timedelta(minutes=10),
    forget=timedelta(hours=1),
)
SECOND: Final = timedelta(seconds=1)
A_DRAIN_ENDS: Final = (
    WatchEvent.REFUSED,
    WatchEvent.FAILED,
    WatchEvent.LEFT,
    WatchEvent.FINISHED,
)


def after(
    watch: WatchStatus, *events: WatchEvent, at: datetime = NOON, **facts: object
) -> WatchStatus:
    """Return the watch after some events at one moment."""
    for event in events:
        observation = replace(Observation(event=event), **facts)
        watch = step(watch, observation, at, S)
    return watch


def well(watch: WatchStatus, at: datetime) -> tuple[WatchStatus, datetime]:
    """Let every check go well until the watch drains, or waits; return when."""
    while watch.state in (WatchState.PROBING, WatchState.DOWN):
        at = max(at, watch.until or at)
        watch = after(watch, WatchEvent.GOOD, at=at)
    return watch, at


def begun() -> tuple[WatchStatus, datetime]:
    """Return a watch that has just begun to drain, and when."""
    return well(WatchStatus(since=NOON), NOON)


# ---- the path of a quiet night


def test_it_begins_with_looking() -> None:
    """Nothing is sent before the primary was asked."""
    watch = WatchStatus(since=NOON)
    assert watch.state is WatchState.PROBING
    assert watch.todo(NOON) is WatchTask.CHECK


def test_it_drains_after_as_many_good_checks_as_the_settings_ask_for() -> None:
    """Three, over a minute."""
    watch = WatchStatus(since=NOON)
    times = []
    while watch.state is WatchState.PROBING:
        at = watch.until or NOON
        times.append((at - NOON).total_seconds())
        watch = after(watch, WatchEvent.GOOD, at=at)
    assert times == [0, 30, 60]
    assert watch.state is WatchState.CANARY
    assert watch.todo(NOON) is WatchTask.DRAIN


def test_good_checks_must_span_the_time_however_many_there_are() -> None:
    """A shorter interval makes more checks, not an earlier drain."""
    quick = replace(S, interval=SECOND)
    watch, at = WatchStatus(since=NOON), NOON
    while watch.state is WatchState.PROBING:
        at = watch.until or NOON
        watch = step(watch, Observation(event=WatchEvent.GOOD), at, quick)
    assert at - NOON == S.over


def test_a_drain_goes_by_canary_ramp_and_cruise_to_armed() -> None:
    """The states of an outage that is over."""
    watch, at = begun()
    seen = []
    for event in (
        WatchEvent.FIRST,
        WatchEvent.FULL,
        WatchEvent.FINISHED,
        WatchEvent.REST,
    ):
        watch = after(watch, event, at=at)
        seen.append(watch.state)
    assert seen == [
        WatchState.RAMP,
        WatchState.CRUISE,
        WatchState.DONE,
        WatchState.ARMED,
    ]
    assert watch.todo(at + timedelta(days=9)) is WatchTask.NOTHING


def test_what_falls_due_later_is_waited_for_and_one_check_is_enough_then() -> None:
    """The primary was well when the drain ended."""
    watch, at = begun()
    due = at + timedelta(hours=2)
    watch = after(watch, WatchEvent.LEFT, at=at, until=due)
    assert (watch.state, watch.until) == (WatchState.WAITING, due)
    assert after(watch, WatchEvent.TIME, at=due - SECOND) == watch
    watch = after(watch, WatchEvent.TIME, at=due)
    assert watch.state is WatchState.PROBING
    assert after(watch, WatchEvent.GOOD, at=due).state is WatchState.CANARY


@pytest.mark.parametrize("event", [WatchEvent.UP, WatchEvent.MAIL])
def test_an_armed_watch_looks_when_a_hook_or_new_mail_comes(event: WatchEvent) -> None:
    """And checks before anything else."""
    watch = after(begun()[0], WatchEvent.FINISHED, WatchEvent.REST, event)
    assert watch.state is WatchState.PROBING


# ---- a primary that is not well


def test_pauses_between_failing_checks_double_up_to_the_longest() -> None:
    """A primary that is down for hours is asked every ten minutes."""
    watch, at, pauses = WatchStatus(since=NOON), NOON, []
    for _ in range(8):
        watch = after(watch, WatchEvent.BAD, at=at)
        assert watch.until is not None
        pauses.append((watch.until - at).total_seconds())
        at = watch.until
    assert pauses == [30, 60, 120, 240, 480, 600, 600, 600]
    assert watch.state is WatchState.PROBING


def test_a_bad_check_makes_the_good_ones_before_it_worthless() -> None:
    """They have to come in a row."""
    watch = after(
        WatchStatus(since=NOON), WatchEvent.GOOD, WatchEvent.GOOD, WatchEvent.BAD
    )
    assert watch.good == 0
    _, at = well(watch, NOON)
    assert at - NOON >= S.over


def test_a_trigger_during_a_long_pause_makes_it_look_at_once() -> None:
    """It stays probing until checks go well."""
    watch = after(WatchStatus(since=NOON), *([WatchEvent.BAD] * 9))
    later = NOON + timedelta(minutes=5)
    assert watch.todo(later) is WatchTask.NOTHING
    hurried = after(watch, WatchEvent.UP, at=later)
    assert hurried.state is WatchState.PROBING
    assert hurried.todo(later) is WatchTask.CHECK


def test_two_triggers_at_once_are_one() -> None:
    """In every state."""
    for state in WatchState:
        for wait in WatchWait:
            watch = WatchStatus(since=NOON, state=state, wait=wait, until=NOON)
            once = after(watch, WatchEvent.UP)
            assert after(once, WatchEvent.UP) == once


def test_triggers_never_make_it_check_more_often_than_the_interval() -> None:
    """However many there are."""
    watch = after(WatchStatus(since=NOON), WatchEvent.BAD)
    for n in range(30):
        watch = after(watch, WatchEvent.UP, at=NOON + n * SECOND)
        assert watch.todo(NOON + n * SECOND) is WatchTask.NOTHING
    assert watch.todo(NOON + S.interval) is WatchTask.CHECK


def test_a_pause_of_the_breaker_is_waited_for_with_the_drain_a_second_is_sickness() -> (
    None
):
    """The drain probes by itself; then checks do."""
    watch, at = begun()
    watch = after(watch, WatchEvent.FIRST, WatchEvent.BARRED, at=at)
    assert (watch.state, watch.drains) == (WatchState.WAITING, True)
    assert after(watch, WatchEvent.FLOWS, at=at).state is WatchState.RAMP
    sick = after(watch, WatchEvent.RELAPSED, at=at)
    assert (sick.state, sick.drains) == (WatchState.PROBING, False)


def test_each_sickening_asks_for_twice_as_many_good_checks_up_to_a_limit() -> None:
    """So that a primary that comes and goes is not hit each time."""
    watch, at = begun()
    asked = []
    for _ in range(7):
        watch = after(watch, WatchEvent.BARRED, WatchEvent.RELAPSED, at=at)
        start = at
        asked.append(checks_needed(watch, S)[0])
        watch, at = well(watch, at)
        assert at - start >= S.over * (asked[-1] // S.successes)
    assert asked == [6, 12, 24, 48, 48, 48, 48]


def test_sickenings_are_forgotten_after_a_long_well_time() -> None:
    """It begins at twice again, not at the limit."""
    watch, at = begun()
    for _ in range(4):
        watch, at = well(
            after(watch, WatchEvent.BARRED, WatchEvent.RELAPSED, at=at), at
        )
    watch = after(watch, WatchEvent.BARRED, WatchEvent.RELAPSED, at=at + S.forget)
    assert checks_needed(watch, S)[0] == 2 * S.successes


def test_a_failing_check_after_a_good_time_is_a_sickening() -> None:
    """Also when no drain was hurt."""
    watch, at = begun()
    watch = after(watch, WatchEvent.LEFT, at=at, until=at)
    assert watch.until is not None
    watch = after(watch, WatchEvent.TIME, WatchEvent.BAD, at=watch.until)
    assert checks_needed(watch, S)[0] == 2 * S.successes


def test_a_refusing_primary_is_left_alone_until_its_breaker_may_probe() -> None:
    """The doubling timer of the breaker, not ours."""
    watch, at = begun()
    until = at + timedelta(minutes=32)
    watch = after(watch, WatchEvent.REFUSED, at=at, until=until, delivered_any=False)
    assert (watch.state, watch.until) == (WatchState.WAITING, until)
    mended = after(watch, WatchEvent.UP, at=at + S.interval)
    assert mended.state is WatchState.PROBING
    assert checks_needed(mended, S) == (S.successes, S.over)


def test_drains_that_deliver_nothing_come_ever_less_often() -> None:
    """What is due and cannot be sent is no reason to try without end."""
    watch, at = begun()
    pauses = []
    for _ in range(7):
        watch = after(
            watch, WatchEvent.LEFT, at=at, until=at - SECOND, delivered_any=False
        )
        assert watch.until is not None
        pauses.append((watch.until - at).total_seconds())
        at = watch.until
        watch = after(watch, WatchEvent.TIME, WatchEvent.GOOD, at=at)
        assert watch.drains
    assert pauses == [30, 60, 120, 240, 480, 600, 600]
    watch = after(watch, WatchEvent.LEFT, at=at, until=at, delivered_any=True)
    assert watch.until == at + S.interval


def test_a_hook_that_says_down_ends_the_drain_and_checks_go_on_seldom() -> None:
    """It is not believed for ever, either."""
    watch, at = begun()
    watch = after(watch, WatchEvent.DOWN, at=at)
    assert (watch.state, watch.drains) == (WatchState.DOWN, False)
    assert watch.until == at + S.longest
    watch, later = well(watch, at)
    assert watch.state is WatchState.CANARY
    assert later - at >= S.longest + 2 * S.over


def test_a_clock_that_is_set_back_keeps_nothing_waiting() -> None:
    """A wait of a minute does not become one of a day."""
    a_day_before = NOON - timedelta(days=1)
    watch = after(WatchStatus(since=NOON), WatchEvent.BAD)
    assert watch.todo(NOON) is WatchTask.NOTHING
    assert watch.todo(a_day_before) is WatchTask.CHECK
    watch, at = after(WatchStatus(since=NOON), WatchEvent.GOOD), a_day_before
    while watch.state is WatchState.PROBING:
        if watch.todo(at) is WatchTask.CHECK:
            watch = after(watch, WatchEvent.GOOD, at=at)
        at += SECOND
    assert at - a_day_before <= S.over + S.interval
    waiting = after(
        begun()[0], WatchEvent.LEFT, at=NOON + S.forget, until=NOON + S.forget
    )
    assert after(waiting, WatchEvent.TIME, at=a_day_before).state is WatchState.PROBING


# ---- pauses and hours


def test_a_pause_ends_the_drain_and_its_end_begins_one_after_a_check() -> None:
    """Until then nothing is sent, however well the primary is."""
    watch, at = begun()
    watch = after(watch, WatchEvent.HELD, at=at, why="paused by ann: backup runs")
    assert (watch.state, watch.drains) == (WatchState.WAITING, False)
    assert watch.why == "paused by ann: backup runs"
    for event in (WatchEvent.UP, WatchEvent.MAIL, WatchEvent.TIME):
        assert after(watch, event, at=at + S.forget).state is WatchState.WAITING
    watch = after(watch, WatchEvent.FREED, WatchEvent.GOOD, at=at + S.interval)
    assert watch.state is WatchState.CANARY


def test_a_pause_from_before_the_drain_holds_it_back() -> None:
    """The checks go on; what they find waits."""
    watch, _ = well(after(WatchStatus(since=NOON), WatchEvent.HELD), NOON)
    assert (watch.state, watch.wait) == (WatchState.WAITING, WatchWait.HOLD)


# ---- of all observations


#: Those that come from outside: the others are what a check comes to.
_EVENTS: Final = st.sampled_from(
    sorted(set(WatchEvent) - {WatchEvent.REST, WatchEvent.READY, WatchEvent.BLOCKED})
)
_STEPS: Final = st.lists(
    st.tuples(_EVENTS, st.integers(0, 900), st.booleans()), max_size=60
)


def lived(
    steps: list[tuple[WatchEvent, int, bool]],
    look: Callable[[WatchStatus, WatchStatus, WatchEvent], None],
) -> None:
    """Let a watch live through some observations, and look at every step."""
    watch, at = WatchStatus(since=NOON), NOON
    for event, seconds, fruitful in steps:
        at += seconds * SECOND
        if event in A_DRAIN_ENDS and not watch.drains:
            continue  # there is no drain that might end
        if (
            event in (WatchEvent.GOOD, WatchEvent.BAD)
            and watch.todo(at) is not WatchTask.CHECK
        ):
            continue  # nobody has checked
        observation = Observation(
            event=event, until=at + 60 * SECOND, delivered_any=fruitful
        )
        following = step(watch, observation, at, S)
        if following.state is WatchState.DONE:
            following = step(following, Observation(event=WatchEvent.REST), at, S)
        look(watch, following, event)
        watch = following


@given(_STEPS)
def test_nothing_is_sent_without_a_good_check_just_before(
    steps: list[tuple[WatchEvent, int, bool]],
) -> None:
    """A drain begins by a check that went well, and by nothing else."""

    def look(before: WatchStatus, now: WatchStatus, event: WatchEvent) -> None:
        if now.drains and not before.drains:
            assert event is WatchEvent.GOOD
            assert now.good >= 1

    lived(steps, look)


@given(_STEPS)
def test_after_a_sickening_the_good_checks_span_their_time(
    steps: list[tuple[WatchEvent, int, bool]],
) -> None:
    """Whatever else happens in between."""

    def look(before: WatchStatus, now: WatchStatus, _: WatchEvent) -> None:
        if now.drains and not before.drains and not before.trusted:
            times, over = checks_needed(before, S)
            assert now.good >= times
            assert now.good_since is not None
            assert now.since - now.good_since >= over

    lived(steps, look)


@given(_STEPS)
def test_while_it_is_held_nothing_is_sent(
    steps: list[tuple[WatchEvent, int, bool]],
) -> None:
    """A pause or the end of the hours counts in every state."""

    def look(_: WatchStatus, now: WatchStatus, __: WatchEvent) -> None:
        assert not (now.hold is not None and now.drains)

    lived(steps, look)


@given(_STEPS)
def test_it_never_gets_stuck(steps: list[tuple[WatchEvent, int, bool]]) -> None:
    """It drains, or waits for a time, a person's pause, or mail."""

    def look(_: WatchStatus, now: WatchStatus, __: WatchEvent) -> None:
        acts = now.until is not None or now.todo(NOON) is not WatchTask.NOTHING
        assert acts or now.state is WatchState.ARMED or now.hold is not None

    lived(steps, look)


@given(_STEPS)
def test_every_change_is_in_the_table(
    steps: list[tuple[WatchEvent, int, bool]],
) -> None:
    """docs/states.md shows it all."""
    targets = {(before, to) for (before, _), to in MOVES.items()}

    def look(before: WatchStatus, now: WatchStatus, _: WatchEvent) -> None:
        if now.state is not before.state and now.state is not WatchState.ARMED:
            assert (before.state, now.state) in targets

    lived(steps, look)


def test_a_flapping_primary_is_drained_to_ever_less_often() -> None:
    """Well for two minutes, sick for two, for a day: a handful of drains an hour."""
    watch, at, drains = WatchStatus(since=NOON), NOON, []
    draw = random.Random(7)  # noqa: S311 - a test that repeats itself
    end = NOON + timedelta(hours=24)
    while at < end:
        at += timedelta(seconds=draw.uniform(1, 10))
        sick = int((at - NOON).total_seconds()) // 120 % 2 == 1
        if draw.random() < 0.05:
            watch = after(watch, WatchEvent.UP, at=at)
        if watch.todo(at) is WatchTask.CHECK:
            watch = after(watch, WatchEvent.BAD if sick else WatchEvent.GOOD, at=at)
            if watch.drains:
                drains.append(at)
        elif watch.drains and sick:
            watch = after(watch, WatchEvent.BARRED, WatchEvent.RELAPSED, at=at)
    assert 1 <= len(drains) <= 3
