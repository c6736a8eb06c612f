"""``eml:DIR``: a folder with one file for each message, ``NAME.eml``.

With ``suffix`` the files have other names: ``.msg``, ``none`` for names without a dot
(Amazon SES in a bucket, a quarantine of amavis), or ``any``.

The envelope is in ``NAME.json`` next to it (eml.sidecar), which has priority. Otherwise
it is in the fields on top of the file, X-Envelope-From and X-Envelope-To among them
(trace_headers), which are not part of the mail. drainer ignores sidecars and names that
start with a dot. Without ``suffix`` it names mail in folders below and under other
names.

Identity: sender and all recipients, and the digest of the file, besides the content. It
does not use the name or the recipients that are done now, so a renamed or copied file
is the same message to the next scan.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from drainer.errors import MessageUnreadable, SourceError
from drainer.mail.envelope import Client, Envelope
from drainer.mail.message import Message, Problem
from drainer.runtime.folders import owner_of
from drainer.sources.common.files import OpenFiles, directory, read_at, unusable
from drainer.sources.common.marker import MARKER
from drainer.sources.common.queue_directory import QueueDirectory
from drainer.sources.common.queue_entry import (
    IDENTITY_BYTES,
    SourceEntry,
    damaged_entry,
    frame,
    time_of,
)
from drainer.sources.common.trace_envelope import TraceRules
from drainer.sources.common.trace_headers import TRACE_OPTIONS, Trace, read_trace
from drainer.sources.common.walk import FilePlace, NameKind, place_of
from drainer.sources.eml.sidecar import MAX_SIDECAR_BYTES, Sidecar, parse_sidecar
from drainer.sources.maildir.file import MaildirFile, file_problem, load, read_content
from drainer.sources.maildir.layout import MaildirName, compression
from drainer.sources.mbox.separator import starts_as_mail
from drainer.sources.protocol import SourceFormat, SourceOption, UntakenPart

_SUFFIX = ".eml"
_SIDECAR_SUFFIX = ".json"


class EmlDirectory(QueueDirectory[SourceEntry]):
    """A folder of .eml files as a source."""

    scheme: ClassVar[str] = "eml"
    directory_name: ClassVar[str] = "folder"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        suffix: str = "",
        acknowledge: Literal["keep", "remove"] = "keep",
        **rules: str,
    ) -> None:
        """Check that this is a folder with such files, or empty; raises SourceError.

        ``remove`` also removes a message's sidecar, after the file: a file never
        exists without its envelope. ``rules`` are those of the trace headers.
        """
        self._is_asked = bool(suffix)
        low = (suffix or _SUFFIX).lower()
        #: In lower case, with its dot; or 'any', or 'none'.
        self._suffix = low if low in ("any", "none") else f".{low.removeprefix('.')}"
        self._rules = TraceRules(**rules)
        super().__init__(path, acknowledge=acknowledge)

    def _is_mail(self, name: str) -> bool:
        low = name.lower()
        if name.startswith(".") or low.endswith(_SIDECAR_SUFFIX):
            return False
        if self._suffix == "none":
            return "." not in name
        return self._suffix == "any" or low.endswith(self._suffix)

    def check_layout(self) -> None:
        """Refuse a folder of something else; an empty one may have been drained."""
        is_empty = True
        try:
            for path in Path(self._root).iterdir():
                if self._is_mail(path.name):
                    return
                is_ours = path.suffix == _SIDECAR_SUFFIX or path.name == MARKER
                is_empty = is_empty and is_ours
        except OSError as error:
            raise unusable(self._root, error) from error
        if not is_empty:
            what = self._suffix if self._suffix.startswith(".") else "suitable"
            message = f"{self._root} contains no {what} file"
            hint = "say how its files are named: eml:DIR?suffix=.msg, or none, or any"
            raise SourceError(message, hint=hint)

    def untaken(self) -> list[UntakenPart]:
        """Return mail in folders below and under other names, without ``suffix``."""
        if self._is_asked:
            return []
        others = below = 0
        for folder, folders, names in os.walk(self._root):
            folders[:] = [each for each in folders if not each.startswith(".")]
            if folder == self._root:
                others = sum(map(self._is_other_mail, names))
            else:
                below += sum(map(self._is_mail, names))
        example = f"a source for each, such as {self.url}/FOLDER"
        parts = (
            UntakenPart("files with other names", "?suffix=any", others),
            UntakenPart("folders below", example, below),
        )
        return [part for part in parts if part.messages]

    def _is_other_mail(self, name: str) -> bool:
        """Return whether a file with another name starts with fields of mail."""
        if name.startswith(".") or self._is_mail(name):
            return False
        try:
            with directory(self._root) as above, OpenFiles() as opened:
                descriptor, _ = opened.open(name, above)
                return starts_as_mail(read_at(descriptor, 0, IDENTITY_BYTES))
        except (OSError, MessageUnreadable):
            return False

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Remove these; also the sidecars that a crash left."""
        done = super().acknowledge(messages)
        for message in messages:
            if message.id in done:
                self._drop_sidecar(message)
        return done

    def _drop_sidecar(self, message: Message) -> None:
        """Remove a message's sidecar when its file is gone.

        Otherwise it would become the envelope of the next file of that name.
        """
        name = place_of(message.locator).name
        beside = self.native_id(FilePlace((), name)) + _SIDECAR_SUFFIX
        with (
            suppress(OSError, MessageUnreadable),
            directory(self._root) as descriptor,
        ):
            sidecar = _read_sidecar(beside, descriptor)
            is_own = sidecar and _key(sidecar.envelope) == _key(message.envelope)
            if is_own and not os.path.lexists(f"{self._root}/{name}"):
                with owner_of(descriptor):
                    os.unlink(beside, dir_fd=descriptor)
                os.fsync(descriptor)

    def judge(self, place: FilePlace, is_directory: bool) -> NameKind:  # noqa: FBT001
        """Take any such name for a message; only a suffix makes a folder one."""
        is_named = self._suffix.startswith(".")
        if self._is_mail(place.name) and (is_named or not is_directory):
            return NameKind.MESSAGE
        return NameKind.OTHER

    def native_id(self, place: FilePlace) -> str:
        """Return the name without its suffix, which may change its case."""
        is_whole = self._suffix in ("any", "none")
        return place.name if is_whole else place.name[: -len(self._suffix)]

    def load(self, place: FilePlace, descriptor: int, opened: OpenFiles) -> SourceEntry:
        """Read the start of a file, and its sidecar."""
        if not self._is_mail(place.name):
            raise FileNotFoundError
        file = load(place.name, descriptor, opened)
        beside = self.native_id(place) + _SIDECAR_SUFFIX
        packed = compression(file.head)
        try:
            sidecar = _read_sidecar(beside, descriptor)
        except MessageUnreadable as error:
            return self._damaged_entry(file, place, error)
        if file.damage:
            return self._damaged_entry(file, place, file.damage)
        whole = packed or (sidecar is not None and sidecar.whole)
        trace = Trace() if whole else read_trace(file.head, self._rules)
        envelope = sidecar.envelope if sidecar else trace.envelope
        files = (place, FilePlace((), beside)) if sidecar else (place,)
        return SourceEntry(
            native_id=self.native_id(place),
            arrived=(sidecar and sidecar.arrived) or time_of(file.status.st_mtime),
            envelope=envelope,
            chunks=partial(read_content, file, trace),
            raw_bytes=file.size,
            stable=frame(_key(envelope), _digest(file)),
            files=files,
            client=sidecar.client if sidecar else Client(),
            login=sidecar.login if sidecar else "",
            problem=file_problem(file, MaildirName(place.name, (), None), packed)
            or _envelope_problem(sidecar, trace),
        )

    def _damaged_entry(
        self, file: MaildirFile, place: FilePlace, error: MessageUnreadable
    ) -> SourceEntry:
        raw, name = file.head[:IDENTITY_BYTES], self.native_id(place)
        return damaged_entry(name, error, raw, file.status.st_mtime)


def _read_sidecar(name: str, directory_fd: int) -> Sidecar | None:
    """Return the content of a sidecar; None if there is none.

    Raises MessageUnreadable, never falls back to the message's own fields.
    """
    with OpenFiles() as opened:
        try:
            descriptor, status = opened.open(name, directory_fd)
        except FileNotFoundError:
            return None
        except MessageUnreadable as error:
            detail = f"its sidecar: {error.detail}"
            raise MessageUnreadable(error.code, detail) from error
        if status.st_size > MAX_SIDECAR_BYTES:
            detail = f"its sidecar has {status.st_size} bytes"
            raise MessageUnreadable("corrupt", detail)
        return parse_sidecar(read_at(descriptor, 0, MAX_SIDECAR_BYTES))


def _envelope_problem(sidecar: Sidecar | None, trace: Trace) -> Problem | None:
    """Judge the sidecar; the fields count only without one."""
    if sidecar is None:
        return trace.problem
    if not sidecar.envelope.recipients:
        detail = f"{len(sidecar.envelope.done)} done, none remain"
        return Problem(code="done-by-backup", detail=detail)
    return None


def _key(envelope: Envelope) -> bytes:
    """Return the part of an envelope that stays while recipients become done."""
    paths = {each.forward_path for each in envelope.recipients} | {*envelope.done}
    return "\n".join((envelope.reverse_path, *sorted(paths))).encode()


def _digest(file: MaildirFile) -> bytes:
    """Return the digest of the whole file: it may have no Received, no Message-ID."""
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return digest.digest()


FORMAT = SourceFormat(
    make=EmlDirectory,
    marks=(),
    options={
        "ack": SourceOption("acknowledge", ("keep", "remove")),
        "suffix": SourceOption("suffix"),
        **TRACE_OPTIONS,
    },
    mark_suffix=_SUFFIX,
)
