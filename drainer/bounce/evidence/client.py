"""The evidence process, as a drain sees it: ask about several messages at once.

dkimpy and pyspf hold the interpreter's lock while they compute, so a thread would stall
every session. Each answer must be plain data of the expected type; otherwise a new
process repeats the unanswered tasks.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TypeVar

from drainer.bounce.evidence.request import EvidenceSettings, SenderQuestion
from drainer.bounce.evidence.tasks import MAX_ANSWER_BYTES, EvidenceResult, EvidenceTask
from drainer.errors import DrainerError, UsageError
from drainer.policy.bounce.facts import Reachability, SenderFacts
from drainer.runtime.frames import FrameError, read
from drainer.runtime.ipc import decode, frame_value, value_reader
from drainer.runtime.workers import WorkerProcess, start

if TYPE_CHECKING:
    from drainer.bounce.evidence.mx import MxTargets

T = TypeVar("T")

COMPUTE_SECONDS = 30.0
"""Seconds for one message, besides the time for DNS."""
QUICK_DNS_SECONDS = 1.0
QUICK_COMPUTE_SECONDS = 5.0
"""Seconds for a first check, so that a slow domain is set aside soon."""
AT_ONCE = 16
"""Messages that are checked together."""

_GRACE_SECONDS = 10.0
_PIPE_LIMIT = 1024 * 1024
_TRIES = 2
"""A process that dies takes all its tasks with it, and one of them may be the cause."""


class EvidenceWorker:
    """Asks the evidence process; an async context manager."""

    def __init__(
        self,
        settings: EvidenceSettings,
        *,
        compute_seconds: float = COMPUTE_SECONDS,
        start_worker: Callable[[], WorkerProcess] = start,
    ) -> None:
        """Start nothing yet; a message may compute for ``compute_seconds``."""
        self._settings = settings
        self._compute = compute_seconds
        self._start_worker = start_worker
        self._places = asyncio.Semaphore(AT_ONCE)
        #: The present process; a task, so that it starts even if no question waits.
        self._process: asyncio.Task[_Process] | None = None

    async def __aenter__(self) -> Self:
        """Return itself; the process starts with the first question."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """End the process; another question starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(DrainerError, _ProcessFailure):
                await (await process).end()

    async def facts(
        self, question: SenderQuestion, *, quick: bool = False
    ) -> SenderFacts:
        """Return the facts about one message; a ``quick`` check waits for less.

        A message whose checks take too long, or end their process, has no evidence: a
        new check would have the same result. Other messages are not affected.
        """
        try:
            return await self._do(SenderFacts, quick=quick, question=question)
        except _NotDone as error:
            return _nothing(question, str(error))

    async def relays(self, domain: str) -> "MxTargets":
        """Return the mail servers of a domain, as far as DNS answers soon."""
        # dnspython takes a tenth of what a drain loads; most have a relay.
        from drainer.bounce.evidence.mx import MxTargets  # noqa: PLC0415

        try:
            return await self._do(MxTargets, quick=True, domain=domain)
        except _NotDone as error:
            return MxTargets(problem=str(error), later=True)

    async def _do(
        self,
        kind: type[T],
        *,
        quick: bool,
        question: SenderQuestion | None = None,
        domain: str = "",
    ) -> T:
        """Return the answer to a task; raise _NotDone if there is none of this type."""
        budget, compute = self._settings.servers.budget, self._compute
        if quick:
            budget = min(budget, QUICK_DNS_SECONDS)
            compute = min(compute, QUICK_COMPUTE_SECONDS)
        async with self._places:
            for _ in range(_TRIES):
                with contextlib.suppress(_ProcessFailure):
                    process = await self._running()
                    task = EvidenceTask(
                        id=process.next_id(),
                        dns_seconds=budget,
                        compute_seconds=compute,
                        question=question,
                        domain=domain,
                    )
                    return await process.do(task, kind)
        raise _NotDone(_FAILED)

    async def _running(self) -> "_Process":
        """Return a running process; a new one if the last has ended."""
        process = self._process
        if process is None or _has_failed(process):
            process = self._process = asyncio.create_task(self._replace(process))
        return await asyncio.shield(process)

    async def _replace(self, last: "asyncio.Task[_Process] | None") -> "_Process":
        if last is not None and last.exception() is None:
            await last.result().end()
        return await _Process.start(self._settings, self._start_worker)


_FAILED = "the checks failed"


class _NotDone(Exception):
    """A task failed, for the reason in the text."""


class _ProcessFailure(Exception):
    """The evidence process ended, or sent invalid data."""


class _Process:
    def __init__(
        self,
        worker: WorkerProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.pid = worker.pid
        self.has_failed = False
        self._worker = worker
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._error: Exception = _ProcessFailure()
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def start(
        cls, settings: EvidenceSettings, start_worker: Callable[[], WorkerProcess]
    ) -> Self:
        """Start it, and send it the settings; raise HostLimit."""
        worker = await asyncio.to_thread(start_worker)  # the first one takes a while
        link = worker.begin("evidence", settings)
        reader, writer = await asyncio.open_connection(sock=link, limit=_PIPE_LIMIT)
        return cls(worker, reader, writer)

    def next_id(self) -> int:
        """Return the number of the next task."""
        return next(self._ids)

    async def do(self, task: EvidenceTask, kind: type[T]) -> T:
        """Return the answer; cancelling ends the process of that message.

        Raises _NotDone for a task that failed, _ProcessFailure, and UsageError.
        """
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[task.id] = answer
        limit = task.dns_seconds + task.compute_seconds + _GRACE_SECONDS
        try:
            # Not wait_for: before Python 3.12 it loses a cancellation that meets the
            # answer, and a drain would wait for this forever.
            async with asyncio.timeout(limit):
                if not self.has_failed:
                    self._writer.write(frame_value(task))
                    await self._writer.drain()
                    return decode(await answer, kind)
        except FrameError:
            raise _NotDone(_FAILED) from None
        except (TimeoutError, ConnectionError):
            self.has_failed = True
        except asyncio.CancelledError:
            if not self.has_failed:
                # Without its question, which may be large.
                end = EvidenceTask(
                    id=task.id, dns_seconds=0, compute_seconds=0, cancelled=True
                )
                self._writer.write(frame_value(end))
            raise
        finally:
            self._waiting.pop(task.id, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # it was taken, or is not wanted any more
        raise self._error

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Give each answer to the task that waits for it, until there are no more."""
        results = value_reader(EvidenceResult, MAX_ANSWER_BYTES + 1024)
        try:
            while True:
                result = await read(reader, results)
                if result.id == 0:
                    self._error = UsageError(result.problem, hint=result.hint)
                    break
                self._settle(result)
        except (FrameError, EOFError, OSError):
            pass
        finally:
            self.has_failed = True
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(self._error)

    def _settle(self, result: EvidenceResult) -> None:
        answer = self._waiting.get(result.id)
        if answer is None or answer.done():
            return  # it was cancelled
        if result.problem:
            answer.set_exception(_NotDone(result.problem))
        else:
            answer.set_result(result.value)

    async def end(self) -> None:
        """End it, and with it the processes of its messages."""
        self.has_failed = True
        self._writer.close()
        self._worker.kill()
        await asyncio.to_thread(self._worker.wait)
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading


def _has_failed(process: asyncio.Task[_Process]) -> bool:
    """Return whether a process could not start, or has ended."""
    if not process.done():
        return False
    return process.exception() is not None or process.result().has_failed


def _nothing(question: SenderQuestion, reason: str) -> SenderFacts:
    return SenderFacts(
        reverse_path=question.reverse_path,
        client=question.client,
        login=question.login,
        reach=Reachability.LATER,
        skipped={f"V{n}": reason for n in range(3, 7)},
    )
