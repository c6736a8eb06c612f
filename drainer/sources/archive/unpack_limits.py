"""Limits for unpacking an archive, whatever it says about itself."""

import shutil
from pathlib import Path
from typing import NoReturn

from drainer.errors import SourceError
from drainer.runtime.units import human_size

MAX_MEMBERS = 2_000_000
MAX_RATIO = 250
"""Most unpacked bytes for each byte of the archive; mail packs 2 to 20 times."""
FREE_ENOUGH_BYTES = 1_000_000_000
"""Below this size the ratio is not checked."""
RESERVE_BYTES = 512 * 1024 * 1024
"""Space that must stay free on the file system."""

_LOOK_EVERY_BYTES = 64 * 1024 * 1024
_LOOK_EVERY_MEMBERS = 1024


class UnpackLimits:
    """The remaining allowance; checked before every byte is written."""

    def __init__(self, archive: Path, target: Path, most: int) -> None:
        """Allow ``most`` bytes, but never more than the file system has free."""
        self._archive = archive
        self._target = target
        self._most = most
        self._ratio_bytes = archive.stat().st_size * MAX_RATIO + FREE_ENOUGH_BYTES
        self._octets = self._members = 0
        self._next_look = 0

    def octets(self, count: int) -> None:
        """Count unpacked bytes; raises SourceError."""
        self._octets += count
        if self._octets > self._most:
            self._refuse(
                f"contains more than {human_size(self._most)}",
                'raise archive_limit if you trust it (archive_limit = "50GB")',
            )
        if self._octets > self._ratio_bytes:
            self._refuse(
                f"unpacks to more than {MAX_RATIO} times its size",
                "if you trust it, unpack it yourself and name the folder",
            )
        if self._octets >= self._next_look:
            self._look()

    def member(self) -> None:
        """Count a member; raises SourceError."""
        self._members += 1
        if self._members > MAX_MEMBERS:
            self._refuse(
                f"has more than {MAX_MEMBERS} members",
                "unpack it yourself and name the folder",
            )
        if self._members % _LOOK_EVERY_MEMBERS == 0:
            self._look()

    def _look(self) -> None:
        """Check that the file system does not fill up."""
        self._next_look = self._octets + _LOOK_EVERY_BYTES
        if shutil.disk_usage(self._target).free < RESERVE_BYTES + _LOOK_EVERY_BYTES:
            self._refuse(
                f"does not fit into {self._target.parent}",
                "set TMPDIR to a folder with more space",
            )

    def _refuse(self, what: str, hint: str) -> NoReturn:
        message = f"{self._archive} {what}"
        raise SourceError(message, hint=hint)
