"""An event loop whose clock moves only when every task waits for it."""

import asyncio
import math
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
TICK = 1e-7
"""How long one turn of the loop takes, so that time goes on even without timers."""


class _Selector(selectors.SelectSelector):
    """Turns waiting into time."""

    def __init__(self, coarse: float) -> None:
        super().__init__()
        self.now = 1000.0
        self._coarse = coarse

    def select(self, timeout: float | None = None) -> Any:
        """Let the time pass, rounded up as an operating system's timers are."""
        if timeout is None:
            raise RuntimeError("every task waits for something that will never happen")
        if timeout > 0 and self._coarse:
            timeout = math.ceil(timeout / self._coarse) * self._coarse
        self.now += max(0.0, timeout) + TICK
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """No time passes in reality; ``coarse`` is the resolution of its timers."""

    def __init__(self, coarse: float = 0.0) -> None:
        self._virtual = _Selector(coarse)
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the virtual time."""
        return self._virtual.now


def run(doing: Coroutine[Any, Any, T], *, coarse: float = 0.0) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(coarse)) as runner:
        return runner.run(doing)
