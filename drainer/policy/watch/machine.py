"""The state machine of a watch: an event leads to a state and to its next task.

Pure. A hook only starts a check. Nothing is sent before as many checks in a row
succeeded as ``WatchSettings`` requires. Each relapse requires more of them.
"""

import enum
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from drainer.policy.watch.states import (
    DISTRUSTS,
    DRAINING,
    EVENT_WAITS,
    MOVES,
    WAITS,
    WatchEvent,
    WatchState,
    WatchWait,
)


class WatchTask(enum.StrEnum):
    """What a watch needs done now."""

    CHECK = "check"
    DRAIN = "drain"
    NOTHING = "nothing"


_E, _S = WatchEvent, WatchState


class WatchSettings(Struct, frozen=True, kw_only=True):
    """How careful a watch is."""

    #: Good checks in a row, and their least duration, before anything is sent.
    successes: int = 3
    over: timedelta = timedelta(minutes=1)
    #: Between two checks; doubled after failed ones, up to ``longest``.
    interval: timedelta = timedelta(seconds=30)
    longest: timedelta = timedelta(minutes=10)
    #: After being healthy for this long, earlier failures no longer count.
    forget: timedelta = timedelta(hours=1)
    #: Each time it becomes unhealthy doubles ``successes`` and ``over``, at most this
    #: often.
    doublings: int = 4


class Observation(Struct, frozen=True, kw_only=True):
    """Something that happened, and what is known about it."""

    event: WatchEvent
    #: As text, for a person.
    why: str = ""
    #: When it ends by itself, or is checked again.
    until: datetime | None = None
    #: Of a drain that ended: whether it delivered anything.
    delivered_any: bool = True


class WatchStatus(Struct, frozen=True, kw_only=True):
    """The state of a watch, and how it got there."""

    state: WatchState = WatchState.PROBING
    since: datetime
    why: str = "the watch starts"
    #: When the clock moves it: the next check, the end of a wait. None: never.
    until: datetime | None = None
    wait: WatchWait = WatchWait.NOTHING
    #: Good checks in a row, and the time of the first one.
    good: int = 0
    good_since: datetime | None = None
    checked: datetime | None = None
    #: Checks in a row that failed, and drains that delivered nothing: pauses double.
    failures: int = 0
    fruitless: int = 0
    #: The last news of it was good: one check is enough.
    trusted: bool = False
    #: How often it became unhealthy lately, and since when it is healthy.
    relapses: int = 0
    healthy_since: datetime | None = None
    #: Why nothing may be sent although the primary is healthy; None: it may.
    hold: Observation | None = None

    @property
    def drains(self) -> bool:
        """Return whether a drain should run."""
        return self.state in DRAINING or self.wait is WatchWait.BREAKER

    def todo(self, now: datetime) -> WatchTask:
        """Return what to do now; a check, or another look at the clock, is due."""
        if self.drains:
            return WatchTask.DRAIN
        checks = self.state in (WatchState.DOWN, WatchState.PROBING)
        return WatchTask.CHECK if checks and self.is_due(now) else WatchTask.NOTHING

    def is_due(self, now: datetime) -> bool:
        """Return whether its time has come, or the clock was set back meanwhile."""
        last = max(self.since, self.checked or self.since)
        return self.until is None or now >= self.until or now < last


def checks_needed(watch: WatchStatus, settings: WatchSettings) -> tuple[int, timedelta]:
    """Return how many good checks are needed, and over how long."""
    if watch.trusted:
        return 1, timedelta(0)
    factor = 1 << min(watch.relapses, settings.doublings)
    return settings.successes * factor, settings.over * factor


def step(
    watch: WatchStatus, observation: Observation, now: datetime, settings: WatchSettings
) -> WatchStatus:
    """Return the watch after an observation; the same one if nothing changes."""
    if observation.event in (_E.HELD, _E.FREED):
        hold = observation if observation.event is _E.HELD else None
        watch = replace(watch, hold=hold)
    if observation.event in (_E.GOOD, _E.BAD):
        watch, observation = _count_check(watch, observation, now, settings)
    event = observation.event
    if event is _E.TIME and (watch.until is None or not watch.is_due(now)):
        return watch
    if event is _E.UP and watch.state is _S.PROBING:
        return _hurry(watch, now, settings)
    after = MOVES.get((watch.state, event))
    waits = EVENT_WAITS.get(event)
    if after is None or (
        waits is not None and watch.state is _S.WAITING and watch.wait not in waits
    ):
        return watch
    watch = _remember(watch, event, now, settings)
    return _move(watch, after, observation, now, settings)


def _count_check(
    watch: WatchStatus, observation: Observation, now: datetime, settings: WatchSettings
) -> tuple[WatchStatus, Observation]:
    watch = replace(watch, checked=now)
    if watch.state not in (_S.DOWN, _S.PROBING):
        return watch, observation  # it was under way when something else happened
    if observation.event is _E.BAD:
        if watch.trusted:
            watch = _relapse(watch, now, settings)
        failures = watch.failures + 1
        return replace(watch, good=0, good_since=None, failures=failures), observation
    since = min(watch.good_since or now, now)  # the clock may have been set back
    watch = replace(watch, good=watch.good + 1, good_since=since, failures=0)
    times, over = checks_needed(watch, settings)
    if watch.good < times or now - since < over:
        why = f"{watch.good} of {times} good checks"
        return watch, replace(observation, why=why)
    if watch.hold is not None:
        return watch, replace(watch.hold, event=_E.BLOCKED)
    return watch, replace(observation, event=_E.READY)


def _hurry(watch: WatchStatus, now: datetime, settings: WatchSettings) -> WatchStatus:
    """Check soon, because of a hook: never twice within the interval."""
    soonest = now if watch.checked is None else watch.checked + settings.interval
    until = watch.until if watch.until is None else min(watch.until, max(now, soonest))
    return replace(watch, until=until)


def _remember(
    watch: WatchStatus, event: WatchEvent, now: datetime, settings: WatchSettings
) -> WatchStatus:
    """Keep what an event says about the primary's health."""
    drained = watch.drains
    if event is _E.RELAPSED or (event is _E.DOWN and drained):
        watch = _relapse(watch, now, settings)
    elif event in DISTRUSTS:
        watch = replace(watch, trusted=False)
    elif event in (_E.READY, _E.BLOCKED):
        watch = replace(watch, trusted=True, healthy_since=watch.healthy_since or now)
    return watch


def _relapse(watch: WatchStatus, now: datetime, settings: WatchSettings) -> WatchStatus:
    well = watch.healthy_since
    forgotten = well is not None and now - well >= settings.forget
    relapses = 1 if forgotten else min(watch.relapses + 1, settings.doublings)
    return replace(watch, trusted=False, relapses=relapses, healthy_since=None)


def _move(
    watch: WatchStatus,
    after: WatchState,
    observation: Observation,
    now: datetime,
    settings: WatchSettings,
) -> WatchStatus:
    event = observation.event
    changed = after is not watch.state
    if event in (_E.REFUSED, _E.FAILED, _E.LEFT):
        fruitless = 0 if observation.delivered_any else watch.fruitless + 1
        watch = replace(watch, fruitless=fruitless)
    elif after is _S.DONE:
        watch = replace(watch, fruitless=0)
    if after in (_S.DOWN, _S.PROBING) and event not in (_E.GOOD, _E.BAD):
        watch = replace(watch, good=0, good_since=None, failures=0)
    wait = (
        WAITS.get(event, WatchWait.TIME) if after is _S.WAITING else WatchWait.NOTHING
    )
    watch = replace(
        watch,
        state=after,
        since=now if changed or wait is not watch.wait else watch.since,
        why=observation.why or event.value,
        wait=wait,
    )
    return replace(watch, until=_until(watch, observation, now, settings))


def _until(
    watch: WatchStatus, observation: Observation, now: datetime, settings: WatchSettings
) -> datetime | None:
    """Return when the clock moves it."""
    match watch.state:
        case WatchState.DOWN | WatchState.PROBING:
            asked = watch.checked
            if observation.event in (_E.GOOD, _E.BAD):
                return now + _pause(watch.failures, settings)
            if observation.event is _E.DOWN:
                return now + settings.longest
            return now if asked is None else max(now, asked + settings.interval)
        case WatchState.WAITING if watch.wait is WatchWait.TIME:
            least = now + _pause(watch.fruitless, settings)
            return max(observation.until or least, least)
        case WatchState.WAITING:
            return observation.until
        case (
            WatchState.CANARY
            | WatchState.RAMP
            | WatchState.CRUISE
            | WatchState.DONE
            | WatchState.ARMED
        ):
            return None


def _pause(failures: int, settings: WatchSettings) -> timedelta:
    pause = settings.interval * (1 << min(max(failures - 1, 0), 20))
    return max(settings.interval, min(pause, settings.longest))
