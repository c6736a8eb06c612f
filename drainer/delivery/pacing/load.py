"""The primary's own load, read at intervals, so that its live mail goes first.

A command of the operator prints it. drainer reports a failure once. The load is unknown
until the command works again, and the drain continues.
"""

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import Callable

from msgspec import Struct

from drainer.policy.pacing.aimd import LoadReading
from drainer.runtime.process import clean_environment
from drainer.runtime.redaction import redact

ASK_EVERY = 5.0
LIMIT = 5.0
"""Seconds that an answer may take."""
MAX_ANSWER = 64 * 1024
"""Bytes of an answer."""
MAX_WORDS = 200


class LoadSource(Struct, frozen=True, kw_only=True):
    """The command that prints the load, and the load above which drainer sends less."""

    #: A program and its arguments.
    command: tuple[str, ...]
    high: float = 0.8


class LoadError(Exception):
    """There was no answer, or it is not a number."""


class LoadMonitor:
    """Asks, and keeps the latest answer."""

    def __init__(self, source: LoadSource | None, tell: Callable[[str], None]) -> None:
        """Ask nothing yet; ``tell`` gets a failure's reason once, and '' later."""
        self._source = source
        self._tell = tell
        self._failed = False
        #: None while it is unknown.
        self.latest: LoadReading | None = None

    async def run(self) -> None:
        """Ask every few seconds, until it is cancelled."""
        while self._source is not None:
            await self.ask(self._source)
            await asyncio.sleep(ASK_EVERY)

    async def ask(self, source: LoadSource) -> None:
        """Ask once, and keep the answer."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(LIMIT):  # wait_for may lose a cancellation
                value = parse_load(await _run(source.command))
        except (LoadError, TimeoutError, OSError) as error:
            if not self._failed:
                self._failed = True
                self._tell(
                    redact(str(error))[:MAX_WORDS] or f"no answer within {LIMIT:g} s"
                )
            self.latest = None
            return
        if self._failed:
            self._failed = False
            self._tell("")
        self.latest = LoadReading(at=began, value=value, high=source.high)


def parse_load(text: str) -> float:
    """Return the number; raise LoadError when it is not a number, or is negative."""
    try:
        value = float(text)
    except ValueError:
        raise LoadError(f"{text[:40]!r} is not a number") from None
    if not math.isfinite(value) or value < 0:
        raise LoadError(f"{text[:40].strip()} is not a valid load")
    return value


async def _run(command: tuple[str, ...]) -> str:
    """Run a command without a shell; it ends with us, and when it takes too long."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=clean_environment(),
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    try:
        answer = await process.stdout.read(MAX_ANSWER)
        code = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):  # whatever it has started, too
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if code:
        raise LoadError(f"{command[0]} ended with exit status {code}")
    return answer.decode("ascii", "replace").strip()
