"""The process that writes: many sessions, one transaction, one fsync.

A worker process: operations arrive on its socket (drainer.ledger.writer.client says
when), and their outcomes go back on it. Everything that has arrived during a commit
shares the next one.

When a commit fails because the disk is full or the server is away, the writer tries
again for a while. Then it gives up: every operation, now and later, gets LedgerLost,
and nothing more is sent. Each transaction carries its number, in the row of its run: a
commit whose reply was lost is found there, and not repeated. A server that has
forgotten a commit, after a failover to an older copy, counts as lost.
"""

import contextlib
import itertools
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
import tenacity
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
)

from drainer.errors import DrainerError, LedgerError, LedgerLost
from drainer.ledger import engine, runs
from drainer.ledger.owner import GIVE_UP_AFTER, RECONNECT_FOR
from drainer.ledger.records import StateConflict, WriteOutcome
from drainer.ledger.writer.batch import WriteBatch
from drainer.runtime import databases
from drainer.runtime.frames import frame_pickle, pickle_reader
from drainer.runtime.process import tune_gc

_RECEIVE_BYTES = 1 << 20
_DONE = WriteOutcome(None)
"""The result of most operations: one object, so that it travels once."""
CYCLES = 20_000
"""Objects: SQLAlchemy leaves cycles behind, some 70 MB of them in 100,000."""

Apply = Callable[[sa.Connection, Sequence[Any]], list[Any]]


class WriterInbox:
    """Operations as they arrive."""

    def __init__(self, link: socket.socket) -> None:
        """Listen to the socket."""
        self._link = link
        self._frames = pickle_reader()
        #: The other end has nothing more to send, or has died.
        self.ended = False

    def take(self) -> list[Any]:
        """Wait for operations, and take all that are there; empty only at the end."""
        batch: list[Any] = []
        self._link.settimeout(None)
        while not self.ended:
            try:
                data = self._link.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError:  # it died with outcomes unread
                data = b""
            self.ended = not data
            batch += itertools.chain.from_iterable(self._frames.feed(data))
            self._link.settimeout(0 if batch else None)
        return batch


class Committer:
    """Owns the write connection."""

    def __init__(self, connection: sa.Connection, run: str, apply: Apply) -> None:
        """Keep the run whose commits these are, and what executes a batch."""
        self._connection = connection
        self._run = run
        self._apply = apply
        #: Results of a commit that failed, or of which no answer came.
        self._doubtful: list[Any] | None = None
        self._broken: LedgerLost | None = None
        self._url = connection.engine.url
        self._file = engine.file_id(self._url)
        limit = GIVE_UP_AFTER if self._file else RECONNECT_FOR
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_exponential(0.05, max=1),
            stop=tenacity.stop_after_delay(limit),
            reraise=True,
        )
        self.commits = 0

    def commit(self, batch: list[Any]) -> list[WriteOutcome]:
        """Execute and commit operations; return an outcome for each, in order."""
        if self._broken is not None:
            return [WriteOutcome(None, self._broken)] * len(batch)
        try:
            results = self._attempt(batch)
            return [_DONE if each is None else WriteOutcome(each) for each in results]
        except LedgerLost as error:
            return [self._fail(error)] * len(batch)
        except (StateConflict, DrainerError):
            return [self._singly(operation) for operation in batch]
        except Exception as error:  # noqa: BLE001 - a dead writer would hang all
            return [self._fail(error)] * len(batch)

    def _attempt(self, operations: list[Any]) -> list[Any]:
        """Execute and commit one transaction; try again for some time."""
        self._doubtful, number = None, self.commits + 1
        try:  # tenacity alone would take a tenth of the time of a commit
            results = self._transact(operations, number)
        except DBAPIError as error:
            if not _may_pass(error):
                raise
            results = self._retrying(self._transact, operations, number)
        self.commits += 1
        return results

    def _transact(self, operations: list[Any], number: int) -> list[Any]:
        if engine.file_id(self._url) != self._file:
            message = f"the ledger {self._url.database} was removed or replaced"
            hint = "put it back, then run the same command again"
            raise LedgerLost(message, hint=hint)
        with self._connection.begin():
            before = self._doubtful
            if before is not None and self._is_there(number):
                return before
            self._doubtful = None
            results = self._apply(self._connection, operations)
            runs.count_commit(self._connection, self._run, number)
            self._doubtful = results
        return results

    def _is_there(self, number: int) -> bool:
        return runs.last_commit(self._connection, self._run) == number

    def _singly(self, operation: object) -> WriteOutcome:
        """After a conflict or a refusal, find out which operation caused it."""
        if self._broken is not None:
            return WriteOutcome(None, self._broken)
        try:
            return WriteOutcome(self._attempt([operation])[0])
        except LedgerLost as error:
            return self._fail(error)
        except (StateConflict, DrainerError) as refusal:
            return WriteOutcome(None, refusal)
        except Exception as error:  # noqa: BLE001 - likewise
            return self._fail(error)

    def _fail(self, error: Exception) -> WriteOutcome:
        if not isinstance(error, LedgerLost):
            error = engine.explain_loss(self._url, error)
        self._broken = error
        return WriteOutcome(None, self._broken)


def _may_pass(error: BaseException) -> bool:
    """Whether the same transaction may succeed in a moment."""
    if not isinstance(error, DBAPIError) or databases.is_refused(error):
        return False
    passing = isinstance(error, OperationalError | InterfaceError | InternalError)
    return passing or error.connection_invalidated


def serve(link: socket.socket, order: tuple[str, str], lock: Sequence[int]) -> int:
    """Commit what arrives on the link until the other end has ended (workers.JOBS).

    ``order`` is the ledger's URL and the run; ``lock`` is the owner's, held to the end.
    """
    url, run = order
    tune_gc(CYCLES)
    try:
        ledger = engine.connect(make_url(url), create=False, patience=RECONNECT_FOR)
    except LedgerError as error:
        print(f"drainer: {error}", file=sys.stderr)  # noqa: T201
        return 1
    inbox = WriterInbox(link)
    with ledger.execution_options(writes=True).connect() as connection:
        committer = Committer(connection, run, WriteBatch())
        while batch := inbox.take():
            outcomes = committer.commit(batch)
            link.settimeout(None)
            with contextlib.suppress(OSError):  # the reader has already ended
                link.sendall(frame_pickle((committer.commits, outcomes)))
    for descriptor in lock:
        os.close(descriptor)
    return 0
