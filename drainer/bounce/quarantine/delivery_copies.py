"""Copies of delivered mail, kept for a while: the primary may lose it.

They are in a folder beside the ledger, in the form of the quarantine, limited by age
and size. A copy that cannot be made delays nothing: a warning says so.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from msgspec import Struct

from drainer.bounce.quarantine.store import Quarantine
from drainer.errors import MessageUnreadable
from drainer.mail.message import Message
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.runtime.private_files import remove_private
from drainer.sources.protocol import Source

_log = logging.getLogger(__name__)


class KeepSettings(Struct, frozen=True, kw_only=True):
    """Where copies are, how long, and how much of them."""

    folder: Path
    age: timedelta
    most_bytes: int


class DeliveryCopies:
    """The copies of one ledger. Everything may block."""

    def __init__(self, settings: KeepSettings) -> None:
        """Prepare; ``expire`` must be called before the first copy."""
        self.store = Quarantine(settings.folder)
        self._settings = settings
        self._bytes = 0
        self._warned = False

    def copy(self, source: Source, messages: Iterable[Message]) -> None:
        """Copy messages that their source is about to drop."""
        for message in messages:
            self._copy(source, message)
        if self._bytes > self._settings.most_bytes:
            self.expire()

    def _copy(self, source: Source, message: Message) -> None:
        recipients = message.envelope.recipients
        if message.size_bytes > self._settings.most_bytes or not recipients:
            return
        claimed = [ClaimedRecipient(n=n, recipient=r) for n, r in enumerate(recipients)]
        try:
            self.store.keep(source.open(message), claimed)
        except MessageUnreadable:
            return  # it is gone already: an earlier run has copied it
        except OSError as error:
            if not self._warned:
                _log.warning(f"no copies of delivered mail are kept: {error.strerror}")
            self._warned = True
            return
        self._bytes += message.size_bytes

    def expire(self) -> None:
        """Remove copies that are too old, and the oldest ones of too many."""
        oldest = time.time() - self._settings.age.total_seconds()
        kept = sorted(_files(self._settings.folder))
        self._bytes = sum(size for _, size, _ in kept)
        for modified, size, path in kept:
            if modified >= oldest and self._bytes <= self._settings.most_bytes:
                break
            with suppress(OSError):
                remove_private(path)
                self._bytes -= size


def oldest_copy(folder: Path) -> tuple[int, float | None]:
    """Return how many messages are copied, and when the oldest copy was made."""
    kept: Sequence[tuple[float, int, Path]] = sorted(
        each for each in _files(folder) if each[2].suffix == ".eml"
    )
    return len(kept), kept[0][0] if kept else None


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield time, size and path of every file of a folder; none if there is none."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        with suppress(OSError):
            status = path.lstat()
            yield status.st_mtime, status.st_size, path
