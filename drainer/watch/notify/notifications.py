"""The task that looks at the ledger now and then, and notifies of what has changed.

It costs a drain nothing: it reads sums, and sends beside everything else.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from drainer.config import Config
from drainer.config.build.paths import LedgerURL, lock_folder, same_options
from drainer.errors import DrainerError
from drainer.ledger.engine import is_file
from drainer.ledger.notices import record_notices
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import to_micros
from drainer.policy.watch.notices import Notice, changes
from drainer.runtime.process import utcnow
from drainer.watch.notify.channels import make_channels, send
from drainer.watch.notify.conditions import (
    Movement,
    find_conditions,
)

EVERY = 10.0
"""Seconds between two looks, at least."""
SHARE = 20
"""A look may take this part of the time: sums over much mail take seconds."""
LAST_WAIT = 10.0
"""Seconds at the end for notifications that are on their way."""

_log = logging.getLogger(__name__)


class Notifications:
    """Notifies of one ledger while its block runs."""

    def __init__(self, config: Callable[[], Config], url: LedgerURL) -> None:
        """Start nothing yet; ``config`` returns the configuration in force."""
        self._config, self._url = config, url
        self._movement = Movement()
        self._sending: set[asyncio.Task[bool]] = set()
        self._ending: Notice | None = None
        self._complaint = ""

    def end_with(self, subject: str, cause: str) -> None:
        """Notify at the end that the watch has ended, and why."""
        self._ending = Notice(
            event="ended",
            key=utcnow().isoformat(),
            subject=subject,
            cause=cause,
            command="systemctl status drainer",
        )

    async def run(self) -> None:
        """Look without end; run it as a task."""
        took = 0.0
        while True:
            await asyncio.sleep(max(EVERY, took * SHARE))
            began = time.monotonic()
            await self.look()
            took = time.monotonic() - began

    async def look(self, ending: Notice | None = None) -> None:
        """Look once, and send what has changed; never raises for the ledger."""
        config = self._config()
        if not config.notify.is_on:
            return
        try:
            notices = await asyncio.to_thread(self._changes, config, ending)
        except DrainerError as error:
            if str(error) != self._complaint:
                _log.warning(f"no notifications: {error}")
            self._complaint = str(error)
            notices = [ending] if ending else []
        else:
            self._complaint = ""
        for notice in notices:
            if notice.event in config.notify.events:
                self._send(config, notice)

    def _changes(self, config: Config, ending: Notice | None) -> list[Notice]:
        if is_file(self._url) and not Path(str(self._url.database)).exists():
            return []  # nothing has happened yet
        folder = lock_folder(self._url)
        with LedgerReader(self._url) as reader:
            now = time.monotonic()
            found = find_conditions(reader, config, folder, self._movement, now)
        if ending is not None:
            found["ended"] = ending
        at, interval = to_micros(utcnow()), config.notify.interval
        return record_notices(
            self._url, partial(changes, found, now=at, interval=interval)
        )

    def _send(self, config: Config, notice: Notice) -> None:
        _log.info(f"notification {notice.event}: {notice.subject}")
        if notice.command.startswith("drainer "):  # its reader is elsewhere
            command = notice.command + same_options(config, self._url)
            notice = replace(notice, command=command)
        for name, channel in make_channels(config).items():
            task = asyncio.create_task(send(name, channel, notice, utcnow()))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def finish(self) -> None:
        """Look a last time; wait for what is on its way, for a limited time."""
        await self.look(self._ending)
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=LAST_WAIT)
            for task in late:
                task.cancel()
            if late:
                _log.warning("not all notifications could be sent in time")
                await asyncio.wait(late)


@asynccontextmanager
async def open_notifications(
    config: Callable[[], Config], url: LedgerURL
) -> AsyncIterator[Notifications]:
    """Notify of a ledger while the block runs, and of how it ended."""
    notifications = Notifications(config, url)
    task = asyncio.create_task(notifications.run())
    try:
        yield notifications
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await notifications.finish()
