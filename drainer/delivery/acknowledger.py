"""Acknowledge finished messages to their sources: last, in batches, idempotently.

drainer acknowledges nothing before the ledger has durably recorded that every recipient
is final. The next scan repairs a crash in between.
"""

import asyncio
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from drainer.bounce.quarantine.delivery_copies import DeliveryCopies
from drainer.delivery.holds import HoldsLedger
from drainer.errors import SourceError
from drainer.ledger.reader import LedgerReader
from drainer.ledger.repository import Ledger
from drainer.mail.message import Message
from drainer.policy.recipient.settle import Settlement
from drainer.policy.recipient.state import FINAL
from drainer.smtp.transaction import Transaction
from drainer.sources.protocol import FailableSource, HoldingSource, Source

BATCH = 200
MANY = 10 * BATCH
PAUSE = 0.25
"""Seconds between batches, so that one fsync of a folder serves many messages."""


class Acknowledger:
    """Collects finished messages and acknowledges them in the background."""

    def __init__(
        self,
        ledger: Ledger,
        sources: Mapping[str, Source],
        kept: DeliveryCopies | None = None,
    ) -> None:
        """Serve the sources that can acknowledge at all; ``kept`` gets copies first."""
        self._ledger = ledger
        self._kept = kept
        self._sources = {u: s for u, s in sources.items() if s.acknowledges}
        self._waiting: dict[str, Message] = {}
        self._closed = asyncio.Event()
        self._emptied = asyncio.Event()
        self._ended = False
        #: Why a source refused the acknowledgement; what it holds stays where it is.
        self.refusals: dict[str, SourceError] = {}

    def enqueue(self, messages: Iterable[Message]) -> None:
        """Add messages that may be finished: known ones that a scan listed again."""
        for message in messages:
            if message.source in self._sources:
                self._waiting[message.id] = message

    async def wait_for_room(self) -> None:
        """Wait while too much is queued: a scan may outpace the disk's removals."""
        if len(self._waiting) > MANY and not self._ended:
            self._emptied.clear()
            await self._emptied.wait()

    def on_settled(
        self, transaction: Transaction, settlements: tuple[Settlement, ...]
    ) -> None:
        """Add the message of an attempt if that attempt may have finished it."""
        if self._sources and all(each.state in FINAL for each in settlements):
            self.enqueue([transaction.spooled.message])

    async def run(self) -> None:
        """Acknowledge until closed; then finish what is still queued."""
        if self._kept is not None:
            await asyncio.to_thread(self._kept.expire)
        try:
            while not self._closed.is_set():
                try:
                    async with asyncio.timeout(PAUSE):
                        await self._closed.wait()
                except TimeoutError:
                    await self._flush()
                    self._emptied.set()
            await self._flush()
        finally:
            self._ended = True
            self._emptied.set()

    def close(self) -> None:
        """Let ``run`` end after what is queued."""
        self._closed.set()

    async def _flush(self) -> None:
        while self._waiting:
            batch = [self._waiting.pop(key) for key in list(self._waiting)[:BATCH]]
            finished = await self._ledger.messages.finished(
                [message.id for message in batch]
            )
            for url, source in self._sources.items():
                mine = [
                    replace(message, has_twin=finished[message.id])
                    for message in batch
                    if message.id in finished and message.source == url
                ]
                if mine and url not in self.refusals:
                    await self._acknowledge(source, mine)

    async def _acknowledge(self, source: Source, messages: list[Message]) -> None:
        try:
            done = await asyncio.to_thread(self._finish, source, messages)
        except SourceError as error:
            self.refusals[source.url] = error
        else:
            await self._ledger.messages.acknowledged(done)

    def _finish(self, source: Source, messages: list[Message]) -> list[str]:
        """Acknowledge messages in the form that a source understands; it may block."""
        if self._kept is not None:
            self._kept.copy(source, messages)
        if isinstance(source, HoldingSource):
            with LedgerReader(self._ledger.url) as report:
                return source.finish(messages, HoldsLedger(report))
        if not isinstance(source, FailableSource):
            return source.acknowledge(messages)
        with LedgerReader(self._ledger.url) as report:
            failed = report.undelivered([message.id for message in messages])
        done = source.acknowledge([m for m in messages if m.id not in failed])
        return done + source.fail([m for m in messages if m.id in failed])
