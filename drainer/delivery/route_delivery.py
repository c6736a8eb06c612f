"""Delivery by one route: its queues, limits, breakers and connections.

A drain has one for each route. Nothing in it waits for another route, so that one that
is down or slow costs the others nothing.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from drainer.bounce.quarantine.cleanup import QuarantineCleaner
from drainer.bounce.quarantine.store import Quarantine
from drainer.bounce.service import BounceService
from drainer.delivery.acknowledger import Acknowledger
from drainer.delivery.breaker.guard import BreakerGuard
from drainer.delivery.breaker.monitor import BreakerMonitor
from drainer.delivery.census.census import RecipientCensus
from drainer.delivery.connection_limit import ConnectionLimit
from drainer.delivery.connections import ConnectionPool
from drainer.delivery.content_scan.screen import ContentScreen
from drainer.delivery.content_scan.stage import ScanStage
from drainer.delivery.control import DrainControl
from drainer.delivery.events import DeliveryEvents
from drainer.delivery.fair_queue import WINDOW, FairQueue
from drainer.delivery.feeder import LOOK_AGAIN, Feeder
from drainer.delivery.leases import SourceLeases
from drainer.delivery.loader import Loader
from drainer.delivery.message_claims import MessageClaims
from drainer.delivery.pacing.controller import RateController
from drainer.delivery.ready_queue import ReadyQueue
from drainer.delivery.selector import MessageLimit, Selector
from drainer.delivery.settings import (
    DrainSettings,
    Progress,
    RouteProgress,
    RouteSettings,
)
from drainer.delivery.worker import DeliveryWorker
from drainer.ledger.repository import Ledger
from drainer.ledger.route_mail import RouteMail
from drainer.policy.breaker.known_good import KnownGoodRecipients
from drainer.runtime.process import utcnow
from drainer.smtp.hosts import HostChoice
from drainer.smtp.rate_limiter import RateLimiter, TotalRate
from drainer.smtp.xclient import may_speak
from drainer.sources.protocol import LeasingSource, Source

READY = 100
"""Messages that are ready to be sent; the fair queue looks further ahead."""
LEASED = 400
"""How far it looks ahead in a shared source: other drains need mail, too."""


@dataclass(slots=True, kw_only=True)
class SharedParts:
    """What all routes of a drain have in common."""

    settings: DrainSettings
    sources: dict[str, Source]
    ledger: Ledger
    progress: Progress
    control: DrainControl
    claims: MessageClaims
    limit: MessageLimit
    total: TotalRate
    leases: SourceLeases
    acknowledger: Acknowledger
    quarantine: Quarantine | None
    #: Copies of delivered mail that the primary may have lost.
    kept: Quarantine | None
    cleaner: QuarantineCleaner | None
    bounce_service: BounceService | None
    #: Knows recipients by lists; None: there are no lists.
    census: RecipientCensus | None
    #: The scanners of contents; None: nothing is scanned.
    screen: ContentScreen | None


class RouteDelivery:
    """Sends the mail of one route, from the claim to the settled attempt."""

    def __init__(self, settings: RouteSettings, shared: SharedParts) -> None:
        """Build the parts; nothing is read or sent."""
        self.settings = settings
        self._shared = shared
        pace = settings.pace
        self.progress = RouteProgress(
            name=settings.name,
            started=utcnow(),
            ramp=pace.ramp if pace.adaptive and not pace.full else timedelta(0),
        )
        self.control = shared.control.for_route(settings.name)
        in_order = shared.settings.choice.order is not None
        self.hosts = HostChoice(settings.route)
        self._ready_queue = ReadyQueue(
            max(READY, 2 * settings.connections), shared.claims, in_order=in_order
        )
        #: Why nothing is sent by this route, although a drain runs; '' = it is.
        self.not_ready = ""
        #: The primary was asked for recipients: the burst of its rate may be spent.
        self.has_asked = False
        self.breaker_guard = self._build_breaker_guard()
        self._rate_limiter = RateLimiter(settings.rates, total=shared.total)
        self.rate_controller = self._build_rate_controller()
        self._connection_limit = ConnectionLimit(
            settings.connections, self.rate_controller
        )
        self._loader = self._build_loader()
        self._worker = self._build_worker()
        self.connections = self._build_connections()
        self._breaker_monitor = self._build_breaker_monitor()
        self.feeder = self._build_feeder()
        self.control.add(
            self.feeder, self._rate_limiter, self.breaker_guard, self.connections
        )

    @property
    def name(self) -> str:
        """The name of the route."""
        return self.settings.name

    # --- the parts

    @property
    def _mail(self) -> RouteMail:
        return RouteMail(list(self._shared.sources), self.name)

    def _build_breaker_guard(self) -> BreakerGuard:
        settings, probe = self.settings, self.settings.probe
        return BreakerGuard(
            settings.pauses,
            KnownGoodRecipients(probe.accept, probe.sender),
            self.control,
            self._ready_queue,
            settings.thresholds,
        )

    def _build_breaker_monitor(self) -> BreakerMonitor:
        return BreakerMonitor(
            self.breaker_guard,
            self._shared.ledger,
            self.hosts,
            self._mail,
            self.connections.slots,
        )

    def _build_loader(self) -> Loader:
        shared = self._shared
        return Loader(
            shared.sources,
            shared.settings.admission,
            self.settings.route.max_recipients,
            shared.quarantine,
            reports_success=shared.settings.bouncing is not None,
            kept=shared.kept,
        )

    def _build_rate_controller(self) -> RateController:
        return RateController(
            settings=self.settings,
            ledger=self._shared.ledger,
            rate_limiter=self._rate_limiter,
            progress=self.progress,
            breaker_guard=self.breaker_guard,
            control=self.control,
        )

    def _build_worker(self) -> DeliveryWorker:
        """Return the delivery worker that each session gets a copy of."""
        shared, bounces = self._shared, self._shared.bounce_service
        acknowledges = shared.settings.acknowledge
        events = DeliveryEvents(
            progress=shared.progress,
            route_progress=self.progress,
            breaker_guard=self.breaker_guard,
            rate_controller=self.rate_controller,
            connection_limit=self._connection_limit,
            loader=self._loader,
            acknowledger=shared.acknowledger if acknowledges else None,
            quarantine_cleaner=shared.cleaner,
        )
        return DeliveryWorker(
            ready_queue=self._ready_queue,
            ledger=shared.ledger,
            rate_limiter=self._rate_limiter,
            schedule=shared.settings.schedule,
            rules=self.settings.rules,
            control=self.control,
            events=events,
            leases=shared.leases,
            breakers=self.breaker_guard.registry,
            bounce_decider=bounces.bounce_decider if bounces else None,
            listed=shared.census.knows if shared.census else None,
            idle=self.settings.route.timeouts.idle,
        )

    def _build_connections(self) -> ConnectionPool:
        return ConnectionPool(
            settings=self.settings,
            ledger=self._shared.ledger,
            control=self.control,
            progress=self.progress,
            breaker_guard=self.breaker_guard,
            ready_queue=self._ready_queue,
            loader=self._loader,
            slots=asyncio.Semaphore(self.settings.connections),
            hosts=self.hosts,
            limit=self._connection_limit,
            rate_controller=self.rate_controller,
            rate_limiter=self._rate_limiter,
            worker=self._worker,
        )

    def _build_feeder(self) -> Feeder:
        shared = self._shared
        leased = any(
            isinstance(each, LeasingSource) for each in shared.sources.values()
        )
        fair = shared.settings.choice.order is None
        return Feeder(
            settings=self.settings,
            mail=self._mail,
            ledger=shared.ledger,
            selector=Selector(shared.settings, shared.ledger, self._mail, shared.limit),
            fair_queue=FairQueue(LEASED if leased else WINDOW, fair=fair),
            ready_queue=self._ready_queue,
            claims=shared.claims,
            loader=self._loader,
            progress=shared.progress,
            route_progress=self.progress,
            breaker_guard=self.breaker_guard,
            breaker_monitor=self._breaker_monitor,
            control=self.control,
            scan_stage=self._build_scan_stage(),
            worker=self._worker,
        )

    def _build_scan_stage(self) -> ScanStage | None:
        in_order = self._shared.settings.choice.order is not None
        screen = self._shared.screen
        if screen is None:
            return None
        pool = self.connections
        return ScanStage(
            screen,
            in_order=in_order,
            is_client_named=lambda message: (
                bool(pool.speaks_for_clients) and may_speak(message)
            ),
        )

    # --- the run

    def leave_out(self, reason: str) -> None:
        """Send nothing by this route: its primary is not ready."""
        self.not_ready = reason
        self.control.close()

    async def restore(self) -> datetime:
        """Take over what earlier runs left; return when the first of them started."""
        last = await self._shared.ledger.runs.last_activity(self.name)
        idle = None if last is None else utcnow() - last
        self._rate_limiter.resume(timedelta(0) if self.has_asked else idle)
        return await self._breaker_monitor.restore()

    async def confirm(self, confirm_after: timedelta) -> None:
        """Make pending bounces due whose confirmation delay is over."""
        schedule = replace(self._shared.settings.schedule, confirm_after=confirm_after)
        self._worker.schedule = schedule
        looked = self._shared.bounce_service is not None
        if not self.not_ready:
            await self._breaker_monitor.confirm(self.settings.brake, looked=looked)

    async def run(self) -> None:
        """Send what is to be sent, and run everything beside that."""
        if self.feeder.is_closed:
            return
        guard = self.control.guard
        async with asyncio.TaskGroup() as group:
            side_tasks = [
                group.create_task(guard(self.rate_controller.run())),
                group.create_task(guard(self.rate_controller.loads.run())),
                group.create_task(guard(self._breaker_monitor.run())),
            ]
            numbers = range(self.settings.connections)
            sessions = [group.create_task(self.connections.run(n)) for n in numbers]
            await self.feeder.run()
            self.control.close()
            await self._wait_for_sessions(sessions)
            self.feeder.close()  # with what sessions have put back meanwhile
            for task in side_tasks:
                task.cancel()

    async def leave(self) -> None:
        """Write the last state of the breakers to the ledger."""
        if self._ended_by_itself:
            self.breaker_guard.end()
        await self.control.guard(self._breaker_monitor.persist_changes())

    @property
    def _ended_by_itself(self) -> bool:
        shared = self._shared
        return not shared.progress.interrupted and shared.control.error is None

    async def _wait_for_sessions(self, sessions: list[asyncio.Task[None]]) -> None:
        """Wait for the sessions; after a signal only for the grace period."""
        pending: set[asyncio.Task[None]] = set(sessions)
        while pending:
            must_end = not self._ended_by_itself
            limit = self._shared.settings.grace if must_end else LOOK_AGAIN
            _, pending = await asyncio.wait(pending, timeout=limit.total_seconds())
            if must_end:
                break
        for late in pending:
            late.cancel()
