"""The watch: checks, drains, and checks again, until it is stopped.

drainer.policy.watch.machine decides. This module gives it the events: its own checks,
overrides from the ledger, the clock, new mail, the drain that runs.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

from drainer.config.build.paths import lock_folder
from drainer.errors import DrainerError, LedgerError
from drainer.ledger.watch_log import WatchLog, own
from drainer.policy.watch.machine import Observation, WatchStatus, WatchTask, step
from drainer.policy.watch.states import WatchEvent, WatchState, WatchWait
from drainer.runtime.process import utcnow
from drainer.runtime.workers import WorkerProcess
from drainer.telemetry.client import finish_export, start_export
from drainer.watch.digest import mail_daily, next_digest
from drainer.watch.drain_task import DrainTask
from drainer.watch.health import DrainHealth, check_primaries, find_hold, last_hook
from drainer.watch.http.snapshot import WatchView
from drainer.watch.journal import Journal, wall
from drainer.watch.ledger_outage import LedgerOutage
from drainer.watch.new_mail import NewMailCheck
from drainer.watch.notify.notifications import open_notifications
from drainer.watch.plan import WatchPlan
from drainer.watch.status import StatusHistory
from drainer.watch.systemd import Notifier

TICK = 1.0
"""Seconds between two reads of the ledger's overrides and of the drain that runs."""
LAST_TRACES = 5.0
"""Seconds at the end; what a collector does not take by then, the next run sends."""
_ENDED = "the watch has ended"
LONG_AGO = datetime.min.replace(tzinfo=UTC)

Serve = Callable[[WatchView], Coroutine[None, None, None]]
Server = Callable[[], Serve | None]
"""Starts to listen, and returns what serves a watch; None if nothing is wanted."""

_log = logging.getLogger(__name__)


def _shown(watch: WatchStatus) -> tuple[object, ...]:
    """Return what is reported when it changes."""
    held = watch.why if watch.wait is WatchWait.HOLD else ""
    return watch.state, watch.wait, held


class Watch:
    """One watch over one primary and its sources."""

    def __init__(
        self,
        plan: WatchPlan,
        reload: Callable[[], WatchPlan],
        server: Server = lambda: None,
    ) -> None:
        """Start nothing yet. ``reload`` reads the configuration again."""
        self._reload = reload
        self._server = server
        plain = plan.config.telemetry.addresses == "plain"
        self._notifier = Notifier(plain=plain)
        self._run_id = uuid.uuid4().hex
        self._journal = Journal(str(plan.route), self._notifier)
        limit = plan.config.watch.ledger_patience
        self._outage = LedgerOutage(limit, self._notifier)
        self._watch = WatchStatus(since=self._journal.began)
        self._adopt(plan)
        self._status = StatusHistory(plan, self._watch)
        self._exporting: WorkerProcess | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._draining: DrainTask | None = None
        self._sense = DrainHealth()
        self._last_override = 0
        self._overrides_since = self._journal.began - plan.config.watch.remember
        self._looked = self._ticked = 0.0
        self._ending = asyncio.Event()
        self._wake = asyncio.Event()

    def _adopt(self, plan: WatchPlan) -> None:
        self._plan = plan
        self._outage.limit = plan.config.watch.ledger_patience
        self._looking = NewMailCheck(plan.sources, plan.admission)
        self._digest_due = next_digest(plan.config, utcnow(), wall)

    # --- from start to end

    async def run(self) -> None:
        """Watch until a signal; raises OwnedElsewhere, LedgerError, or a defect."""
        plan = self._plan
        self._listen()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, own(lock_folder(plan.url), str(plan.route)))
            watch_log = await self._outage.open(self._open_log, self._ending)
            if watch_log is None:
                return
            self._watch_log = watch_log
            stack.callback(self._watch_log.close)
            serve = self._server()
            self._exporting = self._export()
            async with (
                self._sending_metrics(),
                open_notifications(lambda: self._plan.config, plan.url) as notices,
            ):
                notices.end_with(_ENDED, "it failed; its log says why")
                await self._run(serve)
                notices.end_with(_ENDED, str(self._outage.error or "by a signal"))
        if self._outage.error is not None:
            raise self._outage.error

    async def _run(self, serve: Serve | None) -> None:
        """Watch until the end, with everything that runs beside the loop."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._reload_on_signal()
            if serve is not None:
                self._spawn("serve", serve(self._status))
            self._record(None)
            self._notifier.ready()
            await self._loop()
            await self._end()

    def _open_log(self) -> WatchLog:
        plan = self._plan
        return WatchLog(plan.url, str(plan.route), self._run_id)

    def _export(self) -> WorkerProcess | None:
        plan = self._plan
        return start_export(plan.config.telemetry, plan.url, lock_folder(plan.url))

    def _sending_metrics(self) -> AbstractAsyncContextManager[None]:
        if self._plan.config.telemetry.metrics == "off":
            return contextlib.nullcontext()
        # Imported only for this: it brings protobuf and an HTTP client.
        from drainer.watch.collector_metrics import export_metrics  # noqa: PLC0415

        return export_metrics(self._plan.config, self._plan.url)

    async def _end_export(self) -> None:
        if self._exporting is not None:
            await asyncio.to_thread(finish_export, self._exporting, LAST_TRACES)

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # not yet

    def _reload_on_signal(self) -> None:
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGHUP, lambda: self._spawn("reload", self._load_again())
        )

    def _stop(self) -> None:
        _log.info("ending: each session finishes its message; again to end now")
        self._ending.set()
        self._wake.set()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    async def _loop(self) -> None:
        while not self._ending.is_set() and self._outage.error is None:
            if time.monotonic() - self._ticked >= TICK:
                self._ticked = time.monotonic()
                self._tick()
            self._happen(Observation(event=WatchEvent.TIME))
            self._act()
            self._notifier.alive()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_check()):
                    await self._wake.wait()
            self._wake.clear()

    def _seconds_to_check(self) -> float:
        """Return the seconds until there is something to check."""
        left = TICK - (time.monotonic() - self._ticked)
        if self._watch.until is not None:
            clock = (self._watch.until - utcnow()).total_seconds()
            left = min(left, clock) if clock > 0 else left
        return max(0.001, left)

    async def _end(self) -> None:
        """Let the drain finish its messages, and stop everything else."""
        self._notifier.stopping()
        if self._draining is not None:
            self._draining.stop()
        for name, task in self._tasks.items():
            if name not in ("drain", "write"):
                task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=TICK)
            self._notifier.alive()
        self._journal.record_end()
        await self._journal.write(self._watch_log)
        await self._end_export()
        _log.info("watch ended")

    def _spawn(self, name: str, doing: Coroutine[None, None, None]) -> None:
        """Do something beside the loop, one call per name at a time."""
        if name in self._tasks:
            doing.close()
            return

        def done(_: "asyncio.Task[None]") -> None:
            del self._tasks[name]
            self._wake.set()

        self._tasks[name] = self._group.create_task(doing)
        self._tasks[name].add_done_callback(done)

    # --- what happens, and what follows

    def _happen(self, observation: Observation) -> None:
        before = self._watch
        self._watch = step(before, observation, utcnow(), self._plan.settings)
        self._status.watch = self._watch
        if _shown(before) != _shown(self._watch):
            self._record(before)
        if self._watch.state is WatchState.DONE:
            self._happen(
                Observation(event=WatchEvent.REST, why="waits for mail and hooks")
            )

    def _record(self, before: WatchStatus | None) -> None:
        active = self._draining.active_run if self._draining else None
        run = active.ledger.run_id if active else ""
        self._journal.record_change(self._watch, run)
        self._status.record_change(before)

    def _act(self) -> None:
        todo, draining = self._watch.todo(utcnow()), self._draining
        if todo is WatchTask.CHECK:
            self._spawn("check", self._check())
        if todo is WatchTask.DRAIN and "drain" not in self._tasks:
            self._draining = DrainTask(self._plan, self._watch_log)
            self._sense = DrainHealth()
            self._spawn("drain", self._drain(self._draining))
        elif todo is not WatchTask.DRAIN and draining is not None:
            draining.stop()

    # --- once a second

    def _tick(self) -> None:
        now = utcnow()
        self._spawn("overrides", self._read_overrides())
        self._spawn("write", self._journal.write(self._watch_log))
        self._hold(now)
        if self._draining is not None:
            for observation in self._sense.observations(self._watch, self._draining):
                self._happen(observation)
        active = self._draining.active_run if self._draining else None
        self._status.sample(active, now.timestamp())
        idle = (
            self._watch.state is WatchState.ARMED or self._watch.wait is WatchWait.TIME
        )
        rescan = self._plan.config.watch.rescan.total_seconds()
        if idle and time.monotonic() - self._looked >= rescan:
            self._spawn("look", self._look())
        if self._digest_due is not None and now >= self._digest_due:
            self._digest_due = next_digest(self._plan.config, now, wall)
            self._spawn("digest", self._digest(now))

    async def _read_overrides(self) -> None:
        last = self._last_override
        try:
            overrides, force = await asyncio.to_thread(self._watch_log.controls, last)
        except LedgerError as error:
            self._outage.record_failure(error)
            return
        self._outage.record_answer()
        self._status.in_force = force
        self._journal.record_overrides(
            each for each in overrides if each.at >= self._overrides_since
        )
        if observation := last_hook(overrides, self._overrides_since):
            self._happen(observation)
            self._hurry(observation)
        # What comes now is new, whatever its clock says.
        self._overrides_since = LONG_AGO
        if overrides:
            self._last_override = overrides[-1].id

    def _hurry(self, observation: Observation) -> None:
        """Let a drain whose breaker is paused probe when a hook says up."""
        active = self._draining.active_run if self._draining else None
        paused = self._watch.wait is WatchWait.BREAKER
        if observation.event is WatchEvent.UP and paused and active is not None:
            active.engine.end_pauses()

    def _hold(self, now: datetime) -> None:
        """Apply pauses and hours."""
        hold = find_hold(self._status.in_force, self._plan, now, self._watch.hold)
        if hold is not None and hold != self._watch.hold:
            self._happen(hold)
        elif hold is None and self._watch.hold is not None:
            self._happen(Observation(event=WatchEvent.FREED))

    # --- beside the loop

    async def _check(self) -> None:
        reports, observation = await check_primaries(self._plan)
        self._status.show_checks(reports)
        is_good = observation.event is WatchEvent.GOOD
        self._journal.report_check("" if is_good else observation.why)
        self._happen(observation)

    async def _drain(self, draining: DrainTask) -> None:
        observation = await draining.run()
        gc.collect()  # a drain leaves cycles, and we collect rarely
        self._status.sample(None, utcnow().timestamp())
        self._looked = time.monotonic()
        if not draining.stopped:
            self._happen(observation)
        elif observation.event is WatchEvent.FAILED:
            _log.warning(observation.why)
        self._draining = None

    async def _look(self) -> None:
        try:
            if await self._looking.sees_news(self._watch_log.is_news):
                self._happen(Observation(event=WatchEvent.MAIL))
            self._journal.complain("")
        except DrainerError as error:
            self._journal.complain(str(error))
        self._looked = time.monotonic()

    async def _digest(self, now: datetime) -> None:
        try:
            await mail_daily(self._plan.config, now)
        except DrainerError as error:
            _log.warning(f"the digest was not sent: {error}")

    async def _load_again(self) -> None:
        """Read the configuration again; report a bad one, and keep the old one."""
        self._notifier.reloading()
        old = self._plan
        try:
            new = await asyncio.to_thread(self._reload)
            new.replace(old)
        except DrainerError as error:
            text = f"the configuration is invalid, the old one stays: {error}"
            _log.warning(text)
        else:
            await self._take_over(old, new)
        self._notifier.ready()

    async def _take_over(self, old: WatchPlan, new: WatchPlan) -> None:
        self._adopt(new)
        self._status.adopt(new)
        if new.config.telemetry != old.config.telemetry:
            await self._end_export()
            self._exporting = self._export()
        if self._draining is not None and not new.drains_like(old):
            self._draining.stop()
            self._happen(Observation(event=WatchEvent.RESTART))
        _log.info("the configuration was read again")
