"""The one thread that writes: many sessions, one transaction, one fsync.

Operations queue up; a commit starts when ``quorum`` of them have somebody
waiting, or when the first has waited for GATHER seconds. So 20 sessions share a
commit, and one session alone never waits for company.

When a commit fails for want of space or the like it is tried again for a while;
then the writer gives up for good: every waiter, now and later, gets
LedgerUnwritable, and nothing more is sent.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
import tenacity
from sqlalchemy.exc import OperationalError

from drainer.errors import DrainerError, LedgerUnwritable

GATHER = 0.010
GIVE_UP_AFTER = 5.0


class Conflict(Exception):
    """A guarded update met another state: somebody else was there."""


Apply = Callable[[sa.Connection, Sequence[Any]], list[Any]]
_Item = tuple[Any, asyncio.Future[Any] | None]


class Writer:
    """Owns the write connection and its thread."""

    def __init__(self, engine: sa.Engine, apply: Apply) -> None:
        """Start nothing yet; ``apply`` executes a batch and returns its results."""
        self._engine = engine.execution_options(writes=True)
        self._apply = apply
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._broken: LedgerUnwritable | None = None
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(OperationalError),
            wait=tenacity.wait_exponential(0.05, max=1),
            stop=tenacity.stop_after_delay(GIVE_UP_AFTER),
            reraise=True,
        )
        #: How many waiting operations are worth a commit.
        self.quorum = 1
        self.commits = 0

    def start(self) -> None:
        """Start the thread; results go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, operation: object) -> asyncio.Future[Any]:
        """Queue an operation; the future is done when it is durable.

        Raises LedgerUnwritable at once when the ledger has failed before.
        """
        if self._broken is not None:
            raise self._broken
        assert self._loop is not None  # noqa: S101 - start() comes first
        future = self._loop.create_future()
        self._queue.put((operation, future))
        return future

    async def stop(self) -> None:
        """Commit what is queued, then end the thread."""
        if not self._thread.is_alive():
            return
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        with self._engine.connect() as connection:
            going = True
            while going:
                batch, going = self._gather()
                if batch:
                    self._commit(connection, batch)

    def _gather(self) -> tuple[list[_Item], bool]:
        first = self._queue.get()
        if first is None:
            return [], False
        batch = [first]
        deadline = time.monotonic() + GATHER
        while True:
            wait = 0.0
            if len(batch) < self.quorum:
                wait = max(0.0, deadline - time.monotonic())
            try:
                item = (
                    self._queue.get(timeout=wait)
                    if wait
                    else (self._queue.get_nowait())
                )
            except queue.Empty:
                return batch, True
            if item is None:
                return batch, False
            batch.append(item)

    def _commit(self, connection: sa.Connection, batch: list[_Item]) -> None:
        if self._broken is not None:  # it was queued before that was known
            self._resolve([(future, None, self._broken) for _, future in batch])
            return
        try:
            results = self._attempt(connection, [item[0] for item in batch])
        except (Conflict, DrainerError):
            self._commit_singly(connection, batch)
        except Exception as error:  # noqa: BLE001 - a dead writer would hang all
            self._fail(batch, error)
        else:
            self._resolve(
                [
                    (f, result, None)
                    for (_, f), result in zip(batch, results, strict=True)
                ]
            )

    def _attempt(self, connection: sa.Connection, operations: list[Any]) -> list[Any]:
        """Execute and commit one transaction; a sick database gets some seconds."""
        results = self._retrying(self._transact, connection, operations)
        self.commits += 1
        return results

    def _transact(self, connection: sa.Connection, operations: list[Any]) -> list[Any]:
        with connection.begin():
            return self._apply(connection, operations)

    def _commit_singly(self, connection: sa.Connection, batch: list[_Item]) -> None:
        """After a conflict or a refusal: find out which operation it was."""
        for operation, future in batch:
            try:
                result = self._attempt(connection, [operation])[0]
            except (Conflict, DrainerError) as refusal:
                self._resolve([(future, None, refusal)])
            except Exception as error:  # noqa: BLE001 - likewise
                self._fail([(operation, future)], error)
            else:
                self._resolve([(future, result, None)])

    def _fail(self, batch: list[_Item], error: Exception) -> None:
        reason = getattr(error, "orig", None) or error
        if isinstance(error, OperationalError) or self._broken is None:
            self._broken = LedgerUnwritable(
                f"the ledger cannot be written: {reason}",
                hint="make room or repair it, then run the same command again",
            )
        self._resolve([(future, None, self._broken) for _, future in batch])

    def _resolve(
        self,
        outcomes: list[tuple[asyncio.Future[Any] | None, Any, Exception | None]],
    ) -> None:
        def settle() -> None:
            for future, result, error in outcomes:
                if future is None or future.done():
                    continue
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

        assert self._loop is not None  # noqa: S101 - start() comes first
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(settle)
