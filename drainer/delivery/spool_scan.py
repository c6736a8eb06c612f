"""Mail in: from the sources through the ledger to the routes.

One scan serves all routes. What it finds for a route that has no room waits in the
ledger, so that a route that is slow or down costs the others nothing.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from drainer.delivery.feeder import LOOK_AGAIN, Feeder
from drainer.delivery.route_delivery import SharedParts
from drainer.delivery.scanner import scan, scanner
from drainer.ledger.codec import message_of
from drainer.ledger.messages import RecordedBatch
from drainer.ledger.records import ScanRow, to_micros
from drainer.mail.message import Message
from drainer.policy.admission.identity import ScanContext
from drainer.policy.recipient.delivery import Delivery
from drainer.runtime.process import utcnow
from drainer.runtime.workers import WorkerProcess
from drainer.sources.protocol import Source

SCAN_SHARE = 10
"""The pause before a source is scanned again, in durations of its last scan."""

REST, RESTS = timedelta(milliseconds=20), 25
"""Time between batches of a scan while it is ahead: sessions need the processors.

A batch takes some 30 ms of one processor. Without the pause, on two processors, the
scan takes one of them at first, and later leaves it idle (measured: 8 % of a fast
drain). It is bounded: other domains may follow.
"""


@dataclass(slots=True, kw_only=True)
class SpoolScan:
    """Scans the sources of one drain, and passes new mail on to its routes."""

    shared: SharedParts
    #: By the names of their routes.
    feeders: Mapping[str, Feeder]
    #: A scanner that waits for the first source.
    spare_worker: WorkerProcess | None
    _closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Scan, and look for new mail at intervals, until it is closed."""
        await self._scan_all()
        if self.shared.settings.rescan is not None:
            await self._rescan(self.shared.settings.rescan)

    def close(self) -> None:
        """Scan nothing more."""
        self._closed.set()
        for feeder in self.feeders.values():
            feeder.selector.caught_up.set()

    # --- the scan

    async def _scan_all(self) -> None:
        shared = self.shared
        try:
            if shared.settings.choice.is_all:
                shared.progress.total = await shared.ledger.messages.unfinished(
                    list(shared.sources)
                )
            if shared.limit.left is not None and not self._in_order:
                for feeder in self.feeders.values():
                    # What earlier runs recorded comes first, and counts.
                    await feeder.selector.caught_up.wait()
            await self._scan_sources()
        finally:
            self._scanned()

    async def _rescan(self, every: timedelta) -> None:
        """Look for new mail at intervals; a long scan takes a tenth of the time."""
        took, progress = timedelta(0), self.shared.progress
        while not self._is_closed:
            await self._sleep(max(every, SCAN_SHARE * took))
            progress.scanning, progress.scanned, began = True, 0, utcnow()
            try:
                await self._scan_sources()
            finally:
                self._scanned()
            took = utcnow() - began

    async def _scan_sources(self) -> None:
        for source in self.shared.sources.values():
            if self.shared.settings.scans and not self._is_enough:
                await self._scan(source)

    def _scanned(self) -> None:
        self.shared.progress.scanning = False
        for feeder in self.feeders.values():
            feeder.breaker_guard.wake()

    @property
    def _in_order(self) -> bool:
        return self.shared.settings.choice.order is not None

    @property
    def _open(self) -> list[Feeder]:
        return [each for each in self.feeders.values() if not each.is_closed]

    @property
    def _is_closed(self) -> bool:
        return self._closed.is_set() or not self._open

    @property
    def _is_enough(self) -> bool:
        """Whether nothing more may be started, so that no more need be read."""
        return self._is_closed or (self.shared.limit.left == 0 and not self._in_order)

    async def _scan(self, source: Source) -> None:
        settings, progress = self.shared.settings, self.shared.progress
        process, self.spare_worker = self.spare_worker, None
        about = ScanContext(to_micros(utcnow()), source.acknowledges)
        async with contextlib.AsyncExitStack() as stack:
            if process is None:
                process = await stack.enter_async_context(scanner())
            async for batch in scan(
                process, source, settings.admission, settings.choice.selection
            ):
                progress.scanned += len(batch.listings) + batch.passed
                progress.passed += batch.passed
                await self._wait_for_room()
                if self.shared.census is not None:
                    await self.shared.census.hold_unknown(batch.listings)
                await self._record(source, batch.listings, about)
                if self._is_enough:
                    progress.is_cut = self.shared.limit.left == 0
                    return
                await self._rest()

    async def _rest(self) -> None:
        """Pause while the scan is ahead of every route, for half a second at most."""
        for _ in range(RESTS):
            if not all(each.fair_queue.is_ahead for each in self._open):
                return
            await self._sleep(REST)

    async def _wait_for_room(self) -> None:
        """Wait while every route has as much as it can hold."""
        while not self._is_closed and all(e.fair_queue.is_full for e in self._open):
            await self._sleep(REST)

    async def _record(
        self, source: Source, listings: Sequence[ScanRow], about: ScanContext
    ) -> None:
        """Record what was scanned; pass on what is new and may be started."""
        routes = {
            name
            for name, feeder in self.feeders.items()
            if not feeder.is_closed and not feeder.fair_queue.is_full
        }
        most = 0 if self._in_order else self.shared.limit.left
        messages = self.shared.ledger.messages
        recorded = await messages.record(listings, about, routes, most)
        await self._take(recorded)
        if recorded.unsure:  # it shares its start with another
            look = partial(look_in_place, source, recorded.unsure)
            rest, absent = await asyncio.to_thread(look)
            await self._record(source, rest, about._replace(absent=absent))

    async def _take(self, recorded: RecordedBatch) -> None:
        """Pass on what was recorded: new messages, and those to acknowledge."""
        shared = self.shared
        if shared.settings.choice.is_all:
            shared.progress.total += recorded.added
        deliveries = list(self._picked(recorded.fresh))
        seqs = {each.seq for each in deliveries}
        for seq in {each.seq for each in recorded.fresh} - seqs:
            shared.ledger.messages.free(seq)
        shared.limit.count(len(seqs))  # before any other task checks the limit
        shared.acknowledger.enqueue(recorded.finished)
        await shared.acknowledger.wait_for_room()
        for each in deliveries:  # a message may have several: none ends its claim early
            shared.claims.add(each.message.id)
        for each in deliveries:
            feeder = self.feeders[each.route]
            if not feeder.fair_queue.add(each):
                feeder.drop(each)

    def _picked(self, fresh: Sequence[Delivery]) -> Iterable[Delivery]:
        for each in fresh:
            picked = self.feeders[each.route].selector.pick(each)
            if picked is not None:
                yield picked

    async def _sleep(self, limit: timedelta) -> None:
        """Wait for a time, or until the drain ends."""
        end = utcnow() + limit
        while not self._is_closed and (left := end - utcnow()) > timedelta(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_AGAIN).total_seconds()):
                    await self._closed.wait()


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
