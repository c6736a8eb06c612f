"""The status that the status page shows, kept up to date by the watch."""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime

from drainer import __version__
from drainer.delivery.latency import LatencyStats
from drainer.delivery.run import Run
from drainer.policy.breaker.breaker import CircuitBreaker
from drainer.policy.pacing.overrides import ActiveOverrides, Override
from drainer.policy.watch.machine import WatchStatus
from drainer.smtp.health_check import HealthFinding
from drainer.watch.http.snapshot import (
    BreakerFacts,
    Change,
    ControlFacts,
    FindingFacts,
    LatencyFacts,
    RunFacts,
    Sample,
    StatusSnapshot,
)
from drainer.watch.plan import WatchPlan

SECONDS = 600
CHANGES = 50


class StatusHistory:
    """The recent past of one watch."""

    def __init__(self, plan: WatchPlan, watch: WatchStatus) -> None:
        """Start with nothing seen."""
        self.plan = plan
        self.watch = watch
        self._run: Run | None = None
        self.in_force = ActiveOverrides()
        self._history: deque[Sample] = deque(maxlen=SECONDS)
        self._changes: deque[Change] = deque(maxlen=CHANGES)
        self._findings: list[FindingFacts] = []
        self._breaker = BreakerFacts(state="closed", reply="", until=None, reason="")
        self._pulse = LatencyStats()
        self._sent = (0, 0.0)
        self._rate = 0.0
        self._change = asyncio.Event()

    def moved(self, before: WatchStatus | None) -> None:
        """Record a change of state, to that of ``watch``."""
        change = Change(
            at=_written(self.watch.since),
            before=before.state.value if before else "",
            state=self.watch.state.value,
            why=self.watch.why,
        )
        self._changes.append(change)
        self._tell()

    def checked(self, findings: Sequence[HealthFinding]) -> None:
        """Record a health check."""
        self._findings = [
            FindingFacts(
                stage=finding.stage,
                verdict=finding.verdict,
                reply=finding.reply,
                seconds=round(finding.seconds, 6),
                hint=finding.hint,
            )
            for finding in findings
        ]
        self._tell()

    def sample(self, run: Run | None, now: float) -> None:
        """Measure the drain that runs, if one does; called about once a second."""
        self._run = run
        if run is None:
            self._sent, self._rate = (0, 0.0), 0.0
            return
        drain = run.engine
        sent, at = self._sent
        done = drain.progress.sent_messages
        if done < sent or not at:  # another drain than before
            sent, at = 0, min(now - 1, drain.progress.started.timestamp())
        self._rate = round(max(0, done - sent) / max(now - at, 0.001), 3)
        self._sent = (done, now)
        route = drain.shown_route
        self._pulse = route.progress.latency
        self._breaker = _breaker_facts(route.breaker_guard.breaker)
        dot = self._pulse.mean_ms("dot", within=max(now - at, 1.0))
        self._history.append((now, self._rate, route.rate_controller.allowed, dot))
        self._tell()

    async def changed(self) -> None:
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
            since=_written(watch.since),
            why=watch.why,
            until=_written_or_none(watch.until),
            primary=str(self.plan.route),
            sources=self.plan.urls,
            version=__version__,
            run=self._run_facts(),
            latency=LatencyFacts(
                rcpt_ms=self._pulse.mean_ms("rcpt"),
                dot_ms=self._pulse.mean_ms("dot"),
                connect_ms=self._pulse.mean_ms("connect"),
            ),
            breaker=self._breaker,
            history=list(self._history),
            checks=self._findings,
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
            started=_written(progress.started),
            scanned=progress.scanned,
            total=progress.total,
            sent=progress.sent_messages,
            bytes=progress.sent_bytes,
            connections=progress.connections,
            rate_now=self._rate,
            limit=drain.shown_route.rate_controller.allowed,
            waiting=drain.shown_route.progress.waiting,
        )


def _breaker_facts(breaker: CircuitBreaker) -> BreakerFacts:
    cause = breaker.cause
    return BreakerFacts(
        state=breaker.state.value,
        reply=cause.reply if cause else "",
        until=_written_or_none(breaker.until),
        reason=cause.classification.reason if cause else "",
    )


def _control_facts(control: Override | None) -> ControlFacts | None:
    if control is None:
        return None
    return ControlFacts(
        at=_written(control.at),
        until=_written_or_none(control.until),
        per_second=control.per_second,
        reason=control.reason,
        by=control.by,
    )


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _written_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else _written(moment)
