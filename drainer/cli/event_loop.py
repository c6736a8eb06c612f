"""The event loop of the commands that send mail."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from drainer.runtime.host_limits import affordable, no_descriptor
from drainer.runtime.threads import thread_pool

T = TypeVar("T")


class _EventLoop(uvloop.Loop):
    """An event loop that starts no thread."""

    async def shutdown_default_executor(self, *_: object) -> None:
        """Leave it to the owner of the threads: this would take one more."""


def run_loop(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end; HostLimit when this host lacks a resource."""
    if not affordable(1):
        raise no_descriptor()
    with thread_pool() as threads, asyncio.Runner(loop_factory=_EventLoop) as runner:
        runner.get_loop().set_default_executor(threads)
        return runner.run(main())
