"""Remove copies that are no longer needed, after the ledger knows why.

A crash in between leaves a copy too many, never one too few: every drain and every
purge checks all copies in the folder.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from drainer.bounce.quarantine.store import Quarantine
from drainer.ledger.query.quarantine import select_needless
from drainer.ledger.reader import LedgerReader
from drainer.ledger.repository import Ledger
from drainer.policy.recipient.settle import Settlement
from drainer.policy.recipient.state import FINAL
from drainer.smtp.transaction import Transaction

BATCH = 200
PAUSE = 0.25
"""Seconds between batches."""


class QuarantineCleaner:
    """Removes copies in the background of a drain."""

    def __init__(self, ledger: Ledger, quarantine: Quarantine) -> None:
        self._ledger = ledger
        self._quarantine = quarantine
        self._known: set[str] = set()
        self._waiting: set[str] = set()
        self._closed = asyncio.Event()

    def on_settled(
        self, transaction: Transaction, settlements: tuple[Settlement, ...]
    ) -> None:
        """Queue the message of an attempt if its copy may no longer be needed."""
        id_ = transaction.delivery.message.id
        if transaction.delivery.kept:
            self._known.add(id_)
        if id_ in self._known and any(each.state in FINAL for each in settlements):
            self._waiting.add(id_)

    async def run(self) -> None:
        """Clean up until closed: first the leftovers, then the queued messages."""
        known = await asyncio.to_thread(self._quarantine.messages)
        self._known |= known
        self._waiting |= known
        while not self._closed.is_set():
            await self._flush()
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE):
                    await self._closed.wait()
        await self._flush()

    def close(self) -> None:
        """Let ``run`` end after the queued messages."""
        self._closed.set()

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for batch in _batches(waiting):
            ids = await self._ledger.reports.needless(batch)
            await asyncio.to_thread(self._quarantine.forget, ids)


def sweep(report: LedgerReader, quarantine: Quarantine) -> None:
    """Remove every copy that the ledger no longer needs."""
    for batch in _batches(quarantine.messages()):
        quarantine.forget([row["id"] for row in report.rows(select_needless(batch))])


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while batch := list(islice(rest, BATCH)):
        yield batch
