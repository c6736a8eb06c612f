"""No memory for another thread: an event loop works on, and nothing waits for it."""

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from drainer.cli.event_loop import run_loop
from drainer.runtime import threads

TIMEOUT: Final = 90


def use_all_memory() -> list[object]:
    """Return what fills the memory of this process; small objects still fit."""
    room = [bytes(size) for size in range(100, 3000, 10)]
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), hard))
    filling: list[object] = []
    size = 1 << 20
    while size > 8:
        try:
            filling.append(bytes(size))
        except MemoryError:
            size //= 2
    room.clear()
    return filling


def block_without_memory() -> None:
    """Call something that blocks, in an event loop, and end the loop."""

    async def main() -> tuple[int, list[object]]:
        filling = use_all_memory()
        return await asyncio.to_thread(len, "four"), filling

    length, _ = run_loop(main)
    os._exit(length)


def start_without_memory() -> None:
    """Start a thread that has no memory but its stack."""
    with threads.thread_pool():  # libc keeps the stacks of its threads
        pass
    threads.START_SECONDS = 0.5
    filling = use_all_memory()
    try:
        threads.start_thread(filling.clear)
    except MemoryError:
        os._exit(5)


@pytest.mark.parametrize(
    ("work", "status"), [(block_without_memory, 4), (start_without_memory, 5)]
)
def test_out_of_memory_no_thread_is_waited_for(
    work: Callable[[], None], status: int
) -> None:
    """Python itself would wait without end for a thread that died as it started."""
    code = f"from {__name__} import {work.__name__} as work; work()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == status, done.stderr
