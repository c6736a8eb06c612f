"""What a watch reads once a second: overrides, the clock and its drain."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime

from drainer.errors import HostLimit
from drainer.policy.breaker.breaker import BreakerState, CircuitBreaker
from drainer.policy.pacing.overrides import ActiveOverrides, Override, OverrideKind
from drainer.policy.watch.machine import Observation, WatchStatus
from drainer.policy.watch.states import WatchEvent, WatchState, WatchWait
from drainer.smtp.health_check import FAIL, HealthProbe, HealthReport, check
from drainer.smtp.route import Route
from drainer.watch.drain_task import DrainTask
from drainer.watch.journal import wall
from drainer.watch.plan import WatchPlan

CHECK_LIMIT = 120.0
"""Seconds; a primary that takes longer to answer everything is unhealthy."""
_SAYS = {OverrideKind.UP: WatchEvent.UP, OverrideKind.DOWN: WatchEvent.DOWN}


def last_hook(overrides: Sequence[Override], since: datetime) -> Observation | None:
    """Return what the last hook reported; several at once count as one.

    A hook before ``since`` does not count: the watch did not listen.
    """
    said = [c for c in overrides if c.ask in _SAYS and c.at >= since]
    if not said:
        return None
    last = said[-1]
    words = f"{last.ask} by {last.by or 'an unknown client'}"
    why = f"{words}: {last.reason}" if last.reason else words
    return Observation(event=_SAYS[last.ask], why=why)


def find_hold(
    force: ActiveOverrides, plan: WatchPlan, now: datetime, before: Observation | None
) -> Observation | None:
    """Return why nothing may be sent, even if the primary is healthy; None: it may.

    ``before`` is what held it until now: the next change of hours takes time to find.
    """
    if force.pause is not None:
        pause = force.pause
        reason = pause.reason or "no reason given"
        why = f"paused by {pause.by or 'an unknown operator'}: {reason}"
        return Observation(event=WatchEvent.HELD, why=why, until=pause.until)
    if not plan.hours.are_open(now, wall):
        why = f"outside of [watch] windows ({'; '.join(plan.config.watch.windows)})"
        if before is not None and before.why == why:
            return before
        until = plan.hours.next_change(now, wall)
        return Observation(event=WatchEvent.HELD, why=why, until=until)
    return None


async def check_primaries(
    plan: WatchPlan,
) -> tuple[dict[str, HealthReport], Observation]:
    """Check the primaries as `drainer check` does; return the reports and the event.

    The reports are by the names of the routes. One healthy primary is enough for a
    drain: the others cost it nothing.
    """
    found = await asyncio.gather(*(_ask(*each) for each in plan.checks))
    events = [event for _, event in found]
    good = (event for event in events if event.event is WatchEvent.GOOD)
    names = (str(route) for route, _ in plan.checks)
    reports = dict(zip(names, (report for report, _ in found), strict=True))
    return reports, next(good, events[0])


async def _ask(route: Route, probe: HealthProbe) -> tuple[HealthReport, Observation]:
    health, why = HealthReport(), f"no answer to everything in {CHECK_LIMIT:.0f} s"
    try:
        async with asyncio.timeout(CHECK_LIMIT):
            health = await check(route, probe)
    except TimeoutError:
        pass
    except HostLimit as limit:  # of this host: the watch continues and checks again
        why = str(limit)
    if health.findings and health.ready:
        return health, Observation(event=WatchEvent.GOOD, why="the primary is healthy")
    failed = next((f for f in health.findings if f.verdict == FAIL), None)
    if health.loop:
        why = "it has our own name: that is a loop"
    elif failed is not None:
        why = f"{failed.stage}: {failed.reply}"
    return health, Observation(event=WatchEvent.BAD, why=why)


class DrainHealth:
    """Checks the drain that runs."""

    def __init__(self) -> None:
        self._failures = 0

    def observations(
        self, watch: WatchStatus, draining: DrainTask
    ) -> Iterator[Observation]:
        """Yield what has happened to it since the last call."""
        if draining.active_run is None or draining.stopped:
            return
        drain = draining.active_run.engine
        route, progress = drain.shown_route, drain.progress
        breaker, reply = route.breaker_guard.breaker, route.breaker_guard.reply
        if watch.wait is WatchWait.BREAKER:
            if breaker.is_closed:
                yield Observation(event=WatchEvent.FLOWS)
            elif _is_paused(breaker) and breaker.failures > self._failures:
                yield Observation(event=WatchEvent.RELAPSED, why=reply)
            return
        if _is_paused(breaker):
            self._failures = breaker.failures
            yield Observation(event=WatchEvent.BARRED, why=reply, until=breaker.until)
            return
        if watch.state is WatchState.CANARY and progress.sent_messages:
            yield Observation(event=WatchEvent.FIRST)
        elif watch.state is WatchState.RAMP and route.rate_controller.full:
            yield Observation(event=WatchEvent.FULL)


def _is_paused(breaker: CircuitBreaker) -> bool:
    """Return whether the route pauses, or is tried after a pause."""
    tried = breaker.state is BreakerState.HALF_OPEN and not breaker.reopening
    return breaker.state is BreakerState.PAUSED or (tried and breaker.failures > 0)
