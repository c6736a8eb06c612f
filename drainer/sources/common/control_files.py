"""Control files, which name senders and recipients: whole in memory, so capped.

A file that nobody's server would write costs a look at its size, and no more.
"""

from drainer.errors import MessageUnreadable
from drainer.sources.common.files import read_at

MAX_CONTROL_BYTES = 16 * 1024 * 1024
"""Of a file that names recipients; each takes some 100 octets."""

MAX_CONTROL_RECORDS = 500_000
"""Lines, or whatever a format counts, of such a file: each costs memory and time."""


def read_capped(descriptor: int, size: int) -> bytes:
    """Read a whole control file.

    Raises MessageUnreadable('corrupt') when no server would write one so large.
    """
    if size > MAX_CONTROL_BYTES:
        code, detail = "corrupt", f"its control file has {size} octets"
        raise MessageUnreadable(code, detail)
    data = read_at(descriptor, 0, size)
    refuse_countless(data.count(b"\n") + data.count(b"\0"))
    return data


def refuse_countless(records: int) -> None:
    """Raise MessageUnreadable('corrupt') for more records than a server writes."""
    if records > MAX_CONTROL_RECORDS:
        code, detail = "corrupt", f"its control file has {records} records"
        raise MessageUnreadable(code, detail)
