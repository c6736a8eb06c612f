"""Run a program that prints a list of recipients."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from tempfile import TemporaryFile
from typing import IO

from drainer.errors import UsageError
from drainer.runtime.redaction import redact
from drainer.sources.recipients.list_spec import UNREADABLE

TIMEOUT = 300.0
"""Seconds that a program may take."""
MAX_LINE_BYTES = 64 * 1024
_PATHS = (os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")


def run_program(
    command: Sequence[str], text: str = "", *, fails_with: int = 0
) -> Iterator[str]:
    """Yield the lines that a program prints; it runs without a shell.

    ``text`` is its standard input. Exit status ``fails_with`` without a complaint is no
    failure either. Raises UsageError if the program fails, or takes too long.
    """
    program = shutil.which(command[0], path=os.pathsep.join(_PATHS))
    if program is None:
        message = f"the program {command[0]} of a list of recipients was not found"
        raise UsageError(message, hint="install it, or correct [recipients] lists")
    with TemporaryFile() as output, TemporaryFile() as complaints:
        status = _wait((program, *command[1:]), text, output, complaints)
        words = _last_line(complaints)
        if status and not (status == fails_with and not words):
            cause = f"exit status {status}" if status > 0 else f"signal {-status}"
            raise UsageError(
                ": ".join(filter(None, (f"{command[0]} failed with {cause}", words))),
                hint=UNREADABLE,
            )
        output.seek(0)
        while line := output.readline(MAX_LINE_BYTES):
            yield line.decode("utf-8", "replace")


def _wait(
    command: Sequence[str], text: str, output: IO[bytes], complaints: IO[bytes]
) -> int:
    try:
        return subprocess.run(  # noqa: S603 - the operator names it; no shell
            command,
            check=False,
            input=text.encode(),
            stdout=output,
            stderr=complaints,
            timeout=TIMEOUT,
            start_new_session=True,  # Ctrl-C is for drainer
        ).returncode
    except subprocess.TimeoutExpired:
        message = f"{command[0]} did not print the list within {TIMEOUT:.0f} s"
        raise UsageError(message) from None
    except OSError as error:
        raise UsageError(f"cannot run {command[0]}: {error.strerror}") from None


def _last_line(complaints: IO[bytes]) -> str:
    size = complaints.seek(0, os.SEEK_END)
    complaints.seek(max(0, size - 4096))
    lines = complaints.read().decode("utf-8", "replace").splitlines()
    return redact(" ".join((lines or [""])[-1].split()))[:300]
