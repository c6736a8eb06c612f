"""The states of a watch: what leads where, and what it never does."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.policy.watch.machine import Happening, Settings, Todo, Watch, needed, step
from drainer.policy.watch.states import MOVES, Event, State, Wait

NOON: Final = datetime(2026, 11, 25, 12, tzinfo=UTC)
S: Final = Settings(
    successes=3,
    over=timedelta(seconds=60),
    interval=timedelta(seconds=30),
    longest=timedelta(minutes=10),
    forget=timedelta(hours=1),
)
SECOND: Final = timedelta(seconds=1)
A_DRAIN_ENDS: Final = (Event.REFUSED, Event.FAILED, Event.LEFT, Event.FINISHED)


def after(watch: Watch, *events: Event, at: datetime = NOON, **facts: object) -> Watch:
    """Return the watch after some events at one moment."""
    for event in events:
        happening = replace(Happening(event=event), **facts)  # type: ignore[arg-type]
        watch = step(watch, happening, at, S)
    return watch


def well(watch: Watch, at: datetime) -> tuple[Watch, datetime]:
    """Let every check go well until the watch drains, or waits; return when."""
    while watch.state in (State.PROBING, State.DOWN):
        at = max(at, watch.until or at)
        watch = after(watch, Event.GOOD, at=at)
    return watch, at


def begun() -> tuple[Watch, datetime]:
    """Return a watch that has just begun to drain, and when."""
    return well(Watch(since=NOON), NOON)


# ---- the path of a quiet night


def test_it_begins_with_looking() -> None:
    """Nothing is sent before the primary was asked."""
    watch = Watch(since=NOON)
    assert watch.state is State.PROBING
    assert watch.todo(NOON) is Todo.CHECK


def test_it_drains_after_as_many_good_checks_as_the_settings_ask_for() -> None:
    """Three, over a minute."""
    watch = Watch(since=NOON)
    times = []
    while watch.state is State.PROBING:
        at = watch.until or NOON
        times.append((at - NOON).total_seconds())
        watch = after(watch, Event.GOOD, at=at)
    assert times == [0, 30, 60]
    assert watch.state is State.CANARY
    assert watch.todo(NOON) is Todo.DRAIN


def test_good_checks_must_span_the_time_however_many_there_are() -> None:
    """A shorter interval makes more checks, not an earlier drain."""
    quick = replace(S, interval=SECOND)
    watch, at = Watch(since=NOON), NOON
    while watch.state is State.PROBING:
        at = watch.until or NOON
        watch = step(watch, Happening(event=Event.GOOD), at, quick)
    assert at - NOON == S.over


def test_a_drain_goes_by_canary_ramp_and_cruise_to_armed() -> None:
    """The states of an outage that is over."""
    watch, at = begun()
    seen = []
    for event in (Event.FIRST, Event.FULL, Event.FINISHED, Event.REST):
        watch = after(watch, event, at=at)
        seen.append(watch.state)
    assert seen == [State.RAMP, State.CRUISE, State.DONE, State.ARMED]
    assert watch.todo(at + timedelta(days=9)) is Todo.NOTHING


def test_what_falls_due_later_is_waited_for_and_one_check_is_enough_then() -> None:
    """The primary was well when the drain ended."""
    watch, at = begun()
    due = at + timedelta(hours=2)
    watch = after(watch, Event.LEFT, at=at, until=due)
    assert (watch.state, watch.until) == (State.WAITING, due)
    assert after(watch, Event.TIME, at=due - SECOND) == watch
    watch = after(watch, Event.TIME, at=due)
    assert watch.state is State.PROBING
    assert after(watch, Event.GOOD, at=due).state is State.CANARY


@pytest.mark.parametrize("event", [Event.UP, Event.MAIL])
def test_an_armed_watch_looks_when_a_hook_or_new_mail_comes(event: Event) -> None:
    """And checks before anything else."""
    watch = after(begun()[0], Event.FINISHED, Event.REST, event)
    assert watch.state is State.PROBING


# ---- a primary that is not well


def test_pauses_between_failing_checks_double_up_to_the_longest() -> None:
    """A primary that is down for hours is asked every ten minutes."""
    watch, at, pauses = Watch(since=NOON), NOON, []
    for _ in range(8):
        watch = after(watch, Event.BAD, at=at)
        assert watch.until is not None
        pauses.append((watch.until - at).total_seconds())
        at = watch.until
    assert pauses == [30, 60, 120, 240, 480, 600, 600, 600]
    assert watch.state is State.PROBING


def test_a_bad_check_makes_the_good_ones_before_it_worthless() -> None:
    """They have to come in a row."""
    watch = after(Watch(since=NOON), Event.GOOD, Event.GOOD, Event.BAD)
    assert watch.good == 0
    _, at = well(watch, NOON)
    assert at - NOON >= S.over


def test_a_trigger_during_a_long_pause_makes_it_look_at_once() -> None:
    """It stays probing until checks go well."""
    watch = after(Watch(since=NOON), *([Event.BAD] * 9))
    later = NOON + timedelta(minutes=5)
    assert watch.todo(later) is Todo.NOTHING
    hurried = after(watch, Event.UP, at=later)
    assert hurried.state is State.PROBING
    assert hurried.todo(later) is Todo.CHECK


def test_two_triggers_at_once_are_one() -> None:
    """In every state."""
    for state in State:
        for wait in Wait:
            watch = Watch(since=NOON, state=state, wait=wait, until=NOON)
            once = after(watch, Event.UP)
            assert after(once, Event.UP) == once


def test_triggers_never_make_it_check_more_often_than_the_interval() -> None:
    """However many there are."""
    watch = after(Watch(since=NOON), Event.BAD)
    for n in range(30):
        watch = after(watch, Event.UP, at=NOON + n * SECOND)
        assert watch.todo(NOON + n * SECOND) is Todo.NOTHING
    assert watch.todo(NOON + S.interval) is Todo.CHECK


def test_a_pause_of_the_breaker_is_waited_for_with_the_drain_a_second_is_sickness() -> (
    None
):
    """The drain probes by itself; then checks do."""
    watch, at = begun()
    watch = after(watch, Event.FIRST, Event.BARRED, at=at)
    assert (watch.state, watch.drains) == (State.WAITING, True)
    assert after(watch, Event.FLOWS, at=at).state is State.RAMP
    sick = after(watch, Event.SICK, at=at)
    assert (sick.state, sick.drains) == (State.PROBING, False)


def test_each_sickening_asks_for_twice_as_many_good_checks_up_to_a_limit() -> None:
    """So that a primary that comes and goes is not hit each time."""
    watch, at = begun()
    asked = []
    for _ in range(7):
        watch = after(watch, Event.BARRED, Event.SICK, at=at)
        start = at
        asked.append(needed(watch, S)[0])
        watch, at = well(watch, at)
        assert at - start >= S.over * (asked[-1] // S.successes)
    assert asked == [6, 12, 24, 48, 48, 48, 48]


def test_sickenings_are_forgotten_after_a_long_well_time() -> None:
    """It begins at twice again, not at the limit."""
    watch, at = begun()
    for _ in range(4):
        watch, at = well(after(watch, Event.BARRED, Event.SICK, at=at), at)
    watch = after(watch, Event.BARRED, Event.SICK, at=at + S.forget)
    assert needed(watch, S)[0] == 2 * S.successes


def test_a_failing_check_after_a_good_time_is_a_sickening() -> None:
    """Also when no drain was hurt."""
    watch, at = begun()
    watch = after(watch, Event.LEFT, at=at, until=at)
    assert watch.until is not None
    watch = after(watch, Event.TIME, Event.BAD, at=watch.until)
    assert needed(watch, S)[0] == 2 * S.successes


def test_a_refusing_primary_is_left_alone_until_its_breaker_may_probe() -> None:
    """The doubling timer of the breaker, not ours."""
    watch, at = begun()
    until = at + timedelta(minutes=32)
    watch = after(watch, Event.REFUSED, at=at, until=until, fruitful=False)
    assert (watch.state, watch.until) == (State.WAITING, until)
    mended = after(watch, Event.UP, at=at + S.interval)
    assert mended.state is State.PROBING
    assert needed(mended, S) == (S.successes, S.over)


def test_drains_that_deliver_nothing_come_ever_less_often() -> None:
    """What is due and cannot be sent is no reason to try without end."""
    watch, at = begun()
    pauses = []
    for _ in range(7):
        watch = after(watch, Event.LEFT, at=at, until=at - SECOND, fruitful=False)
        assert watch.until is not None
        pauses.append((watch.until - at).total_seconds())
        at = watch.until
        watch = after(watch, Event.TIME, Event.GOOD, at=at)
        assert watch.drains
    assert pauses == [30, 60, 120, 240, 480, 600, 600]
    watch = after(watch, Event.LEFT, at=at, until=at, fruitful=True)
    assert watch.until == at + S.interval


def test_a_hook_that_says_down_ends_the_drain_and_checks_go_on_seldom() -> None:
    """It is not believed for ever, either."""
    watch, at = begun()
    watch = after(watch, Event.DOWN, at=at)
    assert (watch.state, watch.drains) == (State.DOWN, False)
    assert watch.until == at + S.longest
    watch, later = well(watch, at)
    assert watch.state is State.CANARY
    assert later - at >= S.longest + 2 * S.over


def test_a_clock_that_is_set_back_keeps_nothing_waiting() -> None:
    """A wait of a minute does not become one of a day."""
    a_day_before = NOON - timedelta(days=1)
    watch = after(Watch(since=NOON), Event.BAD)
    assert watch.todo(NOON) is Todo.NOTHING
    assert watch.todo(a_day_before) is Todo.CHECK
    watch, at = after(Watch(since=NOON), Event.GOOD), a_day_before
    while watch.state is State.PROBING:
        if watch.todo(at) is Todo.CHECK:
            watch = after(watch, Event.GOOD, at=at)
        at += SECOND
    assert at - a_day_before <= S.over + S.interval
    waiting = after(begun()[0], Event.LEFT, at=NOON + S.forget, until=NOON + S.forget)
    assert after(waiting, Event.TIME, at=a_day_before).state is State.PROBING


# ---- pauses and hours


def test_a_pause_ends_the_drain_and_its_end_begins_one_after_a_check() -> None:
    """Until then nothing is sent, however well the primary is."""
    watch, at = begun()
    watch = after(watch, Event.HELD, at=at, why="paused by ann: backup runs")
    assert (watch.state, watch.drains) == (State.WAITING, False)
    assert watch.why == "paused by ann: backup runs"
    for event in (Event.UP, Event.MAIL, Event.TIME):
        assert after(watch, event, at=at + S.forget).state is State.WAITING
    watch = after(watch, Event.FREED, Event.GOOD, at=at + S.interval)
    assert watch.state is State.CANARY


def test_a_pause_from_before_the_drain_holds_it_back() -> None:
    """The checks go on; what they find waits."""
    watch, _ = well(after(Watch(since=NOON), Event.HELD), NOON)
    assert (watch.state, watch.wait) == (State.WAITING, Wait.HOLD)


# ---- of all happenings


#: Those that come from outside: the others are what a check comes to.
_EVENTS: Final = st.sampled_from(
    sorted(set(Event) - {Event.REST, Event.READY, Event.BLOCKED})
)
_STEPS: Final = st.lists(
    st.tuples(_EVENTS, st.integers(0, 900), st.booleans()), max_size=60
)


def lived(
    steps: list[tuple[Event, int, bool]], look: Callable[[Watch, Watch, Event], None]
) -> None:
    """Let a watch live through some happenings, and look at every step."""
    watch, at = Watch(since=NOON), NOON
    for event, seconds, fruitful in steps:
        at += seconds * SECOND
        if event in A_DRAIN_ENDS and not watch.drains:
            continue  # there is no drain that might end
        if event in (Event.GOOD, Event.BAD) and watch.todo(at) is not Todo.CHECK:
            continue  # nobody has checked
        happening = Happening(event=event, until=at + 60 * SECOND, fruitful=fruitful)
        following = step(watch, happening, at, S)
        if following.state is State.DONE:
            following = step(following, Happening(event=Event.REST), at, S)
        look(watch, following, event)
        watch = following


@given(_STEPS)
def test_nothing_is_sent_without_a_good_check_just_before(
    steps: list[tuple[Event, int, bool]],
) -> None:
    """A drain begins by a check that went well, and by nothing else."""

    def look(before: Watch, now: Watch, event: Event) -> None:
        if now.drains and not before.drains:
            assert event is Event.GOOD
            assert now.good >= 1

    lived(steps, look)


@given(_STEPS)
def test_after_a_sickening_the_good_checks_span_their_time(
    steps: list[tuple[Event, int, bool]],
) -> None:
    """Whatever else happens in between."""

    def look(before: Watch, now: Watch, _: Event) -> None:
        if now.drains and not before.drains and not before.trusted:
            times, over = needed(before, S)
            assert now.good >= times
            assert now.good_since is not None
            assert now.since - now.good_since >= over

    lived(steps, look)


@given(_STEPS)
def test_while_it_is_held_nothing_is_sent(
    steps: list[tuple[Event, int, bool]],
) -> None:
    """A pause or the end of the hours counts in every state."""

    def look(_: Watch, now: Watch, __: Event) -> None:
        assert not (now.hold is not None and now.drains)

    lived(steps, look)


@given(_STEPS)
def test_it_never_gets_stuck(steps: list[tuple[Event, int, bool]]) -> None:
    """It drains, or waits for a time, a person's pause, or mail."""

    def look(_: Watch, now: Watch, __: Event) -> None:
        acts = now.until is not None or now.todo(NOON) is not Todo.NOTHING
        assert acts or now.state is State.ARMED or now.hold is not None

    lived(steps, look)


@given(_STEPS)
def test_every_change_is_in_the_table(steps: list[tuple[Event, int, bool]]) -> None:
    """docs/states.md shows it all."""
    targets = {(before, to) for (before, _), to in MOVES.items()}

    def look(before: Watch, now: Watch, _: Event) -> None:
        if now.state is not before.state and now.state is not State.ARMED:
            assert (before.state, now.state) in targets

    lived(steps, look)


def test_a_flapping_primary_is_drained_to_ever_less_often() -> None:
    """Well for two minutes, sick for two, for a day: a handful of drains an hour."""
    watch, at, drains = Watch(since=NOON), NOON, []
    draw = random.Random(7)  # noqa: S311 - a test that repeats itself
    end = NOON + timedelta(hours=24)
    while at < end:
        at += timedelta(seconds=draw.uniform(1, 10))
        sick = int((at - NOON).total_seconds()) // 120 % 2 == 1
        if draw.random() < 0.05:
            watch = after(watch, Event.UP, at=at)
        if watch.todo(at) is Todo.CHECK:
            watch = after(watch, Event.BAD if sick else Event.GOOD, at=at)
            if watch.drains:
                drains.append(at)
        elif watch.drains and sick:
            watch = after(watch, Event.BARRED, Event.SICK, at=at)
    assert 1 <= len(drains) <= 3
