"""What pages and metrics show: the watch's snapshot, and the sums of the ledger.

The ledger is read in a thread, and not more often than it can handle: sums over
millions of recipients take seconds, and many clients may read at once.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import URL

from drainer.errors import DrainerError
from drainer.ledger.reader import LedgerReader
from drainer.watch.http.settings import HookSettings
from drainer.watch.http.snapshot import StatusSnapshot, WatchView
from drainer.watch.ledger_facts import LedgerFacts, ledger_facts

Facts = dict[str, Any]

FRESH = 2.0
"""Seconds for which the same sums of the ledger are shown."""
SHARE = 20
"""They are also valid for this many times the time that they took."""


class StatusQueries:
    """Reads one watch and its ledger for all clients."""

    def __init__(self, watched: WatchView, url: URL, settings: HookSettings) -> None:
        self.watched = watched
        self._url, self._settings = url, settings
        self._report: LedgerReader | None = None
        self._open = contextlib.ExitStack()
        self._known = LedgerFacts({}, "the ledger has not been read yet")
        self._good_until = 0.0
        self._turn = asyncio.Lock()

    async def ledger(self) -> LedgerFacts:
        """Return the facts of the ledger; never raises."""
        async with self._turn:
            started = time.monotonic()
            if started >= self._good_until:
                self._known = await asyncio.to_thread(self._read)
                ended = time.monotonic()
                self._good_until = ended + max(FRESH, SHARE * (ended - started))
        return self._known

    async def status(self) -> Facts:
        """Return everything that the page shows."""
        ledger = await self.ledger()
        snapshot = self.watched.snapshot()
        return {
            "at": time.time(),
            "watch": snapshot,
            "ledger": ledger.facts or None,
            "error": ledger.error,
            "eta_seconds": remaining_seconds(ledger.facts, snapshot),
            "orders": bool(self._settings.keys.operator),
        }

    def close(self) -> None:
        """Close the ledger."""
        self._open.close()

    def _read(self) -> LedgerFacts:
        try:
            if self._report is None:
                self._report = self._open.enter_context(LedgerReader(self._url))
            return LedgerFacts(ledger_facts(self._report, self._settings.lifetime))
        except DrainerError as error:
            hint = f"; {error.hint}" if error.hint else ""
            return LedgerFacts({}, f"{error}{hint}")


def remaining_seconds(
    ledger: Mapping[str, Any], snapshot: StatusSnapshot
) -> float | None:
    """Return how long mail that can go now takes at the current rate; None: unknown.

    Recipients that wait for a time, a person or the breaker are not in it.
    """
    run = snapshot["run"]
    if not ledger or run is None or run["rate_now"] <= 0:
        return None
    waiting = int(ledger["states"]["pending"]) + int(ledger["states"]["in-flight"])
    messages = max(1, ledger["messages"]["total"])
    each = max(1.0, ledger["spooled"] / messages)
    return float(round(waiting / each / run["rate_now"], 1))
