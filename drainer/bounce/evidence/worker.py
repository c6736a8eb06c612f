"""The evidence process: it takes tasks from the drain, and asks DNS for all of them.

For each task it forks a process that parses the message. That process can be killed
without loss to the others, and reaches DNS only through this one.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

from drainer.bounce.evidence.dns import NO_TIME, DnsAnswer, Resolver
from drainer.bounce.evidence.gather import gather
from drainer.bounce.evidence.mx import relays_of
from drainer.bounce.evidence.request import EvidenceSettings
from drainer.bounce.evidence.shared_dns import SharedResolver
from drainer.bounce.evidence.tasks import (
    MAX_ANSWER_BYTES,
    MAX_TASK_BYTES,
    EvidenceResult,
    EvidenceTask,
    WorkerRequest,
)
from drainer.errors import UsageError
from drainer.runtime.frames import FrameError, read, receive
from drainer.runtime.ipc import encode, frame_value, value_reader

MEMORY_BYTES = 2 * 1024**3
"""Bytes of address space of each process."""
MAX_REQUESTS = 500
"""DNS questions that one message may cause."""
_LIMIT = 1024 * 1024
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


# ---- the process of one message


def _be_child(
    link: socket.socket, parent: int, settings: EvidenceSettings, task: EvidenceTask
) -> NoReturn:
    """Check one message, send what was found, and end."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        _end_with(parent)
        os.dup2(link.fileno(), 0)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        with socket.socket(fileno=0) as own:
            _look(own, settings, task)
        status = 0
    except (EOFError, OSError):
        pass  # the task was cancelled
    except BaseException:  # noqa: BLE001 - nothing of the parent may run on here
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


def _end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, even by SIGKILL.

    Raises EOFError when the parent has ended already (prctl(2)).
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise EOFError


def _look(link: socket.socket, settings: EvidenceSettings, task: EvidenceTask) -> None:
    answers = value_reader(DnsAnswer, MAX_ANSWER_BYTES)

    def resolve(name: str, kind: str, seconds: float) -> DnsAnswer:
        link.sendall(frame_value(WorkerRequest(name=name, kind=kind, seconds=seconds)))
        return receive(link, answers)

    dns = Resolver(settings.servers, resolve)
    found: object
    if task.question is not None:
        found = gather(dns, settings, task.question)
    else:
        own = frozenset((settings.hostname.lower(),))
        found = relays_of(dns, task.domain, own, private=settings.private)
    link.sendall(frame_value(WorkerRequest(value=encode(found))))


# ---- the evidence process


class EvidenceServer:
    """Serves one drain."""

    def __init__(
        self, settings: EvidenceSettings, writer: asyncio.StreamWriter
    ) -> None:
        """Prepare; raise UsageError if there is no DNS server to ask."""
        self._settings = settings
        self._writer = writer
        self._dns = SharedResolver(settings.servers)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Do tasks, several at once, until the drain closes its end."""
        tasks = value_reader(EvidenceTask, MAX_TASK_BYTES)
        async with asyncio.TaskGroup() as group:
            with contextlib.suppress(EOFError, ConnectionError):
                while True:
                    task = await read(reader, tasks)
                    if not task.cancelled:
                        self._tasks[task.id] = group.create_task(self._do(task))
                    elif running := self._tasks.get(task.id):
                        running.cancel()
            for each in self._tasks.values():
                each.cancel()

    async def _do(self, task: EvidenceTask) -> None:
        limit = task.dns_seconds + task.compute_seconds
        problem = value = None
        try:
            async with asyncio.timeout(limit):
                value = await self._found(task)
        except TimeoutError:
            problem = "the checks took too long"
        except (FrameError, OSError, EOFError):
            problem = "the checks failed"
        finally:
            del self._tasks[task.id]
        result = EvidenceResult(id=task.id, value=value or b"", problem=problem or "")
        self._writer.write(frame_value(result))
        await self._writer.drain()

    async def _found(self, task: EvidenceTask) -> bytes:
        """Return what the process of a message found, as it encoded it."""
        link, pid = self._fork(task)
        requests = value_reader(WorkerRequest, MAX_ANSWER_BYTES)
        writer = None
        try:
            reader, writer = await asyncio.open_connection(sock=link, limit=_LIMIT)
            left = task.dns_seconds
            for _ in range(MAX_REQUESTS):
                request = await read(reader, requests)
                if request.value is not None:
                    return request.value
                started = time.monotonic()
                writer.write(frame_value(await self._ask(request, left)))
                left -= time.monotonic() - started
            raise FrameError(f"more than {MAX_REQUESTS} questions to DNS")
        finally:
            (writer or link).close()
            _end(pid)

    async def _ask(self, request: WorkerRequest, left: float) -> DnsAnswer:
        seconds = min(request.seconds, left)
        if seconds <= 0:
            return NO_TIME
        return await self._dns.ask(request.name, request.kind, seconds)

    def _fork(self, task: EvidenceTask) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        own = os.getpid()
        with theirs:
            pid = os.fork()
            if pid == 0:
                _be_child(theirs, own, self._settings, task)
        return ours, pid


def _end(pid: int) -> None:
    """Kill one of our processes and wait for it; nothing has waited for it before."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


async def _serve(link: socket.socket, settings: EvidenceSettings) -> None:
    reader, writer = await asyncio.open_connection(sock=link, limit=_LIMIT)
    try:
        evidence = EvidenceServer(settings, writer)
    except UsageError as error:
        result = EvidenceResult(id=0, problem=str(error), hint=error.hint)
        writer.write(frame_value(result))
        await writer.drain()
    else:
        await evidence.serve(reader)
    finally:
        writer.close()


def serve(link: socket.socket, order: EvidenceSettings, _: Sequence[int]) -> int:
    """Do tasks until the drain closes its end of the link (workers.JOBS)."""
    os.dup2(2, 1)  # what a library prints is not a result of the command
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    gc.freeze()  # so that forked processes have less to copy
    with contextlib.suppress(ConnectionError):
        asyncio.run(_serve(link, order))
    return 0
