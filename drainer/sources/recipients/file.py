"""A list in a file: an address or ``@domain`` a line, or the source of a map."""

import os
import stat
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from drainer.errors import UsageError
from drainer.policy.census.address_table import AddressTable, add_lines
from drainer.sources.recipients.list_spec import UNREADABLE
from drainer.sources.recipients.recipient_list import LoadedList

MAX_LINE_BYTES = 64 * 1024


def read_file_list(path: Path, delimiters: str) -> LoadedList:
    """Return the list that a file has; UsageError if it has none."""
    table = AddressTable(str(path), delimiters)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            changed = os.fstat(descriptor)
            if not stat.S_ISREG(changed.st_mode):
                message = f"the list of recipients {path} is not a regular file"
                raise UsageError(message)
            ignored = add_lines(
                table, _lines(iter(lambda: file.readline(MAX_LINE_BYTES), b""))
            )
    except OSError as error:
        message = f"cannot read the list of recipients {path}: {error.strerror}"
        raise UsageError(message, hint=UNREADABLE) from None
    refuse_empty(table, ignored)
    return LoadedList(table, lambda: age_of(path))


def _lines(raw: Iterator[bytes]) -> Iterator[str]:
    for line in raw:
        yield line.decode("utf-8-sig", "replace")


def refuse_empty(table: AddressTable, ignored: int) -> None:
    """Raise UsageError for a list without an entry: it would decide nothing."""
    if not len(table):
        message = f"the list of recipients {table.name} has no address"
        hint = "a line has an address or @domain first"
        if ignored:
            hint = f"{hint}; none of its {ignored} lines has"
        raise UsageError(message, hint=hint)


def age_of(path: Path) -> timedelta | None:
    """Return how long ago a file was changed; None if it cannot be seen any more."""
    try:
        return timedelta(seconds=max(0.0, time.time() - path.stat().st_mtime))
    except OSError:
        return None
