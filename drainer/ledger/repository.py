"""Ledger: what a worker remembers, on SQLAlchemy.

Every coroutine returns when what it wrote is durable. ``submit`` returns a future, and
``settle`` calls a function instead: sessions use the network meanwhile.
"""

import asyncio
import functools
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sqlalchemy.engine import URL

from drainer.errors import LedgerLost
from drainer.ledger import engine, runs
from drainer.ledger.decisions import decision_values
from drainer.ledger.owner import Owner, wait_for_last_commits
from drainer.ledger.parts import (
    BreakerLedger,
    LedgerPart,
    MessageLedger,
    ReportLedger,
    RunLedger,
    ScanLedger,
)
from drainer.ledger.records import AttemptEnd, AttemptStart, Decision, WriterIdentity
from drainer.ledger.reports import limits
from drainer.ledger.reserve import Reserve, place_of, records_of
from drainer.ledger.writer.batch import DecisionRows, opening_rows
from drainer.ledger.writer.client import Then, WriterClient
from drainer.runtime.workers import WorkerProcess

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})


class Ledger(LedgerPart):
    """The ledger of one worker process, in parts by subject."""

    def __init__(
        self,
        url: URL,
        locks: Path,
        *,
        unknown: timedelta,
        spare_worker: WorkerProcess | None = None,
    ) -> None:
        """Open or create the ledger and take an owner's lock in ``locks``.

        ``unknown`` is the delay before a recipient in doubt is due, ``spare_worker`` a
        process that may write. Raises LedgerError as engine.connect does.
        """
        self._unknown = unknown
        self._sessions = 0
        self.url = url
        self._engine = engine.connect(url, create=True)
        self._owner = Owner.acquire(locks)
        self.reserve = Reserve(self._owner, place_of(self._engine, url))
        self.run_id = uuid.uuid4().hex
        identity = WriterIdentity(owner=self._owner.id, run=self.run_id)
        writer = WriterClient(url, self.run_id, self._owner.descriptor, spare_worker)
        super().__init__(writer, identity)
        self.has_failed = writer.has_failed
        self.messages = MessageLedger(writer, identity)
        self.breakers = BreakerLedger(writer, identity)
        self.reports = ReportLedger(writer, identity)
        self.runs = RunLedger(writer, identity)
        self.scans = ScanLedger(writer, identity)

    @property
    def commits(self) -> int:
        """How many transactions were committed so far."""
        return self._writer.commits

    def expect(self, more_sessions: int) -> None:
        """Count the sessions that share a commit; half of them make it worth one.

        Each has two operations: an attempt ends, and the next one starts. If it took
        all of them, they would wait for it together, and it for them.
        """
        self._sessions += more_sessions
        self._writer.quorum = max(1, self._sessions)

    async def start(
        self, routes: Sequence[str], facts: Mapping[str, object] = _NOTHING
    ) -> runs.RunStart:
        """Start a run by these routes: announce the owner, take over from dead ones.

        ``facts`` are kept with the run: its version, and the trace of its caller.
        """
        with engine.at_open(self.url), self._engine.connect() as connection:
            await wait_for_last_commits(connection)
        await self._writer.start()
        stamp, left = self.stamp(), self.reserve.unread()
        begun = await self.call(
            runs.begin,
            stamp,
            runs.RunRequest(self._owner.row(stamp.now), list(routes), dict(facts)),
            self._unknown,
            list(records_of(left)),
        )
        self.reserve.put_away(left)
        return begun

    def submit(self, operation: AttemptStart | AttemptEnd) -> asyncio.Future[None]:
        """Write an attempt's in-flight rows, or its outcome.

        The future is done when that is durable. It raises StateConflict when the
        recipients are in another state than claimed: another owner had changed it.
        """
        return self._writer.submit(self._rows(operation))

    def settle(self, closed: AttemptEnd, then: Then) -> None:
        """Write an attempt's outcome likewise; call ``then`` when it is durable.

        What the ledger cannot take goes to the reserve.
        """
        then = functools.partial(self.reserve.on_settled, closed, then)
        try:
            self._writer.post(self._rows(closed), then)
        except LedgerLost:
            self.reserve.keep(closed)
            raise

    def _rows(self, operation: AttemptStart | AttemptEnd) -> object:
        match operation:
            case AttemptStart():
                return opening_rows(operation, self._identity)
            case AttemptEnd():
                return limits.make_ending(operation, self._identity)

    def note(self, *decisions: Decision) -> asyncio.Future[None]:
        """Append decisions that belong to no attempt."""
        rows = [decision_values(decision, self.run_id) for decision in decisions]
        return self._writer.submit(DecisionRows(rows))

    async def sync(self) -> None:
        """Return when all that was submitted is durable, for others to read."""
        await self.runs.renew()

    async def finish(
        self, exit_code: int, done: Mapping[str, object] = _NOTHING
    ) -> None:
        """End the run: release claims, record the end, remove the owner.

        ``done`` is recorded with the end: the messages and bytes that the run sent.
        """
        ending = {"exit": exit_code, "commits": self.commits, **done}
        await self.call(runs.end, self.stamp(), ending, self._unknown)

    async def stop(self) -> None:
        """Commit what is queued, end the writer, free the lock."""
        await self._writer.stop()
        self.reserve.release()
        self._owner.release()
        self._engine.dispose()
