"""Work in, for one route: from the ledger through the fair queue to the ready queue.

The scan and the claims run at the same time, and what they find waits in the fair
queue for its turn. A drain that takes everything claims what is due in the order of one
index. A drain that chooses claims only what its selector found.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from drainer.delivery.breaker.guard import SOON, BreakerGuard
from drainer.delivery.breaker.monitor import BreakerMonitor
from drainer.delivery.content_scan.stage import ScanStage, by_release
from drainer.delivery.control import DrainControl
from drainer.delivery.fair_queue import FairQueue
from drainer.delivery.loader import Loader
from drainer.delivery.message_claims import MessageClaims
from drainer.delivery.ready_queue import ReadyQueue
from drainer.delivery.selector import Selector
from drainer.delivery.settings import Progress, RouteProgress, RouteSettings
from drainer.delivery.worker import DeliveryWorker
from drainer.errors import LedgerLost
from drainer.ledger.claims import ClaimRequest
from drainer.ledger.records import from_micros
from drainer.ledger.repository import Ledger
from drainer.ledger.route_mail import RouteMail
from drainer.mail.message import Problem
from drainer.policy.recipient.delivery import Delivery
from drainer.policy.recipient.state import State
from drainer.runtime.process import utcnow
from drainer.smtp.transaction import Transaction

LOOK_AGAIN = timedelta(milliseconds=500)


@dataclass(slots=True, kw_only=True)
class Feeder:
    """Feeds the ready queue of one route."""

    settings: RouteSettings
    mail: RouteMail
    ledger: Ledger
    selector: Selector
    fair_queue: FairQueue
    ready_queue: ReadyQueue
    claims: MessageClaims
    loader: Loader
    progress: Progress
    route_progress: RouteProgress
    breaker_guard: BreakerGuard
    breaker_monitor: BreakerMonitor
    control: DrainControl
    #: Scans contents before messages are ready; None: nothing is scanned.
    scan_stage: ScanStage | None
    #: Holds messages that are not to be sent.
    worker: DeliveryWorker

    @property
    def is_closed(self) -> bool:
        """Whether this route starts nothing more."""
        return self.ready_queue.closed

    async def run(self) -> None:
        """Feed the ready queue until nothing is left that this drain waits for.

        A failure ends the drain in order. What becomes due during the scan does not
        wait for its end.
        """
        guard = self.control.guard
        async with asyncio.TaskGroup() as group:
            filling = group.create_task(guard(self._fill()))
            await guard(self._feed())
            filling.cancel()

    def close(self) -> None:
        """Feed nothing more.

        If the drain continues, other routes may need the messages that waited here.
        """
        waited = self.fair_queue.close()
        waited += [each.delivery for each in self.ready_queue.close()]
        self.selector.caught_up.set()
        if self.control.ends:
            return  # the end of the run ends all claims
        for delivery in waited:
            self.drop(delivery)

    def drop(self, delivery: Delivery) -> None:
        """End one claim on a message; when it was the last, others may have it."""
        if self.claims.end(delivery.message.id):
            with contextlib.suppress(LedgerLost):
                self.ledger.messages.free(delivery.seq)

    # --- what is due

    async def _feed(self) -> None:
        while not self.ready_queue.closed and await self._feed_due():
            pass

    async def _feed_due(self) -> bool:
        """Claim what is due, or wait for it; return False when this drain is done.

        What becomes due only after the deadline is left to another drain.
        """
        deliveries = await self._claim()
        for each in deliveries:  # a message may have several: none ends its claim early
            self.claims.add(each.message.id)
        for delivery in deliveries:
            if not await self.fair_queue.put(delivery):
                self.drop(delivery)
        if deliveries:
            return True
        if self.progress.scanning or self._is_busy:
            await self._wait_idle()
            return True
        if self.breaker_monitor.busy or await self._wake_prober():
            await self.breaker_guard.wait(SOON)
            return True
        if await self._confirm():
            return True
        due = await self._next_due()
        if due is None or from_micros(due) > self._deadline:
            return False
        wait = max(from_micros(due) - utcnow(), SOON)
        self.route_progress.waiting = f"next retry in {wait.total_seconds():.0f} s"
        await self._sleep(wait)
        self.route_progress.waiting = ""
        return True

    async def _claim(self) -> list[Delivery]:
        if self.selector.takes_all:
            is_full = not self.fair_queue.is_roomy
            twins = not self.progress.scanning
            return await self.ledger.messages.claim(
                ClaimRequest(self.mail, self._deadline, is_full, twins)
            )
        if self.selector.in_order and self.progress.scanning:
            return []  # everything must be known first
        return await self.selector.claim(
            self._deadline, twins=not self.progress.scanning
        )

    async def _confirm(self) -> bool:
        """Make pending bounces due that are to be confirmed: they come last."""
        due = await self.breaker_monitor.make_pending_due()
        states = self.progress.states
        states[State.BOUNCE_PENDING] -= due
        states[State.DEFERRED] += due
        return bool(due)

    async def _wake_prober(self) -> bool:
        """Make a message its breaker's probe; return True if this drain may send it."""
        woken = await self.breaker_monitor.wake_prober(self._deadline)
        if woken and not self.selector.takes_all:
            return await self.selector.next_due(self._deadline) == 0
        return woken

    async def _next_due(self) -> int | None:
        if self.selector.takes_all:
            several = len(self.progress.routes) > 1
            return await self.ledger.messages.next_due(self.mail, own=several)
        return await self.selector.next_due(self._deadline)

    @property
    def _deadline(self) -> datetime:
        return self.route_progress.deadline(self.settings.give_up_after)

    @property
    def _is_busy(self) -> bool:
        return bool(self.ready_queue.outstanding) or not self.fair_queue.idle.is_set()

    async def _wait_idle(self) -> None:
        """Wait until nothing is under way, at most for a moment."""
        if self.progress.scanning:
            await self.breaker_guard.wait(LOOK_AGAIN)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN.total_seconds()):
                await self.fair_queue.idle.wait()
                await self.ready_queue.idle.wait()

    async def _sleep(self, limit: timedelta) -> None:
        """Wait for a time, or until the drain ends."""
        end = utcnow() + limit
        while not self.ready_queue.closed and utcnow() < end:
            await self.breaker_guard.wait(end - utcnow())

    # --- from the fair queue into the ready queue

    async def _fill(self) -> None:
        async with asyncio.TaskGroup() as scans:
            while (delivery := await self.fair_queue.take()) is not None:
                self.progress.claimed += 1
                if self.scan_stage is None:
                    await self._put(await self._load(delivery))
                    self._done(delivery)
                else:
                    await self.scan_stage.enter()
                    scan = self._scan(self.scan_stage, delivery)
                    scans.create_task(self.control.guard(scan))

    async def _scan(self, stage: ScanStage, delivery: Delivery) -> None:
        """Make a delivery ready once scanners have seen its content."""
        try:
            for part in by_release(delivery):
                loaded = list(await self._load(part))
                note, found = await stage.examine(part, loaded)
                for transaction, _ in loaded:
                    transaction.scanned = note
                async with stage.turn:
                    await self._put(
                        (each, problem or found) for each, problem in loaded
                    )
        finally:
            stage.leave()
            self._done(delivery)

    def _done(self, delivery: Delivery) -> None:
        self.fair_queue.done(delivery)
        self.drop(delivery)

    async def _load(
        self, delivery: Delivery
    ) -> Iterable[tuple[Transaction, Problem | None]]:
        ready = self.loader.at_hand(delivery)
        if ready is not None:
            return ready
        return await asyncio.to_thread(self.loader.read, delivery)

    async def _put(
        self, transactions: Iterable[tuple[Transaction, Problem | None]]
    ) -> None:
        self.progress.total = max(self.progress.total, self.progress.sent_messages + 1)
        for transaction, problem in transactions:
            if problem is None:
                await self.ready_queue.put(transaction)
            else:
                self.ready_queue.count(transaction)
                self.worker.refuse(transaction, problem)
