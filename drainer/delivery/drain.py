"""The drain: one task group that scans, sends, retries and acknowledges.

It ends when every recipient is final or waits for something that a drain does not wait
for. It also ends when the primary refuses us (the circuit breaker opens), when the
ledger cannot be written, or when it is asked to stop. Then it claims nothing more and
lets the sessions finish their message.
"""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext

from msgspec.structs import replace

from drainer.bounce.quarantine.cleanup import QuarantineCleaner
from drainer.bounce.quarantine.delivery_copies import DeliveryCopies
from drainer.bounce.quarantine.store import Quarantine
from drainer.bounce.service import BounceService
from drainer.delivery.acknowledger import Acknowledger
from drainer.delivery.breaker.guard import BreakerGuard
from drainer.delivery.breaker.monitor import BreakerMonitor
from drainer.delivery.connection_limit import ConnectionLimit
from drainer.delivery.connections import ConnectionPool
from drainer.delivery.control import DrainControl
from drainer.delivery.events import DeliveryEvents
from drainer.delivery.fair_queue import WINDOW, FairQueue
from drainer.delivery.feeder import LOOK_AGAIN, Feeder
from drainer.delivery.leases import SourceLeases
from drainer.delivery.loader import Loader
from drainer.delivery.pacing.controller import ControllerParts, RateController
from drainer.delivery.ready_queue import ReadyQueue
from drainer.delivery.selector import Selector
from drainer.delivery.settings import DrainSettings, Progress
from drainer.delivery.worker import DeliveryWorker
from drainer.errors import OwnedElsewhere
from drainer.ledger.repository import Ledger
from drainer.policy.breaker.known_good import KnownGoodRecipients
from drainer.policy.recipient.judge import RetryPolicy
from drainer.policy.recipient.retry import usual_confirm_after
from drainer.runtime.process import utcnow
from drainer.runtime.workers import WorkerProcess
from drainer.smtp.rate_limiter import RateLimiter
from drainer.sources.protocol import LeasingSource, Source

READY = 100
"""Messages that are ready to be sent; the fair queue looks further ahead."""
LEASED = 400
"""How far it looks ahead in a shared source: other drains need mail, too."""


class Drain:
    """One run over some sources to one primary; starts and stops its parts in order."""

    def __init__(
        self,
        settings: DrainSettings,
        sources: Sequence[Source],
        ledger: Ledger,
        *,
        leases: SourceLeases | None = None,
        spare_worker: WorkerProcess | None = None,
    ) -> None:
        """Prepare; nothing is read or written before ``run``.

        ``leases`` have been started, if any of the sources are shared; ``spare_worker``
        is a scanner that waits for the first source.
        """
        self.settings = settings
        self.ledger = ledger
        self.progress = Progress(started=utcnow())
        self.control = DrainControl(ledger.note)
        self._sources = {source.url: source for source in sources}
        self._leases = leases or SourceLeases([])
        self._ready_queue = ReadyQueue(
            max(READY, 2 * settings.connections),
            in_order=settings.choice.order is not None,
        )
        self.breaker_guard = self._build_breaker_guard()
        self._rate_limiter = RateLimiter(settings.rates)
        self.rate_controller = self._build_rate_controller()
        self._connection_limit = ConnectionLimit(
            settings.connections, self.rate_controller
        )
        self._quarantine = (
            Quarantine(settings.quarantine) if settings.quarantine else None
        )
        self._kept = DeliveryCopies(settings.kept) if settings.kept else None
        self._loader = self._build_loader()
        self._acknowledger = Acknowledger(ledger, self._sources, self._kept)
        #: Sources that refused to acknowledge finished messages, and why.
        self.refusals = self._acknowledger.refusals
        self._cleaner = (
            QuarantineCleaner(ledger, self._quarantine) if self._quarantine else None
        )
        #: Sends bounces; None: no sender is notified.
        self.bounce_service = self._build_bounce_service()
        self._worker = self._build_worker()
        self._connections = self._build_connections()
        self._breaker_monitor = self._build_breaker_monitor()
        self._feeder = self._build_feeder(spare_worker)
        self.control.add(
            self._feeder, self._rate_limiter, self.breaker_guard, self._connections
        )

    def _build_breaker_guard(self) -> BreakerGuard:
        settings = self.settings
        return BreakerGuard(
            settings.pauses,
            KnownGoodRecipients(settings.known_good, settings.sender),
            self.control,
            self._ready_queue,
            settings.thresholds,
        )

    def _build_breaker_monitor(self) -> BreakerMonitor:
        return BreakerMonitor(
            self.breaker_guard,
            self.ledger,
            self.settings.route,
            list(self._sources),
            self._connections.slots,
        )

    def _build_loader(self) -> Loader:
        return Loader(
            self._sources,
            self.settings.admission,
            self.settings.route.max_recipients,
            self._quarantine,
            tells=self.settings.bouncing is not None,
            kept=self._kept.store if self._kept else None,
        )

    def _build_bounce_service(self) -> BounceService | None:
        bouncing = self.settings.bouncing
        if bouncing is None:
            return None
        return BounceService(self.ledger, self._sources, self._quarantine, bouncing)

    def _build_rate_controller(self) -> RateController:
        parts = ControllerParts(
            settings=self.settings,
            ledger=self.ledger,
            rate_limiter=self._rate_limiter,
            progress=self.progress,
            breaker_guard=self.breaker_guard,
            control=self.control,
        )
        return RateController(parts)

    def _build_worker(self) -> DeliveryWorker:
        """Return the delivery worker that each session gets a copy of."""
        events = DeliveryEvents(
            control=self.control,
            progress=self.progress,
            breaker_guard=self.breaker_guard,
            rate_controller=self.rate_controller,
            connection_limit=self._connection_limit,
            loader=self._loader,
            acknowledger=self._acknowledger if self.settings.acknowledge else None,
            quarantine_cleaner=self._cleaner,
        )
        settings, bounces = self.settings, self.bounce_service
        return DeliveryWorker(
            ready_queue=self._ready_queue,
            ledger=self.ledger,
            rate_limiter=self._rate_limiter,
            policy=RetryPolicy(schedule=settings.schedule, rules=settings.rules),
            control=self.control,
            events=events,
            leases=self._leases,
            breakers=self.breaker_guard.registry,
            bounce_decider=bounces.bounce_decider if bounces else None,
            idle=settings.route.timeouts.idle,
        )

    def _build_connections(self) -> ConnectionPool:
        return ConnectionPool(
            settings=self.settings,
            ledger=self.ledger,
            control=self.control,
            progress=self.progress,
            breaker_guard=self.breaker_guard,
            ready_queue=self._ready_queue,
            loader=self._loader,
            slots=asyncio.Semaphore(self.settings.connections),
            limit=self._connection_limit,
            rate_controller=self.rate_controller,
            rate_limiter=self._rate_limiter,
            worker=self._worker,
        )

    def _build_feeder(self, spare_worker: WorkerProcess | None) -> Feeder:
        shared = any(isinstance(each, LeasingSource) for each in self._sources.values())
        fair = self.settings.choice.order is None
        return Feeder(
            settings=self.settings,
            sources=self._sources,
            ledger=self.ledger,
            selector=Selector(self.settings, self.ledger, list(self._sources)),
            fair_queue=FairQueue(LEASED if shared else WINDOW, fair=fair),
            ready_queue=self._ready_queue,
            loader=self._loader,
            acknowledger=self._acknowledger,
            progress=self.progress,
            breaker_guard=self.breaker_guard,
            breaker_monitor=self._breaker_monitor,
            control=self.control,
            worker=self._worker,
            spare_worker=spare_worker,
        )

    # --- the run

    async def run(self) -> None:
        """Drain; on return everything is in the ledger. Raise what ended it.

        The sources must have been bound to the route (RunLedger.bind).
        """
        last = await self.ledger.runs.last_activity(str(self.settings.route))
        self._rate_limiter.resume(None if last is None else utcnow() - last)
        async with self.bounce_service or nullcontext():
            await self._resume()
            await self._drain()
        await self._leave_breakers()
        if self.control.error is not None:
            raise self.control.error
        await self._check_ownership()

    async def _drain(self) -> None:
        """Send what is to be sent, and run everything beside that."""
        guard = self.control.guard
        async with asyncio.TaskGroup() as group:
            lease = group.create_task(guard(self.ledger.runs.keep_lease()))
            side_tasks = [
                group.create_task(guard(self.rate_controller.run())),
                group.create_task(guard(self.rate_controller.loads.run())),
                group.create_task(guard(self._leases.keep())),
                group.create_task(guard(self._breaker_monitor.run())),
                group.create_task(guard(self._gather_evidence())),
            ]
            acknowledging = group.create_task(guard(self._acknowledger.run()))
            cleaning = group.create_task(guard(self._clean_quarantine()))
            numbers = range(self.settings.connections)
            sessions = [group.create_task(self._connections.run(n)) for n in numbers]
            await self._feeder.run()
            self.control.close()
            await self._wait_for_sessions(sessions)
            for task in side_tasks:
                task.cancel()
            await guard(self._send_reports())
            lease.cancel()
            self._acknowledger.close()
            await acknowledging
            if self._cleaner is not None:
                self._cleaner.close()
            await cleaning

    def stop(self) -> None:
        """End soon: claim nothing more, let each session finish its message."""
        self.progress.interrupted = True
        if self.bounce_service is not None:
            self.bounce_service.close()
        self.control.close()

    async def _resume(self) -> None:
        """Restore the breakers, and make pending bounces due for confirmation."""
        settings = self.settings
        first_run = await self._breaker_monitor.restore()
        confirm_after = settings.confirm_after
        if confirm_after is None:
            confirm_after = usual_confirm_after(utcnow() - first_run)
        schedule = replace(settings.schedule, confirm_after=confirm_after)
        self._worker.policy = RetryPolicy(schedule=schedule, rules=settings.rules)
        if self.bounce_service is not None and not settings.scans:
            await self.bounce_service.gather_once()  # an operator runs it for this
        looked = self.bounce_service is not None
        await self._breaker_monitor.confirm(settings.brake, looked=looked)

    async def _gather_evidence(self) -> None:
        if self.bounce_service is not None:
            await self.bounce_service.gather()

    async def _clean_quarantine(self) -> None:
        if self._cleaner is not None:
            await self._cleaner.run()

    async def _send_reports(self) -> None:
        if self.bounce_service and self._ended_by_itself:
            await self.bounce_service.finish()

    @property
    def _ended_by_itself(self) -> bool:
        return not self.progress.interrupted and self.control.error is None

    async def _leave_breakers(self) -> None:
        """Write the last state of the breakers to the ledger."""
        if self._ended_by_itself:
            self.breaker_guard.end()
        await self.control.guard(self._breaker_monitor.persist_changes())

    async def _wait_for_sessions(self, sessions: list[asyncio.Task[None]]) -> None:
        """Wait for the sessions; after a signal only for the grace period."""
        pending: set[asyncio.Task[None]] = set(sessions)
        while pending:
            must_end = not self._ended_by_itself
            limit = self.settings.grace if must_end else LOOK_AGAIN
            _, pending = await asyncio.wait(pending, timeout=limit.total_seconds())
            if must_end:
                break
        for late in pending:
            late.cancel()

    async def _check_ownership(self) -> None:
        if self.progress.claimed or self.progress.interrupted:
            return
        owned = await self.ledger.messages.owned_elsewhere(list(self._sources))
        if owned or await self._leases.elsewhere():
            message = "another drain works on this source and left nothing to claim"
            raise OwnedElsewhere(message, hint="`drainer status` shows its progress")
