"""One ledger for each file source: a marker names the ledger that drains it.

If two ledgers drained one spool, they would deliver its mail twice, because neither
knows what the other one sent. So a drain claims its source before it reads it. The
marker stays until every message known to the ledger is final and gone from the source;
it also stays after a crash. A drain with another ledger is refused, with the name of
the first.

If the folder is not writable, the marker is in the state folder, filed under the
numbers of the source. Drains on other hosts do not see it.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from drainer.errors import ClaimConflict, SourceError
from drainer.mail.reply import printable
from drainer.runtime.private_files import make_private_folder
from drainer.sources.common.files import unusable
from drainer.sources.common.marker import (
    MARKER,
    TEXT_CHARS,
    Marker,
    MarkerFile,
    MarkerPlace,
    is_no_place,
    open_marker,
    place_of,
)

PARTS = frozenset(
    (
        *("new", "cur", "incoming", "active", "deferred", "hold", "corrupt"),
        *("maildrop", "input", "Finput", "queue", "mess", "qf", "df"),
    )
)
"""Folders of all formats that contain messages."""
PATIENCE = 2.0
"""Seconds that another process may need to replace or remove the marker."""
LOOK_AGAIN = 0.02
MAX_HASH_DEPTH = 3
"""Depth to which such a folder is searched: ``deferred/A/B``."""


@runtime_checkable
class FileSource(Protocol):
    """Additional method of a source that consists of files."""

    url: str
    acknowledges: bool

    def roots(self) -> Sequence[Path]:
        """Return the folders and files that it reads, links resolved.

        Each of them could be a separate source.
        """


@runtime_checkable
class PackedSource(Protocol):
    """Additional method of a source that was unpacked from an archive."""

    def unpacked_roots(self) -> Sequence[Path]:
        """Return the folders that the archive contained."""


class Claimant(NamedTuple):
    """The ledger of a drain, and the user that runs it."""

    #: The ledger's id: one file has several URLs, and one URL several files.
    ledger: str
    #: Without a password.
    url: str
    host: str
    user: str


class SourceClaim:
    """The claim of one drain on one source."""

    def __init__(
        self, source: FileSource, claimant: Claimant, state_folders: Sequence[Path]
    ) -> None:
        """Start without a claim.

        Uses the first writable one of ``state_folders``, but reads all of them.
        """
        self._url = source.url
        self._roots = source.roots()
        self._claimant = claimant
        self._state_folders = state_folders
        self._source = source
        self._held: list[MarkerFile] = []
        self._take_over = False
        #: Whether there was no marker before.
        self.is_new = True
        #: The ledgers that lost the source to this claim, as text.
        self.replaced: list[str] = []
        #: Path of the marker, if the source is not writable.
        self.elsewhere: list[str] = []

    def take(self, *, take_over: bool = False) -> None:
        """Claim the source until ``release``; durable on return.

        ``take_over`` replaces the marker of another ledger, unless a drain is using
        that ledger now. Raises ClaimConflict.
        """
        self._take_over = take_over
        try:
            for root in self._roots:
                self._claim(root)
            self._look_around()
        except OSError as error:
            self._withdraw()
            raise unusable(self._url, error) from error
        except BaseException:
            self._withdraw()
            raise

    def _withdraw(self) -> None:
        """Remove the markers that this claim wrote before it was refused."""
        for file in self._held:
            if file.is_new:
                self._remove(file)
        self.release(finished=False)

    def release(self, *, finished: bool) -> None:
        """Release the locks; if ``finished``, also remove the markers.

        A marker stays while another drain of the same ledger works on the source, and
        if it was made for another name of the source.
        """
        for file in self._held:
            if finished:
                self._remove(file)
            file.close()
        self._held.clear()

    def _remove(self, file: MarkerFile) -> None:
        """Remove a marker of ours; it stays if the file system refuses."""
        ours = (self._claimant.ledger, self._url[:TEXT_CHARS])
        with suppress(OSError, ClaimConflict):
            if file.can_write and file.lock(shared=False) and file.is_current():
                marker = file.read()
                if marker is not None and (marker.ledger, marker.source) == ours:
                    file.remove()

    # ---- one root

    def _claim(self, root: Path) -> None:
        """Claim in the source or else in the state folder, and check both.

        Each is checked after the other was written. So if two drains start at the same
        time, at least one sees the other.
        """
        place = place_of(root)
        marker = self._marker(root)
        in_source = self._acquire(place, marker, create=True)
        known = [
            str(each)
            for each in self._state_markers(root, marker)
            if self._acquire(each, marker, create=False)
        ]
        if not in_source:
            self.elsewhere += known or [self._claim_in_state(root, marker)]
            self._acquire(place, marker, create=False)
        elif not known and _has_other_names(root):
            self._claim_in_state(root, marker)

    def _look_around(self) -> None:
        """Refuse a part of another ledger's source, and a source that contains one.

        A marker inside an archive counts until the archive has a marker itself.
        """
        places = [each for root in self._roots for each in _neighbours(root)]
        if self.is_new and isinstance(self._source, PackedSource):
            places += map(place_of, self._source.unpacked_roots())
        for place in places:
            found, is_locked = look(place)
            if found is None or found.ledger == self._claimant.ledger:
                continue
            if is_locked or not self._take_over:
                raise self._refusal(place, found, is_locked=is_locked)

    def _claim_in_state(self, root: Path, marker: Marker) -> str:
        """Claim in the first writable state folder; return the path."""
        status = root.stat()
        for folder in self._state_folders:
            place = MarkerPlace(folder, f"{status.st_ino}-{status.st_dev}")
            try:
                make_private_folder(folder)
                if self._acquire(place, marker, create=True):
                    return str(place)
            except OSError:
                continue
        message = f"cannot write a marker for {printable(self._url)}"
        hint = "free some space, or run drainer as a user that may write there"
        raise SourceError(message, hint=hint)

    def _state_markers(self, root: Path, marker: Marker) -> Iterator[MarkerPlace]:
        """Yield the markers of this source in the state folders.

        The number of the file must match, and the device or the path: a device may get
        another number at a reboot, and a mount another path.
        """
        prefix = f"{root.stat().st_ino}-"
        for folder in self._state_folders:
            for place in markers_in(folder):
                if place.name.startswith(prefix) and _is_about(place, marker):
                    yield place

    def _marker(self, root: Path) -> Marker:
        path = os.fsencode(os.path.realpath(root))
        texts = {
            **self._claimant._asdict(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": self._url,
            "path": hashlib.sha256(path).hexdigest()[:32],
            "device": str(root.stat().st_dev),
        }
        return Marker(**{name: text[:TEXT_CHARS] for name, text in texts.items()})

    # ---- one marker

    def _acquire(self, place: MarkerPlace, marker: Marker, *, create: bool) -> bool:
        """Lock a marker of our ledger; False if there is none and none can be made.

        Raises ClaimConflict if it belongs to another ledger.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            file = open_marker(place, create=create)
            if file is None:
                return False
            try:
                is_held = self._try(file, marker)
            except BaseException:
                file.close()
                raise
            if is_held:
                self._held.append(file)
                return True
            file.close()
            if is_held is None:
                return False
            if time.monotonic() >= deadline:
                message = f"another process keeps {place} locked"
                raise ClaimConflict(message, hint="run the same command again")
            time.sleep(LOOK_AGAIN)

    def _try(self, file: MarkerFile, marker: Marker) -> bool | None:
        """Make one attempt; False = try again, None = no marker is possible here."""
        try:
            return self._lock(file, marker)
        except OSError as error:
            if not is_no_place(error):
                raise
            # No lock, or no space: the marker of another ledger still counts.
            self._is_ours(file, is_locked=True)
            return None

    def _lock(self, file: MarkerFile, marker: Marker) -> bool | None:
        """Lock a marker, and write it if there was none."""
        if file.lock(shared=False):
            if not file.is_current():
                return False
            if not self._is_ours(file, is_locked=False):
                if not file.can_write:
                    return None
                self._write(file, marker)
        # Between the two locks, another process may have had the exclusive one.
        if not file.lock(shared=True) or not file.is_current():
            return False
        is_ours = self._is_ours(file, is_locked=True)
        self.is_new = self.is_new and file.is_new and not self.replaced
        return is_ours

    def _write(self, file: MarkerFile, marker: Marker) -> None:
        try:
            file.write(marker)
        except OSError:
            file.remove()
            raise

    def _is_ours(self, file: MarkerFile, *, is_locked: bool) -> bool:
        """Return whether it is ours, else it must be written; raises ClaimConflict."""
        found = file.read()
        if found is None:
            return False
        if found.ledger == self._claimant.ledger:
            return True
        if self._take_over and not is_locked and file.can_write:
            self.replaced.append(found.owner)
            return False
        raise self._refusal(file.place, found, is_locked=is_locked)

    def _refusal(
        self, place: MarkerPlace, found: Marker, *, is_locked: bool = False
    ) -> ClaimConflict:
        here, url = printable(self._url), printable(found.url)
        if is_locked:
            message = f"another ledger is draining {here} now: {found.owner}"
            hint = f"wait for that drain, or drain with --ledger {url}"
        elif self._take_over:
            message = f"cannot replace {place}: it names {found.owner}"
            hint = "run drainer as a user that may write there"
        else:
            message = (
                f"a drain of {here} was started with another ledger: {found.owner};"
                f" it may have delivered some of the mail ({place})"
            )
            hint = f"continue there with --ledger {url}"
            if found.url == self._claimant.url:
                hint = "the file at that path is a new ledger: restore the old one"
            hint += (
                "; or drain with this ledger by --take-over: it does not know what was"
                " delivered, and sends it again"
            )
        return ClaimConflict(message, hint=hint)


def markers_in(folder: Path) -> list[MarkerPlace]:
    """Return the places of all markers in a state folder, which may be absent."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names are what is needed
    except OSError:
        return []
    return [MarkerPlace(folder, name) for name in names]


def _is_about(place: MarkerPlace, marker: Marker) -> bool:
    found, _ = look(place)
    return found is not None and (
        found.device == marker.device or found.path == marker.path
    )


def look(place: MarkerPlace) -> tuple[Marker | None, bool]:
    """Return the content of a marker, None without one; and whether it is locked."""
    try:
        file = open_marker(place, create=False)
    except OSError:
        return None, False
    if file is None:
        return None, False
    is_locked = False
    try:
        found = file.read()
        with suppress(OSError):  # a file system without locks
            is_locked = not file.lock(shared=False)
    finally:
        file.close()
    return found, is_locked


def _neighbours(root: Path) -> Iterator[MarkerPlace]:
    """Yield the markers of folders that contain this one, or that it contains.

    So a Maildir and its ``new``, drained as a folder of .eml files, see each other.
    """
    folder = root if root.is_dir() else root.parent
    for each in (folder, *folder.parents)[:MAX_HASH_DEPTH]:
        if each.name in PARTS:
            yield MarkerPlace(each.parent, MARKER)
    if root.is_dir():
        yield from (MarkerPlace(root / part, MARKER) for part in sorted(PARTS))


def _has_other_names(root: Path) -> bool:
    """Return whether a file has hard links: a marker next to it knows only one name."""
    return root.is_file() and root.stat().st_nlink > 1
