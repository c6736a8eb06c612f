"""Control files, which name senders and recipients: read whole, so limited in size.

A file larger than any server writes costs only a check of its size.
"""

from typing import NoReturn

from drainer.errors import MessageUnreadable
from drainer.sources.common.files import read_at

MAX_CONTROL_BYTES = 16 * 1024 * 1024
"""Largest file that names recipients, in bytes; each takes about 100 bytes."""

MAX_CONTROL_RECORDS = 500_000
"""Most lines (or other records of a format): each costs memory and time."""


def fail(detail: str) -> NoReturn:
    """Raise the error for a damaged file."""
    raise MessageUnreadable("corrupt", detail)


def read_capped(descriptor: int, size: int) -> bytes:
    """Read a control file; MessageUnreadable('corrupt') for an impossible size."""
    if size > MAX_CONTROL_BYTES:
        fail(f"its control file has {size} bytes")
    data = read_at(descriptor, 0, size)
    refuse_countless(data.count(b"\n") + data.count(b"\0"))
    return data


def refuse_countless(records: int) -> None:
    """Raise MessageUnreadable('corrupt') for more records than a server writes."""
    if records > MAX_CONTROL_RECORDS:
        fail(f"its control file has {records} records")
