"""How long a watch waits for an unreachable ledger, and what it reports meanwhile.

At its start the watch waits; systemd gives it more time with each sign of life. While
it runs, it counts from the first failure. In the end it fails, and is restarted.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from drainer.errors import LedgerError, LedgerLost
from drainer.runtime.units import describe_duration
from drainer.watch.systemd import Notifier

T = TypeVar("T")

SIGN_OF_LIFE = 1.0
"""Seconds between two signs of life."""
SAY_EVERY = 60.0
"""Seconds between two log lines about the same outage."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two attempts, at most: at first, and in the end."""

_log = logging.getLogger(__name__)


class LedgerOutage:
    """Waits for the ledger of one watch."""

    def __init__(self, limit: timedelta, notifier: Notifier) -> None:
        """Wait at most this long."""
        self.limit = limit
        self._notifier = notifier
        self._since: float | None = None
        self._said = -SAY_EVERY
        #: The error that ends the watch: the ledger was unreachable for too long.
        self.error: LedgerLost | None = None

    async def open(self, make: Callable[[], T], ending: asyncio.Event) -> T | None:
        """Return what ``make`` opens; None if ``ending`` is set before.

        ``make`` runs in a thread. Raises LedgerLost when the time is over.
        """
        longest = FIRST_PAUSE
        while not ending.is_set():
            self._notifier.extend_start()
            try:
                made = await asyncio.to_thread(make)
            except LedgerLost as error:
                self.record_failure(error)
                if self.error is not None and not ending.is_set():
                    raise self.error from None
                await self._pause(random.uniform(0, longest), ending)  # noqa: S311
                longest = min(2 * longest, LONGEST_PAUSE)
            else:
                self.record_answer()
                return made
        return None

    async def _pause(self, seconds: float, ending: asyncio.Event) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not ending.is_set():
            self._notifier.extend_start()
            self._notifier.alive()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, SIGN_OF_LIFE)):
                    await ending.wait()

    def record_failure(self, error: LedgerError) -> None:
        """Record that the ledger did not answer; report it once a minute."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        away, limit = now - self._since, self.limit.total_seconds()
        if away >= limit:
            message = f"{error}; it has been unreachable for {describe_duration(away)}"
            self.error = LedgerLost(message, hint=error.hint)
        elif now - self._said >= SAY_EVERY:
            self._said = now
            words = f"the watch waits for it, at most {describe_duration(limit)}"
            _log.warning(f"{error}; {words}")
            self._notifier.status(f"waiting for the ledger: {error}")

    def record_answer(self) -> None:
        """Record that the ledger works."""
        if self._since is not None:
            self._since, self._said = None, -SAY_EVERY
            _log.info("the ledger answers again")
