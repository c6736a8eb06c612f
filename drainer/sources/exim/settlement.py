"""Write into Exim's files what another program has done, in Exim's own way.

Exim adds each finished address to the journal ``-J``, and reads that before the next
delivery (deliver.c). A frozen message has a line in its ``-H``; Exim leaves it alone
until it is thawed (spool_out.c). The caller has the lock of the message.
"""

import os
from collections.abc import Collection
from contextlib import suppress

from drainer.runtime.folders import open_in, owner_of
from drainer.sources.common.files import write_durably
from drainer.sources.common.stored_text import mailbox_of
from drainer.sources.exim.header import EximHeader, done_test
from drainer.sources.exim.message import EximFiles

_PREAMBLE_LINES = 4
"""Name, user, sender and time; the variables of a ``-H`` follow."""
_SPOOL_MODE = 0o640
"""Exim's own."""


def pending_paths(files: EximFiles) -> dict[bytes, str]:
    """Return the recipients that are not done, as stored, each with its path."""
    header = files.header or EximHeader(b"", b"", 0, 0)
    is_done = done_test([*header.done, *files.journal])
    return {
        raw.address: mailbox_of(raw.address)[0]
        for raw in header.recipients
        if not is_done(raw.address)
    }


def add_to_journal(folder: int, stem: str, addresses: Collection[bytes]) -> None:
    """Add finished addresses to the journal of a message, durably; raises OSError.

    Exim looks for some as they are stored, and for others with their domain in lower
    case.
    """
    lines = dict.fromkeys(
        line for each in addresses for line in (each, _lower_domain(each))
    )
    data = b"".join(line + b"\n" for line in lines)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    descriptor = open_in(folder, f"{stem}-J", flags)
    try:
        size = os.fstat(descriptor).st_size
        try:
            _write(descriptor, data)
        except OSError:
            os.ftruncate(descriptor, size)  # a line that is cut would be another one
            raise
        os.fsync(folder)
    finally:
        os.close(descriptor)


def freeze(folder: int, stem: str, now: int) -> None:
    """Freeze a message: a new ``-H`` replaces the old one durably; raises OSError."""
    descriptor = open_in(folder, f"{stem}-H", os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        lines = file.read().split(b"\n", _PREAMBLE_LINES)
    lines.insert(_PREAMBLE_LINES, b"-frozen %d" % now)
    new = f"hdr.{stem}"  # Exim's name for it, too
    with owner_of(folder), suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    descriptor = open_in(folder, new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        _write(descriptor, b"\n".join(lines))
    finally:
        os.close(descriptor)
    with owner_of(folder):
        os.replace(new, f"{stem}-H", src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def _write(descriptor: int, data: bytes) -> None:
    os.fchmod(descriptor, _SPOOL_MODE)
    write_durably(descriptor, data)


def _lower_domain(address: bytes) -> bytes:
    local, at, domain = address.rpartition(b"@")
    return local + at + domain.lower()
