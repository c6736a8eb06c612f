"""Work in: from the scan and the ledger through the fair queue to the ready queue.

The scan and the claims run at the same time, and what they find waits in the fair queue
for its turn. A drain that takes everything claims what is due in the order of one
index. A drain that chooses claims only what its selector found.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from drainer.delivery.acknowledger import Acknowledger
from drainer.delivery.breaker.guard import SOON, BreakerGuard
from drainer.delivery.breaker.monitor import BreakerMonitor
from drainer.delivery.control import DrainControl
from drainer.delivery.fair_queue import FairQueue
from drainer.delivery.loader import Loader
from drainer.delivery.ready_queue import ReadyQueue
from drainer.delivery.scanner import scan, scanner
from drainer.delivery.selector import Selector
from drainer.delivery.settings import DrainSettings, Progress
from drainer.delivery.worker import DeliveryWorker
from drainer.ledger.codec import message_of
from drainer.ledger.messages import RecordedBatch
from drainer.ledger.records import ScanRow, from_micros, to_micros
from drainer.ledger.repository import Ledger
from drainer.mail.message import Message
from drainer.policy.admission.identity import ScanContext
from drainer.policy.recipient.delivery import Delivery
from drainer.runtime.process import utcnow
from drainer.runtime.workers import WorkerProcess
from drainer.sources.protocol import Source

LOOK_AGAIN = timedelta(milliseconds=500)

SCAN_SHARE = 10
"""The pause before a source is scanned again, in durations of its last scan."""

REST = timedelta(milliseconds=100)
"""Seconds between batches of a scan that is ahead: sessions need the processors.

A batch takes some 30 ms of one processor. Without the pause, on two processors, the
scan takes one of them at first, and later leaves it idle (measured: 8 % of a fast
drain).
"""


@dataclass(slots=True, kw_only=True)
class Feeder:
    """Feeds the ready queue of one drain."""

    settings: DrainSettings
    sources: dict[str, Source]
    ledger: Ledger
    selector: Selector
    fair_queue: FairQueue
    ready_queue: ReadyQueue
    loader: Loader
    acknowledger: Acknowledger
    progress: Progress
    breaker_guard: BreakerGuard
    breaker_monitor: BreakerMonitor
    control: DrainControl
    #: Holds messages that are not to be sent.
    worker: DeliveryWorker
    #: A scanner that waits for the first source.
    spare_worker: WorkerProcess | None

    async def run(self) -> None:
        """Feed the ready queue until nothing is left that this drain waits for.

        A failure ends the drain in order. What becomes due during the scan does not
        wait for its end.
        """
        guard = self.control.guard
        async with asyncio.TaskGroup() as group:
            group.create_task(guard(self._scan_all()))
            rescanning = group.create_task(guard(self._rescan()))
            filling = group.create_task(guard(self._fill()))
            await guard(self._feed())
            filling.cancel()
            if not self.progress.scanning:  # else it ends by itself, in order
                rescanning.cancel()

    def close(self) -> None:
        """Feed nothing more."""
        self.fair_queue.close()
        self.ready_queue.close()
        self.selector.caught_up.set()

    # --- the scan

    async def _scan_all(self) -> None:
        try:
            if self.selector.takes_all:
                self.progress.total = await self.ledger.messages.unfinished(
                    list(self.sources)
                )
            if self.selector.left is not None and not self.selector.in_order:
                # What earlier runs recorded comes first, and counts.
                await self.selector.caught_up.wait()
            await self._scan_sources()
        finally:
            self._scanned()

    async def _rescan(self) -> None:
        """Look for new mail at intervals; a long scan takes a tenth of the time."""
        if self.settings.rescan is None:
            return
        while self.progress.scanning:
            await self.breaker_guard.wait(LOOK_AGAIN)
        took = timedelta(0)
        while not self.ready_queue.closed:
            await self._sleep(max(self.settings.rescan, SCAN_SHARE * took))
            self.progress.scanning, self.progress.scanned, began = True, 0, utcnow()
            try:
                await self._scan_sources()
            finally:
                self._scanned()
            took = utcnow() - began

    async def _scan_sources(self) -> None:
        for source in self.sources.values():
            if self.settings.scans and not self._is_enough:
                await self._scan(source)

    def _scanned(self) -> None:
        self.progress.scanning = False
        self.breaker_guard.wake()

    @property
    def _is_enough(self) -> bool:
        """Whether nothing more may be started, so that no more need be read."""
        return self.ready_queue.closed or (
            self.selector.left == 0 and not self.selector.in_order
        )

    async def _scan(self, source: Source) -> None:
        selection = self.settings.choice.selection
        process, self.spare_worker = self.spare_worker, None
        about = ScanContext(to_micros(utcnow()), source.acknowledges)
        async with contextlib.AsyncExitStack() as stack:
            if process is None:
                process = await stack.enter_async_context(scanner())
            async for batch in scan(
                process, source, self.settings.admission, selection
            ):
                self.progress.scanned += len(batch.listings) + batch.passed
                self.progress.passed += batch.passed
                await self._record(source, batch.listings, about)
                if self._is_enough:
                    return
                if self.fair_queue.is_ahead:
                    await self._sleep(REST)

    async def _record(
        self, source: Source, listings: Sequence[ScanRow], about: ScanContext
    ) -> None:
        """Record what was scanned; pass on what is new and may be started."""
        most = 0 if self.selector.in_order else self.selector.left
        recorded = await self.ledger.messages.record(listings, about, most)
        await self._take(recorded)
        if recorded.unsure:  # it shares its start with another
            look = partial(look_in_place, source, recorded.unsure)
            rest, absent = await asyncio.to_thread(look)
            await self._record(source, rest, about._replace(absent=absent))

    async def _take(self, recorded: RecordedBatch) -> None:
        """Pass on what was recorded: new messages, and those to acknowledge."""
        self.progress.total += len(recorded.fresh) if self.selector.takes_all else 0
        deliveries = []
        for fresh in recorded.fresh:
            if (delivery := self.selector.pick(fresh)) is None:
                self.ledger.messages.free(fresh.seq)
            else:
                deliveries.append(delivery)
        self.selector.count(len(deliveries))  # before any other task checks the limit
        self.acknowledger.enqueue(recorded.finished)
        await self.acknowledger.wait_for_room()
        for delivery in deliveries:
            self.ready_queue.retain(delivery.message.id)
            await self.fair_queue.put(delivery)

    # --- what is due

    async def _feed(self) -> None:
        while not self.ready_queue.closed and await self._feed_due():
            pass

    async def _feed_due(self) -> bool:
        """Claim what is due, or wait for it; return False when this drain is done.

        What becomes due only after the deadline is left to another drain.
        """
        deliveries = await self._claim()
        for (
            delivery
        ) in deliveries:  # a message may have several: none ends its claim early
            self.ready_queue.retain(delivery.message.id)
        for delivery in deliveries:
            await self.fair_queue.put(delivery)
        if deliveries:
            return True
        if self.progress.scanning or self._is_busy:
            await self._wait_idle()
            return True
        if self.breaker_monitor.busy or await self._wake_prober():
            await self.breaker_guard.wait(SOON)
            return True
        due = await self._next_due()
        if due is None or from_micros(due) > self._deadline:
            return False
        wait = max(from_micros(due) - utcnow(), SOON)
        self.progress.waiting = f"next retry in {wait.total_seconds():.0f} s"
        await self._sleep(wait)
        self.progress.waiting = ""
        return True

    async def _claim(self) -> list[Delivery]:
        if self.selector.takes_all:
            urls, is_full = list(self.sources), not self.fair_queue.is_roomy
            return await self.ledger.messages.claim(
                urls, self._deadline, tried=is_full, twins=not self.progress.scanning
            )
        if self.selector.in_order and self.progress.scanning:
            return []  # everything must be known first
        return await self.selector.claim(
            self._deadline, twins=not self.progress.scanning
        )

    async def _wake_prober(self) -> bool:
        """Make a message its breaker's probe; return True if this drain may send it."""
        woken = await self.breaker_monitor.wake_prober(self._deadline)
        if woken and not self.selector.takes_all:
            return await self.selector.next_due(self._deadline) == 0
        return woken

    async def _next_due(self) -> int | None:
        if self.selector.takes_all:
            return await self.ledger.messages.next_due(list(self.sources))
        return await self.selector.next_due(self._deadline)

    @property
    def _deadline(self) -> datetime:
        return self.progress.deadline(self.settings.give_up_after)

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
        while (delivery := await self.fair_queue.take()) is not None:
            await self._put(delivery)
            self.fair_queue.done()
            if self.ready_queue.release(delivery.message.id):
                self.ledger.messages.free(delivery.seq)

    async def _put(self, delivery: Delivery) -> None:
        self.progress.claimed += 1
        self.progress.total = max(self.progress.total, self.progress.sent_messages + 1)
        if self.loader.is_at_hand(delivery):
            transactions = self.loader.transactions(delivery)
        else:
            transactions = iter(await asyncio.to_thread(self.loader.read, delivery))
        for transaction, problem in transactions:
            if problem is None:
                await self.ready_queue.put(transaction)
            else:
                self.ready_queue.count(transaction)
                self.worker.refuse(transaction, problem)


def look_in_place(
    source: Source, unsure: Sequence[tuple[ScanRow, dict[int, Message]]]
) -> tuple[list[ScanRow], frozenset[int]]:
    """Return the listings that are still in place, and the seqs of what is not.

    It reads the spool, so run it in a thread.
    """
    others = {seq: each for _, some in unsure for seq, each in some.items()}
    absent = {seq for seq, each in others.items() if not source.is_in_place(each)}
    single = {"number": 0, "has_twin": False}
    listings = [
        listing
        for listing, _ in unsure
        if source.is_in_place(message_of(single | listing.message))
    ]
    return listings, frozenset(absent)
