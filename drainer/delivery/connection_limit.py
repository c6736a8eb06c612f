"""How many sessions there may be now, and which one is too many."""

import asyncio
import sys
from typing import Any

from drainer.delivery.pacing.controller import RateController


class ConnectionLimit:
    """The limit of one drain: by settings, by the rate controller, and by this host."""

    def __init__(self, configured: int, rate_controller: RateController) -> None:
        """Start with the ``configured`` number."""
        self._configured = configured
        self._rate_controller = rate_controller
        self._by_host = sys.maxsize
        #: The number of each task that opens sessions, from 0.
        self._numbers: dict[asyncio.Task[Any] | None, int] = {}

    def number_task(self, number: int) -> None:
        """Give the current task its number: the highest ones wait first."""
        self._numbers[asyncio.current_task()] = number

    @property
    def is_surplus(self) -> bool:
        """Whether the current task's session is one more than there may be."""
        allowed = min(self._rate_controller.connections, self._by_host)
        if allowed >= self._configured:
            return False  # without asking for the task, at every message
        return self._numbers.get(asyncio.current_task(), 0) >= allowed

    def lower(self, connections: int) -> bool:
        """Allow only what this host can have; return False if that changes nothing."""
        if connections >= self._by_host:
            return False
        self._by_host = connections
        return True
