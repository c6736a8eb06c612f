"""The drain: one task group that scans, sends, retries and acknowledges.

It ends when every recipient is final or waits for something that a drain does not wait
for. A route ends sooner when its primary refuses us (the circuit breaker opens). The
drain ends when the ledger cannot be written, or when it is asked to stop. Then it
claims nothing more and lets the sessions finish their message.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from drainer.bounce.quarantine.cleanup import QuarantineCleaner
from drainer.bounce.quarantine.delivery_copies import DeliveryCopies
from drainer.bounce.quarantine.store import Quarantine
from drainer.bounce.service import BounceService
from drainer.delivery.acknowledger import Acknowledger
from drainer.delivery.census.census import RecipientCensus
from drainer.delivery.census.primary_check import PrimaryCheck
from drainer.delivery.content_scan.screen import ContentScreen
from drainer.delivery.control import DrainControl
from drainer.delivery.leases import SourceLeases
from drainer.delivery.message_claims import MessageClaims
from drainer.delivery.mx_refresh import MxRefresh
from drainer.delivery.route_delivery import RouteDelivery, SharedParts
from drainer.delivery.selector import MessageLimit
from drainer.delivery.settings import DrainSettings, Progress
from drainer.delivery.spool_scan import SpoolScan
from drainer.errors import OwnedElsewhere
from drainer.ledger.repository import Ledger
from drainer.policy.breaker.breaker import CircuitBreaker
from drainer.policy.recipient.retry import usual_confirm_after
from drainer.runtime.process import utcnow
from drainer.runtime.workers import WorkerProcess
from drainer.smtp.rate_limiter import TotalRate
from drainer.sources.protocol import Source
from drainer.sources.recipients.directory import RecipientDirectory


class Drain:
    """One run over some sources by some routes; starts and stops its parts in order."""

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
        self.census = _census_of(settings)
        self._shared = self._build_shared_parts(leases or SourceLeases([]))
        #: Sources that refused to acknowledge finished messages, and why.
        self.refusals = self._shared.acknowledger.refusals
        #: By name, in the order of the configuration.
        self.routes = {
            each.name: RouteDelivery(each, self._shared) for each in settings.routes
        }
        self.progress.routes = [each.progress for each in self.routes.values()]
        feeders = {name: route.feeder for name, route in self.routes.items()}
        self._spool_scan = SpoolScan(
            shared=self._shared, feeders=feeders, spare_worker=spare_worker
        )
        self.control.add(self._spool_scan)

    @property
    def bounce_service(self) -> BounceService | None:
        """Sends bounces; None: no sender is notified."""
        return self._shared.bounce_service

    @property
    def shown_route(self) -> RouteDelivery:
        """The route that stands for the drain: the first that sends, if one does."""
        routes = list(self.routes.values())
        flowing = (each for each in routes if each.breaker_guard.breaker.is_closed)
        return next(flowing, routes[0])

    @property
    def open_breakers(self) -> list[tuple[str, CircuitBreaker]]:
        """The circuit breakers that are open, each with the name of its route."""
        return [
            (name, breaker)
            for name, route in self.routes.items()
            for breaker in route.breaker_guard.open_breakers
        ]

    @property
    def in_flight(self) -> list[str]:
        """The queue ids of the messages that are being sent."""
        pools = (route.connections for route in self.routes.values())
        return [id_ for pool in pools for id_ in pool.in_flight]

    @property
    def is_braked(self) -> bool:
        """Whether too many refusals wait on some route: none becomes final there."""
        return any(
            route.breaker_guard.registry.pending.began_braked
            for route in self.routes.values()
        )

    def _build_shared_parts(self, leases: SourceLeases) -> SharedParts:
        settings, ledger = self.settings, self.ledger
        quarantine = Quarantine(settings.quarantine) if settings.quarantine else None
        kept = DeliveryCopies(settings.kept) if settings.kept else None
        bounce_service = None
        if settings.bouncing is not None:
            bounce_service = BounceService(
                ledger, self._sources, quarantine, settings.bouncing
            )
        return SharedParts(
            settings=settings,
            sources=self._sources,
            ledger=ledger,
            progress=self.progress,
            control=self.control,
            claims=MessageClaims(),
            limit=MessageLimit(settings.choice.limit),
            total=TotalRate(settings.total),
            leases=leases,
            acknowledger=Acknowledger(ledger, self._sources, kept),
            kept=kept.store if kept else None,
            quarantine=quarantine,
            cleaner=QuarantineCleaner(ledger, quarantine) if quarantine else None,
            bounce_service=bounce_service,
            census=self.census,
            screen=ContentScreen(settings.scanners, ledger.scans)
            if settings.scanners
            else None,
        )

    # --- the run

    async def open_lists(self) -> None:
        """Read the lists of recipients; raise UsageError if one cannot be read."""
        if self.census is not None:
            await self.census.open(lambda: self.progress.interrupted)

    async def take_census(self, *, asks: bool) -> None:
        """Hold unknown recipients; leave out routes whose primary has lost users.

        ``asks``: the primaries are asked for recipients. Call it after ``open_lists``
        and before ``run``. Raises PrimaryNotReady if no route is left, UsageError if a
        list cannot be read.
        """
        if self.census is None:
            return
        sources = self._sources.values()
        if asks and self.settings.scans:
            check = PrimaryCheck(
                self.census,
                self.settings,
                self.ledger,
                lambda: self.progress.interrupted,
            )
            await check.run(self.routes, sources)
        await self.census.review(self.ledger, sources)

    async def run(self) -> None:
        """Drain; on return everything is in the ledger. Raise what ended it.

        The sources must have been assigned to the routes (RunLedger.assign).
        """
        async with self.bounce_service or nullcontext():
            await self._resume()
            await self._drain()
        for route in self.routes.values():
            await route.leave()
        if self.control.error is not None:
            raise self.control.error
        await self._check_ownership()

    async def _drain(self) -> None:
        """Send what is to be sent, and run everything beside that."""
        guard, shared = self.control.guard, self._shared
        async with asyncio.TaskGroup() as group:
            lease = group.create_task(guard(self.ledger.runs.keep_lease()))
            side_tasks = [group.create_task(guard(each)) for each in self._beside()]
            acknowledging = group.create_task(guard(shared.acknowledger.run()))
            cleaning = group.create_task(guard(self._clean_quarantine()))
            scan = group.create_task(guard(self._spool_scan.run()))
            await self._run_routes()
            self.control.close()
            await scan
            for task in side_tasks:
                task.cancel()
            await guard(self._send_reports())
            lease.cancel()
            shared.acknowledger.close()
            await acknowledging
            if shared.cleaner is not None:
                shared.cleaner.close()
            await cleaning

    async def _run_routes(self) -> None:
        """Send by all routes at the same time; return when the last one has ended."""
        async with asyncio.TaskGroup() as group:
            for route in self.routes.values():
                group.create_task(route.run())

    def end_pauses(self) -> None:
        """Probe every route whose circuit breaker is paused, at once."""
        for route in self.routes.values():
            route.breaker_guard.end_pause()

    def stop(self) -> None:
        """End soon: claim nothing more, let each session finish its message."""
        self.progress.interrupted = True
        if self.bounce_service is not None:
            self.bounce_service.close()
        self.control.close()

    async def _resume(self) -> None:
        """Restore the breakers, and make pending bounces due for confirmation."""
        settings, routes = self.settings, list(self.routes.values())
        first_run = min([await route.restore() for route in routes])
        confirm_after = settings.confirm_after
        if confirm_after is None:
            confirm_after = usual_confirm_after(utcnow() - first_run)
        if self.bounce_service is not None and not settings.scans:
            await self.bounce_service.gather_once()  # an operator runs it for this
        for route in routes:
            await route.confirm(confirm_after)
        stopped = await self.ledger.messages.stopped_states(list(self._sources))
        self.progress.states.update(stopped)

    def _beside(self) -> Iterator[Coroutine[Any, Any, None]]:
        """Yield what runs while mail is sent, and not longer."""
        yield self._shared.leases.keep()
        if self.bounce_service is not None:
            yield self.bounce_service.gather()
        if self.settings.mx is not None:
            hosts = {name: route.hosts for name, route in self.routes.items()}
            yield MxRefresh(self.settings.mx, hosts).run()

    async def _clean_quarantine(self) -> None:
        if self._shared.cleaner is not None:
            await self._shared.cleaner.run()

    async def _send_reports(self) -> None:
        ended_by_itself = not self.progress.interrupted and self.control.error is None
        if self.bounce_service and ended_by_itself:
            await self.bounce_service.finish()

    async def _check_ownership(self) -> None:
        if self.progress.claimed or self.progress.interrupted:
            return
        owned = await self.ledger.messages.owned_elsewhere(list(self._sources))
        if owned or await self._shared.leases.elsewhere():
            message = "another drain works on this source and left nothing to claim"
            raise OwnedElsewhere(message, hint="`drainer status` shows its progress")


def _census_of(settings: DrainSettings) -> RecipientCensus | None:
    if settings.directory is None:
        return None
    directory = RecipientDirectory(settings.directory)
    return RecipientCensus(directory, settings.admission.redirect)
