"""Mark in a held message which recipients already have it, for Postfix.

Delivery agents overwrite the type of a recipient's record with ``D`` in place, under
the lock of the file (deliver_completed.c). drainer does the same before it releases a
message, so that no recipient gets it twice.
"""

import os
from collections.abc import Collection
from functools import partial

from drainer.errors import MessageUnreadable
from drainer.mail.envelope import quote_mailbox
from drainer.runtime.folders import open_in
from drainer.runtime.locks import try_lock
from drainer.sources.common.files import read_at
from drainer.sources.common.stored_text import done_path_of
from drainer.sources.postfix.message import QueueFile
from drainer.sources.postfix.records import RecordReader
from drainer.sources.postfix.segments import pending_places

_PENDING, _DONE = b"R", b"D"
_path = partial(done_path_of, form=quote_mailbox)
"""The forward-path of a stored address, as the listing has it."""


def mark_done(
    name: str, directory_fd: int, parsed: QueueFile, final: Collection[str]
) -> bool:
    """Mark these forward-paths as done in a file on hold; durable on return.

    False when another process has the file locked, or it has changed since it was read:
    then it must not be released if any recipient is final.
    """
    if not final:
        return True
    try:
        descriptor = open_in(directory_fd, name, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        if not try_lock(descriptor):
            return False
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != parsed.inode:
            return False
        reader = RecordReader(read_at=partial(read_at, descriptor), size=status.st_size)
        # A redirect replaces all of them (qmgr_message.c).
        everybody = bool(parsed.records.redirect)
        for offset, address in list(pending_places(reader)):
            if (everybody or _path(address) in final) and not _mark(descriptor, offset):
                return False
        os.fsync(descriptor)
    except (OSError, MessageUnreadable):
        return False
    finally:
        os.close(descriptor)
    return True


def is_done(parsed: QueueFile, final: Collection[str]) -> bool:
    """Return whether no other recipient remains; a redirect replaces all of them."""
    records = parsed.records
    if records.redirect and records.pending:
        return _path(records.redirect) in final
    return all(_path(recipient.address) in final for recipient in records.pending)


def _mark(descriptor: int, offset: int) -> bool:
    if os.pread(descriptor, 1, offset) != _PENDING:
        return False
    return os.pwrite(descriptor, _DONE, offset) == 1
