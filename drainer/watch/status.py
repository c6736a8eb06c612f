"""The status that the status page shows, kept up to date by the watch."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime

from drainer import __version__
from drainer.delivery.run import Run
from drainer.policy.pacing.overrides import ActiveOverrides, Override
from drainer.policy.watch.machine import WatchStatus
from drainer.smtp.health_check import HealthReport
from drainer.watch.http.snapshot import (
    Change,
    ControlFacts,
    RunFacts,
    Sample,
    StatusSnapshot,
)
from drainer.watch.plan import WatchPlan
from drainer.watch.route_status import RouteStatus

SECONDS = 600
CHANGES = 50


class StatusHistory:
    """The recent past of one watch."""

    def __init__(self, plan: WatchPlan, watch: WatchStatus) -> None:
        self.watch = watch
        self._run: Run | None = None
        self.in_force = ActiveOverrides()
        self._history: deque[Sample] = deque(maxlen=SECONDS)
        self._changes: deque[Change] = deque(maxlen=CHANGES)
        self._routes: dict[str, RouteStatus] = {}
        self._sent = (0, 0.0)
        self._rate = 0.0
        self._change = asyncio.Event()
        self.adopt(plan)

    def adopt(self, plan: WatchPlan) -> None:
        """Show another plan."""
        self.plan = plan
        self._show_routes(str(route) for route, _ in plan.checks)

    def _show_routes(self, names: Iterable[str]) -> None:
        """Show these routes; DNS may name others than before."""
        self._routes = {
            name: self._routes.get(name) or RouteStatus(name) for name in names
        }

    def record_change(self, before: WatchStatus | None) -> None:
        """Record a change of state, to that of ``watch``."""
        change = Change(
            at=_format_time(self.watch.since),
            before=before.state.value if before else "",
            state=self.watch.state.value,
            why=self.watch.why,
        )
        self._changes.append(change)
        self._tell()

    def show_checks(self, reports: Mapping[str, HealthReport]) -> None:
        """Record the health checks of routes."""
        for name, report in reports.items():
            if name in self._routes:
                self._routes[name].show_check(report.findings)
        self._tell()

    def sample(self, run: Run | None, now: float) -> None:
        """Measure the drain that runs, if one does; called about once a second."""
        self._run = run
        if run is None:
            self._sent, self._rate = (0, 0.0), 0.0
            for each in self._routes.values():
                each.rest()
            return
        drain = run.engine
        sent, at = self._sent
        done = drain.progress.sent_messages
        if done < sent or not at:  # another drain than before
            sent, at = 0, min(now - 1, drain.progress.started.timestamp())
            self._show_routes(drain.routes)
        seconds = max(now - at, 0.001)
        self._rate = round(max(0, done - sent) / seconds, 3)
        self._sent = (done, now)
        for name, route in drain.routes.items():
            self._routes[name].sample(route, seconds)
        dots = (each.dot_ms(max(seconds, 1.0)) for each in self._routes.values())
        slowest = max((dot for dot in dots if dot is not None), default=None)
        self._history.append((now, self._rate, _limit(run), slowest))
        self._tell()

    async def wait_for_change(self) -> None:
        """Return after the next change."""
        await self._change.wait()

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def snapshot(self) -> StatusSnapshot:
        """Return the whole snapshot."""
        watch = self.watch
        return StatusSnapshot(
            state=watch.state.value,
            since=_format_time(watch.since),
            why=watch.why,
            until=_format_time_or_none(watch.until),
            primary=str(self.plan.route),
            sources=self.plan.urls,
            version=__version__,
            run=self._run_facts(),
            routes=[each.facts() for each in self._routes.values()],
            history=list(self._history),
            controls={
                "pause": _control_facts(self.in_force.pause),
                "throttle": _control_facts(self.in_force.throttle),
            },
            last_decisions=list(self._changes),
        )

    def _run_facts(self) -> RunFacts | None:
        if self._run is None:
            return None
        drain = self._run.engine
        progress = drain.progress
        return RunFacts(
            id=self._run.ledger.run_id,
            started=_format_time(progress.started),
            scanned=progress.scanned,
            total=progress.total,
            sent=progress.sent_messages,
            bytes=progress.sent_bytes,
            connections=progress.connections,
            rate_now=self._rate,
            limit=_limit(self._run),
        )


def _limit(run: Run) -> float | None:
    """Return what all routes of a drain may send in a second; None: unlimited."""
    limits = [each.rate_controller.allowed for each in run.engine.routes.values()]
    known = [limit for limit in limits if limit is not None]
    total = run.engine.settings.total
    most = [total.per_second] if total else []
    most += [sum(known)] if len(known) == len(limits) else []
    return min(most, default=None)


def _control_facts(control: Override | None) -> ControlFacts | None:
    if control is None:
        return None
    return ControlFacts(
        at=_format_time(control.at),
        until=_format_time_or_none(control.until),
        per_second=control.per_second,
        reason=control.reason,
        by=control.by,
    )


def _format_time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _format_time_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else _format_time(moment)
