"""Threads beside the event loop, started where that cannot hang.

Out of memory, ``threading.Thread.start`` waits without end for a thread that died
before it could say that it runs (CPython gh-140746). So all threads of an event loop
start before it does, and any other one by ``start_thread``.
"""

import _thread
import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from drainer.runtime.host_limits import no_process

T = TypeVar("T")

START_SECONDS = 10.0
"""A thread that does not run by then has died; a busy host needs milliseconds."""
_POOL = min(32, (os.cpu_count() or 1) + 4)
"""The threads of an event loop: as many as it would start itself, one by one."""
_LIBUV = 4
"""Threads that libuv starts; without them it aborts the process, without a message."""


def start_thread(work: Callable[[], object]) -> None:
    """Do it in a thread that does not keep the process from ending.

    Raises RuntimeError or MemoryError if the thread does not start.
    """
    runs = threading.Event()

    def run() -> None:
        runs.set()
        work()

    _thread.start_new_thread(run, ())
    if not runs.wait(START_SECONDS):
        raise MemoryError


@contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """Have the threads of an event loop, all of them started; HostLimit if impossible.

    At the end of the block they finish their work.
    """
    _require(_POOL + _LIBUV)
    with ThreadPoolExecutor(_POOL) as pool:
        enough = threading.Event()
        for _ in range(_POOL):
            pool.submit(enough.wait)  # none is idle: it starts another
        enough.set()
        yield pool


def _require(count: int) -> None:
    """Raise HostLimit where this process cannot have so many threads."""
    enough, ended = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        enough.wait()
        ended.release()

    started = 0
    try:
        while started < count:
            start_thread(wait)
            started += 1
    except (RuntimeError, MemoryError) as error:
        raise no_process(error) from None
    finally:
        enough.set()
        for _ in range(started):
            ended.acquire()


async def aside(work: Callable[[], T], limit: float | None) -> T:
    """Run it in a thread of its own; return or raise what it returns or raises.

    Raises TimeoutError after ``limit`` seconds; None: no limit. If it is cancelled or
    too late, the thread continues alone and does not keep the process from ending: a
    dead file server may never answer.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type] # None only if T has it

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - for the caller
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    start_thread(run)
    async with asyncio.timeout(limit):
        return await done
