"""Work in: from the scan and the ledger through the window into the backlog.

The scan and the claims go on at the same time, and whatever they find waits in the
window for its turn. A drain that takes everything claims what is due in the order
of one index; one that chooses claims what its picker found, and nothing else.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from drainer.delivery.acknowledger import Acknowledger
from drainer.delivery.breaker.guard import SOON, BreakerGuard
from drainer.delivery.breaker.monitor import BreakerMonitor
from drainer.delivery.fair_queue import FairQueue
from drainer.delivery.loader import Loader
from drainer.delivery.ready_queue import ReadyQueue
from drainer.delivery.scanner import scan, scanner
from drainer.delivery.selector import Selector
from drainer.delivery.settings import DrainSettings, Progress
from drainer.ledger.codec import message_of
from drainer.ledger.messages import RecordedBatch
from drainer.ledger.records import ScanRow, from_micros, to_micros
from drainer.ledger.repository import Ledger
from drainer.mail.message import Message, Problem
from drainer.policy.admission.identity import ScanContext
from drainer.policy.recipient.delivery import Delivery
from drainer.runtime.process import utcnow
from drainer.runtime.workers import WorkerProcess
from drainer.smtp.transaction import Transaction
from drainer.sources.protocol import Source

LOOK_AGAIN = timedelta(milliseconds=500)

SCAN_SHARE = 10
"""So many times as long as a scan took, its source is left alone."""

REST = timedelta(milliseconds=100)
"""Between two batches of a scan that is ahead: the sessions need the processors.

A batch takes some 30 ms of one. Without it, on two processors, the scan takes one of
them at first, and later nobody has work for it (measured: 8 % of a fast drain).
"""

Guard = Callable[[Coroutine[Any, Any, None]], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Feeder:
    """What feeds the backlog of one drain."""

    orders: DrainSettings
    sources: dict[str, Source]
    ledger: Ledger
    picker: Selector
    window: FairQueue
    backlog: ReadyQueue
    intake: Loader
    acknowledger: Acknowledger
    tally: Progress
    keeper: BreakerGuard
    probing: BreakerMonitor
    #: A scanner that waits for the first source.
    at_hand: WorkerProcess | None
    #: Holds work that is not to be sent.
    refuse: Callable[[Transaction, Problem], None]

    async def run(self, guard: Guard) -> None:
        """Feed the backlog until nothing is left that this drain waits for.

        ``guard`` runs a side task; its failure ends the drain in order. What falls
        due while the scan goes on is not kept waiting for its end.
        """

        async def guarded(doing: Coroutine[Any, Any, None]) -> None:
            await guard(doing)

        async with asyncio.TaskGroup() as group:
            group.create_task(guarded(self._scan_all()))
            rescanning = group.create_task(guarded(self._rescan()))
            filling = group.create_task(guarded(self._fill()))
            await guard(self._feed())
            filling.cancel()
            if not self.tally.scanning:  # else it ends by itself, in order
                rescanning.cancel()

    def close(self) -> None:
        """Give out nothing more."""
        self.window.close()
        self.backlog.close()
        self.picker.caught_up.set()

    # --- the scan

    async def _scan_all(self) -> None:
        try:
            if self.picker.takes_all:
                self.tally.total = await self.ledger.unfinished(list(self.sources))
            if self.picker.left is not None and not self.picker.in_order:
                # What earlier runs recorded comes first, and counts.
                await self.picker.caught_up.wait()
            await self._scan_sources()
        finally:
            self._scanned()

    async def _rescan(self) -> None:
        """Look for new mail now and then; a long scan takes a tenth of the time."""
        if self.orders.rescan is None:
            return
        while self.tally.scanning:
            await self.keeper.wait(LOOK_AGAIN)
        took = timedelta(0)
        while not self.backlog.closed:
            await self._sleep(max(self.orders.rescan, SCAN_SHARE * took))
            self.tally.scanning, self.tally.scanned, began = True, 0, utcnow()
            try:
                await self._scan_sources()
            finally:
                self._scanned()
            took = utcnow() - began

    async def _scan_sources(self) -> None:
        for source in self.sources.values():
            if self.orders.scans and not self._is_enough:
                await self._scan(source)

    def _scanned(self) -> None:
        self.tally.scanning = False
        self.keeper.wake()

    @property
    def _is_enough(self) -> bool:
        """Whether nothing more may be begun, so that nothing more need be read."""
        return self.backlog.closed or (
            self.picker.left == 0 and not self.picker.in_order
        )

    async def _scan(self, source: Source) -> None:
        selection = self.orders.choice.selection
        process, self.at_hand = self.at_hand, None
        about = ScanContext(to_micros(utcnow()), source.acknowledges)
        async with contextlib.AsyncExitStack() as stack:
            if process is None:
                process = await stack.enter_async_context(scanner())
            async for batch in scan(process, source, self.orders.admission, selection):
                self.tally.scanned += len(batch.listings) + batch.passed
                self.tally.passed += batch.passed
                await self._record(source, batch.listings, about)
                if self._is_enough:
                    return
                if self.window.is_ahead:
                    await self._sleep(REST)

    async def _record(
        self, source: Source, listings: Sequence[ScanRow], about: ScanContext
    ) -> None:
        """Write down what was scanned; what is new and may be begun goes on."""
        most = 0 if self.picker.in_order else self.picker.left
        recorded = await self.ledger.record(listings, about, most)
        await self._take(recorded)
        if recorded.unsure:  # it shares its beginning with another
            look = partial(look_in_place, source, recorded.unsure)
            rest, absent = await asyncio.to_thread(look)
            await self._record(source, rest, about._replace(absent=absent))

    async def _take(self, recorded: RecordedBatch) -> None:
        """Pass on what was recorded: new messages, and those to acknowledge."""
        self.tally.total += len(recorded.fresh) if self.picker.takes_all else 0
        jobs = []
        for fresh in recorded.fresh:
            if (job := self.picker.pick(fresh)) is None:
                self.ledger.free(fresh.seq)
            else:
                jobs.append(job)
        self.picker.count(len(jobs))  # before anything else may look at the limit
        self.acknowledger.offer(recorded.finished)
        await self.acknowledger.room()
        for job in jobs:
            self.backlog.hold(job.message.id)
            await self.window.put(job)

    # --- what is due

    async def _feed(self) -> None:
        while not self.backlog.closed and await self._feed_due():
            pass

    async def _feed_due(self) -> bool:
        """Claim what is due, or wait for it; False when this drain is done.

        What falls due only after the deadline is for another drain.
        """
        jobs = await self._claim()
        for job in jobs:  # a message may have several: none ends its claim early
            self.backlog.hold(job.message.id)
        for job in jobs:
            await self.window.put(job)
        if jobs:
            return True
        if self.tally.scanning or self._is_busy:
            await self._wait_idle()
            return True
        if self.probing.busy or await self._wake_prober():
            await self.keeper.wait(SOON)
            return True
        due = await self._next_due()
        if due is None or from_micros(due) > self._deadline:
            return False
        wait = max(from_micros(due) - utcnow(), SOON)
        self.tally.waiting = f"next retry in {wait.total_seconds():.0f} s"
        await self._sleep(wait)
        self.tally.waiting = ""
        return True

    async def _claim(self) -> list[Delivery]:
        if self.picker.takes_all:
            urls, is_full = list(self.sources), not self.window.is_roomy
            return await self.ledger.claim(
                urls, self._deadline, tried=is_full, twins=not self.tally.scanning
            )
        if self.picker.in_order and self.tally.scanning:
            return []  # everything must be known first
        return await self.picker.claim(self._deadline, twins=not self.tally.scanning)

    async def _wake_prober(self) -> bool:
        """Let a message be the probe of its breaker; True if this drain may send it."""
        woken = await self.probing.wake_prober()
        if woken and not self.picker.takes_all:
            return await self.picker.next_due(self._deadline) == 0
        return woken

    async def _next_due(self) -> int | None:
        if self.picker.takes_all:
            return await self.ledger.next_due(list(self.sources))
        return await self.picker.next_due(self._deadline)

    @property
    def _deadline(self) -> datetime:
        return self.tally.deadline(self.orders.give_up_after)

    @property
    def _is_busy(self) -> bool:
        return bool(self.backlog.outstanding) or not self.window.idle.is_set()

    async def _wait_idle(self) -> None:
        """Wait until nothing is under way, at most for a moment."""
        if self.tally.scanning:
            await self.keeper.wait(LOOK_AGAIN)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN.total_seconds()):
                await self.window.idle.wait()
                await self.backlog.idle.wait()

    async def _sleep(self, limit: timedelta) -> None:
        """Wait for a time, or until the drain is to end."""
        end = utcnow() + limit
        while not self.backlog.closed and utcnow() < end:
            await self.keeper.wait(end - utcnow())

    # --- from the window into the backlog

    async def _fill(self) -> None:
        while (job := await self.window.take()) is not None:
            await self._put(job)
            self.window.done()
            if self.backlog.unhold(job.message.id):
                self.ledger.free(job.seq)

    async def _put(self, job: Delivery) -> None:
        self.tally.claimed += 1
        self.tally.total = max(self.tally.total, self.tally.sent_messages + 1)
        if self.intake.is_at_hand(job):
            works = self.intake.works(job)
        else:
            works = iter(await asyncio.to_thread(self.intake.read, job))
        for work, problem in works:
            if problem is None:
                await self.backlog.put(work)
            else:
                self.backlog.count(work)
                self.refuse(work, problem)


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
