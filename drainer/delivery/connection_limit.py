"""How many sessions there may be now, and which one is too many."""

import asyncio
import sys
import time
from typing import Any

from drainer.delivery.pacing.controller import RateController

REGAIN = 60.0
"""Seconds after which one session more is tried than a limit that was met."""


class ConnectionLimit:
    """The limit of one drain: by settings, by the rate controller, and as met."""

    def __init__(self, configured: int, rate_controller: RateController) -> None:
        """Start with the ``configured`` number."""
        self._configured = configured
        self._rate_controller = rate_controller
        self._met = sys.maxsize
        self._met_at = 0.0
        #: The number of each task that opens sessions, from 0.
        self._numbers: dict[asyncio.Task[Any] | None, int] = {}

    def number_task(self, number: int) -> None:
        """Give the current task its number: the highest ones wait first."""
        self._numbers[asyncio.current_task()] = number

    @property
    def allowed(self) -> int:
        """How many sessions there may be."""
        regained = int((time.monotonic() - self._met_at) / REGAIN)
        found = min(self._rate_controller.connections, self._met + regained)
        return min(found, self._configured)

    @property
    def is_surplus(self) -> bool:
        """Whether the current task's session is one more than there may be."""
        allowed = self.allowed
        if allowed >= self._configured:
            return False  # without asking for the task, at every message
        return self._numbers.get(asyncio.current_task(), 0) >= allowed

    def lower(self, connections: int) -> bool:
        """Allow only this many for now; return False if that changes nothing."""
        if connections >= self.allowed:
            return False
        self._met, self._met_at = connections, time.monotonic()
        return True
