"""``postcat:DIR``: the output of Postfix's own tools, if you cannot copy its files.

The folder has the output of ``postqueue -j`` in a file called NAME.json. For each
message it has the output of ``postcat`` in ID or ID.anything; drainer distinguishes
these by their content (postcat_dump). A message with only an entry or only a dump is
listed as incomplete, because the tools made no snapshot.

Identity: sender, second of arrival and the first 4 KiB of the content. It differs from
that of the queue file, because postcat prints no microseconds.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.content import crlf
from drainer.mail.envelope import quote_mailbox
from drainer.mail.message import Problem
from drainer.sources.common.files import OpenFiles, directory, read_at, unusable
from drainer.sources.common.queue_directory import QueueDirectory
from drainer.sources.common.queue_entry import (
    IDENTITY_BYTES,
    SourceEntry,
    damaged_entry,
    frame,
)
from drainer.sources.common.stored_text import recipient_of
from drainer.sources.common.walk import FilePlace, NameKind, QueueEntry
from drainer.sources.postcat.dump import Dump, DumpFile, is_dump, read_dump, refuse
from drainer.sources.postcat.list import PostqueueEntry, lines, parse_line
from drainer.sources.postfix.layout import DEFAULT_QUEUES, HELD
from drainer.sources.postfix.message import QueueFile, describe
from drainer.sources.protocol import SourceFormat, SourceOption, UntakenPart

QUEUES = (*DEFAULT_QUEUES, HELD)

_LIST = ".json"


class _Line(NamedTuple):
    """The place of a message in a list."""

    name: str
    offset: int
    queue: str


class _Index(NamedTuple):
    """The content of the folder, by queue id."""

    #: Of the folder and of each list: it changes when they do.
    signature: tuple[tuple[str, int], ...]
    lines: dict[str, _Line]
    #: Invalid lines: ``LIST:OFFSET`` -> what is wrong.
    bad: dict[str, MessageUnreadable]
    files: dict[str, list[str]]


class PostcatExport(QueueDirectory[SourceEntry]):
    """A folder with the output of postqueue and postcat as a source."""

    scheme: ClassVar[str] = "postcat"
    directory_name: ClassVar[str] = "folder"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        queues: Sequence[str] = DEFAULT_QUEUES,
        acknowledge: Literal["keep"] = "keep",
    ) -> None:
        """Check that there is a list; raises SourceError, UsageError."""
        self._queues = tuple(queues)
        self._index = _Index((), {}, {}, {})
        unknown = [queue for queue in self._queues if queue not in QUEUES]
        if unknown or not self._queues:
            message = f"not a listed queue: {', '.join(unknown) or 'none given'}"
            raise UsageError(message, hint=f"legal: {', '.join(QUEUES)}")
        super().__init__(path, acknowledge=acknowledge)

    def check_layout(self) -> None:
        """Look for a list."""
        try:
            names = [each.name for each in Path(self._root).iterdir()]
        except OSError as error:
            raise unusable(self._root, error) from error
        if not any(name.endswith(_LIST) for name in names):
            message = f"{self._root} contains no list of postqueue"
            hint = "create one with: postqueue -j > queue.json"
            raise SourceError(message, hint=hint)

    def judge(self, place: FilePlace, is_directory: bool) -> NameKind:  # noqa: ARG002, FBT001
        """Never called: messages are found by their ids, not by names of files."""
        return NameKind.OTHER

    def entries(self) -> Iterator[QueueEntry]:
        """Yield the messages of the lists, in their order, then the other dumps."""
        try:
            with directory(self._root) as descriptor:
                for name in self._names(self._current(descriptor)):
                    yield QueueEntry(FilePlace((), name), descriptor, is_file=True)
        except OSError as error:
            raise unusable(self._root, error) from error

    def untaken(self) -> list[UntakenPart]:
        """Return what is on hold, unless the operator named queues."""
        if set(self._queues) != set(DEFAULT_QUEUES):
            return []
        try:
            with directory(self._root) as descriptor:
                lines = self._current(descriptor).lines.values()
        except OSError as error:
            raise unusable(self._root, error) from error
        held = sum(line.queue == HELD for line in lines)
        return [UntakenPart(HELD, f"--queue {HELD}", held)] if held else []

    def _names(self, index: _Index) -> Iterator[str]:
        for queue_id, line in index.lines.items():
            if line.queue in self._queues or line.queue not in QUEUES:
                yield queue_id
        yield from index.bad
        yield from sorted(index.files.keys() - index.lines.keys())

    def load(self, place: FilePlace, descriptor: int, opened: OpenFiles) -> SourceEntry:
        """Read the entry and the dumps of a message."""
        index = self._current(descriptor)
        if place.name in index.bad:
            raise index.bad[place.name]
        names = index.files.get(place.name, [])
        line = index.lines.get(place.name)
        if not names:
            if line is None:
                raise FileNotFoundError
            refuse("incomplete", "the list names it, but it has no dump")
        files = [_open(name, descriptor, opened) for name in names]
        try:
            listed = _load_listed(line, descriptor, opened)
            dump = _dump(files, place.name)
        except MessageUnreadable as error:
            raw = files[0].read_at(0, IDENTITY_BYTES)
            return damaged_entry(place.name, error, raw, 0)
        return self._draft(place.name, listed, dump)

    def _draft(
        self, name: str, listed: PostqueueEntry | None, dump: Dump
    ) -> SourceEntry:
        dump.records.arrival = (listed.arrived, 0) if listed else None
        queue = dump.path.partition("/")[0]
        mode = 0o710 if listed and listed.is_expired else 0o700
        place = FilePlace((queue,), name)
        found = describe(QueueFile(dump.records, mode=mode), place)
        sender = dump.records.sender or b""
        return SourceEntry(
            native_id=name,
            arrived=found.arrived,
            envelope=found.envelope,
            chunks=partial(_content, dump),
            raw_bytes=dump.end - dump.start,
            stable=frame(sender, b"%d" % (listed.arrived if listed else 0)),
            files=(),
            client=found.client,
            login=found.login,
            flags=found.flags,
            problem=_contradiction(listed, dump, queue)
            or found.problem
            or self._doubt(dump, queue),
            queue=queue,
        )

    def _doubt(self, dump: Dump, queue: str) -> Problem | None:
        """Return what an operator must check in an undamaged message."""
        if queue not in self._queues:
            detail = f"it was moved to {queue} after the list was made"
            return Problem(code="quarantined", detail=detail)
        if not dump.is_proven:
            detail = "Postfix counted other records: put the output of postcat -q there"
            return Problem(code="unproven", detail=detail)
        return None

    # ---- the folder

    def _current(self, descriptor: int) -> _Index:
        """Return the index of the folder; rebuild it after a change."""
        lists = sorted({name for name, _ in self._index.signature} - {"."})
        if self._index.signature != _signature(descriptor, lists):
            self._index = _make_index(descriptor)
        return self._index


def _make_index(descriptor: int) -> _Index:
    names = sorted(os.listdir(descriptor))
    lists = [name for name in names if name.endswith(_LIST) and name[0] != "."]
    index = _Index(_signature(descriptor, lists), {}, {}, {})
    for name in names:
        if not name.endswith(_LIST) and name[0] != ".":
            index.files.setdefault(name.partition(".")[0], []).append(name)
    for name in lists:
        _index_list(name, descriptor, index)
    return index


def _index_list(name: str, descriptor: int, index: _Index) -> None:
    """Record the place of each message; of duplicates, the last one counts."""
    with OpenFiles() as opened:
        try:
            file, status = opened.open(name, descriptor)
        except MessageUnreadable as error:
            index.bad[name] = error
            return
        for offset, line in lines(file, status.st_size):
            try:
                listed = parse_line(line)
            except MessageUnreadable as error:
                index.bad[f"{name}:{offset}"] = error
            else:
                found = _Line(name, offset, listed.queue)
                index.lines[listed.queue_id] = found


def _signature(descriptor: int, lists: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return the times of the folder and of the lists in it."""
    times = [(".", os.fstat(descriptor).st_mtime_ns)]
    for name in lists:
        modified = -1
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            modified = status.st_mtime_ns
        times.append((name, modified))
    return tuple(times)


def _load_listed(
    line: _Line | None, descriptor: int, opened: OpenFiles
) -> PostqueueEntry | None:
    if line is None:
        return None
    file, status = opened.open(line.name, descriptor)
    text = next((text for _, text in lines(file, status.st_size, line.offset)), b"")
    return parse_line(text)


def _open(name: str, descriptor: int, opened: OpenFiles) -> DumpFile:
    file, status = opened.open(name, descriptor)
    return DumpFile(partial(read_at, file), status.st_size)


def _dump(files: Sequence[DumpFile], queue_id: str) -> Dump:
    """Separate the dump from the content next to it, and read both."""
    dumps = [file for file in files if is_dump(file)]
    contents = [file for file in files if not is_dump(file)]
    if len(dumps) != 1 or len(contents) > 1:
        refuse(
            "incomplete",
            f"it needs one dump with its envelope; there are {len(dumps)},"
            f" and {len(contents)} of its content",
        )
    dump = read_dump(dumps[0], contents[0] if contents else None)
    if dump.path.rpartition("/")[2] != queue_id:
        refuse("corrupt", f"its dump is that of {dump.path}")
    return dump


def _contradiction(
    listed: PostqueueEntry | None, dump: Dump, queue: str
) -> Problem | None:
    """Compare what one tool prints about a message with what the other prints."""
    if listed is None:
        detail = "no list names it: it came later, or the list was cut off"
        return Problem(code="incomplete", detail=detail)
    if queue not in QUEUES:
        detail = f"Postfix had not yet picked it up from {queue}"
        return Problem(code="incomplete", detail=detail)
    claimed = [_quote_address(each.address) for each in dump.records.pending]
    known = listed.recipients | {None}
    strangers = [path for path in claimed if path not in known]
    if strangers:
        detail = f"the list does not have the recipient {strangers[0]!r} of its dump"
        return Problem(code="corrupt", detail=detail)
    if _quote_address(dump.records.sender or b"") not in (None, listed.sender):
        detail = "the list has another sender than its dump"
        return Problem(code="corrupt", detail=detail)
    return None


def _quote_address(stored: bytes) -> str | None:
    """Return an address as the list shows it; None for one that SMTP cannot carry."""
    if not stored:
        return ""
    found = recipient_of(stored, quote_mailbox)
    return None if found.fault else found.forward_path


def _content(dump: Dump) -> Iterator[bytes]:
    return crlf(dump.content.chunks(dump.start, dump.end))


FORMAT = SourceFormat(
    make=PostcatExport,
    marks=(),
    options={
        "ack": SourceOption("acknowledge", ("keep",)),
        "queues": SourceOption("queues", QUEUES, is_list=True),
    },
    listing={"queues": QUEUES},
)
