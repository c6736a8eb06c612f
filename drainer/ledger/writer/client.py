"""The client of the ledger's writer, a process of its own (ledger.writer.process).

The client sends operations together. It sends them at the end of a turn of the event
loop, if ``quorum`` of them are there. It sends them at once when there are more than a
message needs and ``quorum`` as well, or when the first has waited for GATHER seconds.
So 20 sessions share a commit, and one session alone never waits for others. Where
operations come too slowly for a quorum in that time, as over a distance, the first
waits for SOON seconds only.

Their outcomes come back in the same order. The process shares no interpreter with the
sessions, so neither waits for the other. It lives while this end of its socket is open:
when this process is killed, it commits what had been sent and ends.
"""

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import URL

from drainer.errors import LedgerLost
from drainer.ledger.records import WriteOutcome
from drainer.runtime.frames import frame_pickle, pickle_reader
from drainer.runtime.workers import WorkerProcess, start

GATHER, SOON = 0.010, 0.0005
LATEST = 1 / 8
"""How much the operations that were sent last say about the pace of the next ones."""
EARLY = 8
"""With fewer operations than this, wait: what one message needs is one commit."""

Then = Callable[[WriteOutcome], None]
"""Gets the result of an operation."""


class WriterClient(asyncio.Protocol):
    """Sends operations to the process that owns the write connection."""

    def __init__(
        self, url: URL, run: str, lock: int, spare_worker: WorkerProcess | None = None
    ) -> None:
        """Start nothing yet; the process will hold the descriptor ``lock`` open.

        ``run`` is whose commits these are; ``spare_worker`` is a worker process to use.
        """
        self._url = url
        self._run = run
        self._lock = lock
        self._worker = spare_worker
        #: Asking for the running one costs a system call, every time.
        self._loop: asyncio.AbstractEventLoop
        self._transport: asyncio.WriteTransport | None = None
        self._frames = pickle_reader()
        self._outgoing: list[object] = []
        self._awaited: deque[Then] = deque()
        self._timer: asyncio.TimerHandle | None = None
        #: When operations were sent last, and in how many seconds one more comes.
        self._sent_at = 0.0
        self._pace = 0.0
        self._ended = asyncio.Event()
        self._stopping = False
        self._broken: LedgerLost | None = None
        #: How many waiting operations are worth a commit.
        self.quorum = 1
        self.commits = 0

    async def start(self) -> None:
        """Start the process; outcomes come to the running event loop."""
        worker = self._worker = self._worker or start()
        url = self._url.render_as_string(hide_password=False)
        link = worker.begin("write", (url, self._run), [self._lock])
        loop = self._loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        transport, _ = await loop.create_connection(lambda: self, sock=link)
        self._transport = transport

    def submit(self, operation: object) -> asyncio.Future[Any]:
        """Queue an operation; the future is done when it is durable.

        Raises LedgerLost at once when the ledger has failed before. It need not be
        awaited: the next submission reports such a failure.
        """
        future = self._loop.create_future()
        self.post(operation, functools.partial(_resolve, future))
        return future

    def post(self, operation: object, then: Then) -> None:
        """Queue an operation likewise; ``then`` is called instead."""
        if self._broken is not None:
            raise self._broken
        if not self._outgoing:
            self._loop.call_soon(self._gather)
        self._outgoing.append(operation)
        self._awaited.append(then)
        if len(self._outgoing) >= max(EARLY, self.quorum):
            self._send()

    def has_failed(self) -> bool:
        """Whether the ledger has failed before."""
        return self._broken is not None

    async def stop(self) -> None:
        """Let the process commit what was sent, and end."""
        if self._transport is None or self._worker is None:
            return
        self._send()
        self._stopping = True
        if not self._transport.is_closing():
            self._transport.write_eof()
        await self._ended.wait()
        await asyncio.to_thread(self._worker.wait)

    def _gather(self) -> None:
        """Send what one turn gathered, if it is worth a commit; else wait for more."""
        if len(self._outgoing) >= self.quorum:
            self._send()
        elif self._outgoing and self._timer is None:
            is_near = self._pace * self.quorum <= GATHER
            self._timer = self._loop.call_later(GATHER if is_near else SOON, self._send)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is None or self._transport.is_closing():
            return  # connection_lost reports to all that wait
        if self._outgoing:
            now = self._loop.time()
            pace = (now - self._sent_at) / len(self._outgoing)
            self._pace += (pace - self._pace) * LATEST
            self._sent_at = now
            self._transport.write(frame_pickle(self._outgoing))
            self._outgoing = []

    # --- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Take outcomes."""
        for commits, outcomes in self._frames.feed(data):
            self.commits = commits
            for outcome in outcomes:
                self._tell(outcome)

    def connection_lost(self, _error: Exception | None) -> None:
        """Fail what is still awaited: it may or may not be durable."""
        if self._awaited or not self._stopping:
            self._broken = self._broken or LedgerLost(
                "the process that writes the ledger ended unexpectedly",
                hint="see above, or the kernel's log, for why; then run the same"
                " command again",
            )
        self._outgoing = []
        while self._awaited:
            self._tell(WriteOutcome(None, self._broken))
        self._ended.set()

    def _tell(self, outcome: WriteOutcome) -> None:
        if isinstance(outcome.error, LedgerLost):
            self._broken = outcome.error
        then = self._awaited.popleft()
        try:
            then(outcome)
        except Exception as error:  # noqa: BLE001 - the others must still get theirs
            message = "the receiver of an outcome failed"
            self._loop.call_exception_handler({"message": message, "exception": error})


def _resolve(future: asyncio.Future[Any], outcome: WriteOutcome) -> None:
    if future.done():
        return
    if outcome.error is None:
        future.set_result(outcome.result)
    else:
        future.set_exception(outcome.error)
        future.exception()  # so that asyncio does not complain when it is not awaited
