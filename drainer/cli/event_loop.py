"""The event loop of the commands that send mail."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from drainer.runtime.host_limits import affordable, no_descriptor, require_threads

T = TypeVar("T")


def run_loop(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end; HostLimit when this host lacks a resource.

    Without this check, libuv would abort the process without a message.
    """
    if not affordable(1):
        raise no_descriptor()
    require_threads()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
