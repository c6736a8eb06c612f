"""``sendmail:DIR``: the queue of a stopped sendmail, or a copy of it.

A message is a control file ``qfID`` and a body ``dfID``, together or in the directories
``qf`` and ``df`` of a queue; queues of a group are one level deeper. ``hfID`` is a
message in quarantine, ``QfID`` one that sendmail could not read. Transcripts (``xf``)
and half-written control files (``tf``) are not messages. A body without a control file
was never accepted, or a crash left it.

Identity: the sender and the arrival time of the control file, besides the content.
sendmail removes the control file last. drainer removes it first, because sendmail would
send a control file without its body as an empty message.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, NoReturn

from drainer.errors import MessageUnreadable, SourceError
from drainer.mail.content import crlf
from drainer.mail.message import Problem, SpooledMessage
from drainer.runtime.locks import try_lock
from drainer.sources.common.control_files import read_capped
from drainer.sources.common.files import OpenFiles, directory, read_at, unusable
from drainer.sources.common.processes import refuse_running
from drainer.sources.common.queue_directory import QueueDirectory, Touched
from drainer.sources.common.queue_entry import (
    IDENTITY_BYTES,
    OpenEntry,
    SourceEntry,
    damaged_entry,
    file_chunks,
    frame,
    raise_damage,
    time_of,
)
from drainer.sources.common.stored_text import envelope_problem
from drainer.sources.common.walk import FilePlace, NameKind
from drainer.sources.protocol import SourceFormat, SourceOption
from drainer.sources.sendmail.message import ControlFile, parse

_CONTROLS = ("qf", "hf", "Qf")
_BODY = "df"
_DIRECTORIES = frozenset({"qf", "df", "xf"})
_PREFIX = 2


class SendmailQueue(QueueDirectory[SourceEntry]):
    """A queue directory of sendmail as a source."""

    scheme: ClassVar[str] = "sendmail"
    _ids: frozenset[str] | None = None

    def check_layout(self) -> None:
        """Look for a queue file, or for the directories of one.

        An empty queue directory has no mark, so its usual name is enough.
        """
        root = Path(self._root)
        try:
            with directory(root) as descriptor, os.scandir(descriptor) as entries:
                if any(_is_mark(each) for each in entries):
                    return
        except OSError as error:
            raise unusable(self._root, error) from error
        if root.name.startswith(("mqueue", "clientmqueue")):
            return
        message = f"{root} is not a sendmail queue directory"
        hint = "it should contain qf... and df... files, or directories of them"
        raise SourceError(message, hint=hint)

    def refuse_if_live(self) -> None:
        """Raise UsageError when a sendmail works in this directory."""
        refuse_running(self._root, "sendmail", "queue")

    def roots(self) -> tuple[Path, ...]:
        """Return the queue, and each queue group, which could be a separate queue."""
        with os.scandir(self._root) as entries:
            groups = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        apart = sorted(set(groups) - _DIRECTORIES)
        return (Path(self._root), *(Path(self._root, name) for name in apart))

    def judge(self, place: FilePlace, is_directory: bool) -> NameKind:  # noqa: FBT001
        """Take control files and bodies; descend into every other directory."""
        name = place.name
        is_named = len(name) > _PREFIX and name[:_PREFIX] in (*_CONTROLS, _BODY)
        if is_named:
            return NameKind.MESSAGE
        return NameKind.DIRECTORY if is_directory else NameKind.OTHER

    def key(self, place: FilePlace) -> str:
        """Return the queue id; a body has its own name."""
        return place.name if place.name[:_PREFIX] == _BODY else self.native_id(place)

    def native_id(self, place: FilePlace) -> str:
        """Return the queue id."""
        return place.name[_PREFIX:]

    def scan(self) -> Iterator[SpooledMessage]:
        """List the messages, and the bodies that have no control file.

        It lists the control files first, so that a message removed in the meantime
        leaves no body that looks abandoned.
        """
        with suppress(SourceError):
            self._ids = self._find_ids()
        yield from super().scan()

    def _find_ids(self) -> frozenset[str]:
        return frozenset(
            self.native_id(entry.place)
            for entry in self.entries()
            if entry.place.name[:_PREFIX] != _BODY
        )

    def load(self, place: FilePlace, descriptor: int, opened: OpenFiles) -> SourceEntry:
        """Read a control file and open its body."""
        if place.name[:_PREFIX] == _BODY:
            self._refuse_orphan(place, descriptor)
        control_fd, status = opened.open(place.name, descriptor)
        size = status.st_size
        try:
            control = parse(read_capped(control_fd, size))
        except MessageUnreadable as error:
            raw = read_at(control_fd, 0, IDENTITY_BYTES)
            return damaged_entry(self.native_id(place), error, raw, status.st_mtime)
        return self._draft(place, control, opened)

    def _refuse_orphan(self, place: FilePlace, descriptor: int) -> NoReturn:
        """Say what a body without a control file is; skip one that has it."""
        if self._ids is None:
            self._ids = self._find_ids()
        os.stat(place.name, dir_fd=descriptor, follow_symlinks=False)  # still there?
        if self.native_id(place) in self._ids:
            raise FileNotFoundError
        raise MessageUnreadable("incomplete", "a body without a control file")

    def _draft(
        self, place: FilePlace, control: ControlFile, opened: OpenFiles
    ) -> SourceEntry:
        problem = _problem(place, control)
        start = control.header + b"\n"
        files: tuple[FilePlace, ...] = (place,)
        length = len(start)
        try:
            body_place, body, size = self._open_body(place, control, opened)
            chunks = partial(_content, start, body, size)
            length, files = length + size, (place, body_place)
        except MessageUnreadable as error:
            chunks = partial(raise_damage, error)
        return SourceEntry(
            native_id=self.native_id(place),
            arrived=time_of(control.arrived),
            envelope=control.envelope,
            chunks=chunks,
            raw_bytes=length,
            stable=frame(control.sender, b"%d" % control.arrived),
            files=files,
            client=control.client,
            login=control.login,
            flags=control.flags,
            problem=problem,
        )

    def _open_body(
        self, place: FilePlace, control: ControlFile, opened: OpenFiles
    ) -> tuple[FilePlace, int, int]:
        """Open the body: (its place, a descriptor, bytes); raises MessageUnreadable."""
        name = _BODY + self.native_id(place)
        for parts in _body_directories(place.parts, control.body_directory):
            try:
                with directory(self._root, parts) as descriptor:
                    body, status = opened.open(name, descriptor)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise MessageUnreadable(
                    "unreadable", f"{name}: {error.strerror}"
                ) from error
            return FilePlace(parts, name), body, status.st_size
        raise MessageUnreadable("corrupt", f"its body {name} is missing")

    def remove(self, found: OpenEntry[SourceEntry], touched: Touched) -> bool:
        """Remove the control file under its lock: flock or fcntl, by the build."""
        place = found.place
        with OpenFiles() as opened:
            try:
                with directory(self._root, place.parts) as above:
                    descriptor, _ = opened.open(place.name, above)
            except (OSError, MessageUnreadable):
                return False
            try:
                if not try_lock(descriptor) or not try_lock(
                    descriptor, shared=True, call=fcntl.lockf
                ):
                    return False
            except OSError as error:
                message = f"cannot lock {place.locator}: {error}"
                raise SourceError(message, hint='use ack = "keep"') from error
            return super().remove(found, touched)


def _is_mark(entry: os.DirEntry[str]) -> bool:
    if entry.name in _DIRECTORIES:
        return entry.is_dir(follow_symlinks=False)
    if entry.is_dir(follow_symlinks=False):
        return any(Path(entry.path, each).is_dir() for each in _DIRECTORIES) or any(
            name[:_PREFIX] in _CONTROLS for name in _names(entry)
        )
    return len(entry.name) > _PREFIX and entry.name[:_PREFIX] in (*_CONTROLS, _BODY)


def _names(entry: os.DirEntry[str]) -> list[str]:
    try:
        return [each.name for each in Path(entry.path).iterdir()]
    except OSError:
        return []


def _content(start: bytes, body: int, size: int) -> Iterator[bytes]:
    def pieces() -> Iterator[bytes]:
        yield start
        yield from file_chunks(body, size)

    return crlf(pieces())


def _body_directories(
    parts: tuple[str, ...], given: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    """Yield the places of a body; the given directory may have moved."""
    yield parts
    if parts and parts[-1] == "qf":
        yield (*parts[:-1], _BODY)
    for candidate in (given, given[1:], ()):
        if not {"", ".", ".."} & {*candidate}:
            yield candidate


def _problem(place: FilePlace, control: ControlFile) -> Problem | None:
    if place.name.startswith("Qf"):
        return Problem(code="marked-corrupt", detail="sendmail renamed it to Qf")
    if control.quarantine or place.name.startswith("hf"):
        return Problem(code="quarantined", detail=control.quarantine or "no reason")
    return envelope_problem(control.envelope, control.fault)


FORMAT = SourceFormat(
    make=SendmailQueue,
    marks=("qf", "df"),
    options={"ack": SourceOption("acknowledge", ("keep", "remove"))},
)
