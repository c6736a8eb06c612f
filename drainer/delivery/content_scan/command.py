"""A program that reads the message on standard input: exit 0 clean, 1 a hit.

It runs without a shell. The envelope is in its environment.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from contextlib import suppress

from drainer.delivery.content_scan.protocol import (
    ScannerFailure,
    ScannerSettings,
    ScanRequest,
)
from drainer.delivery.content_scan.stream import content_of, feed, safe
from drainer.policy.admission.content_scan import ScanAnswer
from drainer.runtime.process import clean_environment

CLEAN, HIT = 0, 1
MAX_OUTPUT = 4096
"""Bytes of its output that are read; the first line is the verdict."""
MAX_RECIPIENTS_BYTES = 64 * 1024
"""Of the recipients in its environment: Linux limits each variable to 128 KiB."""


class CommandScanner:
    """A program of the operator; its verdict is the first line that it prints."""

    def __init__(self, settings: ScannerSettings) -> None:
        """Run nothing yet."""
        self._command = settings.command

    async def scan(self, request: ScanRequest) -> ScanAnswer:
        """Run it; what it has started ends with it, and when this is cancelled.

        It prints to a file: a child of its own could keep a pipe open.
        """
        with tempfile.TemporaryFile() as printed:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=printed,
                stderr=printed,
                env=clean_environment() | environment_of(request),
                start_new_session=True,
            )
            code = await _feed_and_wait(process, request)
            printed.seek(0)
            lines = printed.read(MAX_OUTPUT).decode("utf-8", "replace").splitlines()
        return _answer(code, safe(next(iter(lines), "")))

    async def ping(self) -> str:
        """Return where the program is; it is not run."""
        found = await asyncio.to_thread(shutil.which, self._command[0])
        if found is None:
            raise ScannerFailure(f"there is no program {self._command[0]}")
        return found


def _answer(code: int, words: str) -> ScanAnswer:
    if code == CLEAN:
        return ScanAnswer()
    if code == HIT:
        return ScanAnswer(verdict=words or "exit status 1")
    cause = f"signal {-code}" if code < 0 else f"exit status {code}"
    raise ScannerFailure(f"{cause}: {words}" if words else cause)


def environment_of(request: ScanRequest) -> dict[str, str]:
    """Return the envelope as variables; no value has a control character.

    RECIPIENTS has one address a line.
    """
    message, client = request.message, request.message.client
    texts = {
        "SENDER": message.envelope.reverse_path,
        "CLIENT_ADDRESS": client.address,
        "CLIENT_NAME": client.name,
        "CLIENT_HELO": client.helo,
        "LOGIN": message.login,
        "QUEUE_ID": message.native_id,
        "SIZE": str(request.size),
    }
    recipients = "".join(f"{safe(each, 500)}\n" for each in request.recipients)
    fit = recipients.encode()[:MAX_RECIPIENTS_BYTES].decode("utf-8", "ignore")
    return {name: safe(text, 1000) for name, text in texts.items()} | {
        "RECIPIENTS": fit.rpartition("\n")[0]
    }


async def _feed_and_wait(
    process: asyncio.subprocess.Process, request: ScanRequest
) -> int:
    """Write the content, as far as the program reads it; return its exit status."""
    feeding = asyncio.create_task(_feed(process, request))
    try:
        code = await process.wait()
        if feeding.done():
            feeding.result()  # it raises when the content could not be read
    finally:
        feeding.cancel()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return code


async def _feed(process: asyncio.subprocess.Process, request: ScanRequest) -> None:
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    try:
        await feed(process.stdin, content_of(request))
    finally:
        process.stdin.close()
