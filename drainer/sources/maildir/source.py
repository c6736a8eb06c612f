"""``maildir:DIR``: messages that a backup delivered into a Maildir.

It reads new/ and cur/, never tmp/ (cr.yp.to/proto/maildir.html); Maildir++ folders on
request. trace_headers finds the envelope.

Identity: the base name (before the info separator, which readers change) and the file's
first 4 KiB. A file that cannot be read is identified only by its base name.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar

from msgspec.structs import replace

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.message import Problem
from drainer.sources.common.files import OpenFiles, directory
from drainer.sources.common.queue_directory import (
    Acknowledge,
    QueueDirectory,
    Touched,
)
from drainer.sources.common.queue_entry import (
    OpenEntry,
    SourceEntry,
    raise_damage,
    time_of,
)
from drainer.sources.common.trace_envelope import TraceRules
from drainer.sources.common.trace_headers import TRACE_OPTIONS, Trace, read_trace
from drainer.sources.common.walk import FilePlace, NameKind
from drainer.sources.maildir.file import (
    MaildirFile,
    differs_in_size,
    file_problem,
    load,
    read_content,
)
from drainer.sources.maildir.layout import (
    SUBDIRECTORIES,
    DrainedFolder,
    compression,
    find_usual,
    is_usual,
    parse_name,
)
from drainer.sources.protocol import SourceFormat, SourceOption


class Maildir(QueueDirectory[SourceEntry]):
    """A Maildir as a source."""

    scheme: ClassVar[str] = "maildir"
    directory_name: ClassVar[str] = "folder"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        folders: Sequence[str] = (),
        acknowledge: Acknowledge = "move",
        **rules: str,
    ) -> None:
        """Check that this is a Maildir with these folders; raises SourceError.

        ``folders`` are Maildir++ names (``Sub.Name``) to read besides the inbox.
        ``acknowledge`` says what happens to a message when all its recipients are
        final: it moves to the sibling Maildir ``NAME.drained``, stays, or is removed.
        ``rules`` are those of the trace headers.
        """
        self._rules = TraceRules(**rules)
        self._moves = acknowledge == "move"
        self._folders = [(), *map(_folder, folders)]
        self.starts = tuple(
            (*f, each) for f in self._folders for each in SUBDIRECTORIES
        )
        super().__init__(path, acknowledge=acknowledge)
        self._drained = DrainedFolder(self._root)

    def check_layout(self) -> None:
        """Look for new or cur in the inbox and in each folder."""
        for place in self.roots():
            if not any((place / each).is_dir() for each in SUBDIRECTORIES):
                message = f"{place} is not a Maildir"
                hint = "a Maildir contains the directories new and cur"
                raise SourceError(message, hint=hint)

    def other_parts(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield the folders of any layout, unless the operator named some."""
        if self._folders != [()]:
            return
        for path, below, _ in os.walk(self._root, onerror=_raise):
            parts = Path(path).relative_to(self._root).parts
            there = [each for each in SUBDIRECTORIES if parts and each in below]
            below[:] = sorted(set(below).difference(SUBDIRECTORIES, ("tmp",)))
            name = "/".join(parts)
            option = f"a source of its own: {self.url}/{name}"
            if len(parts) == 1 and name.startswith("."):
                name = name.removeprefix(".")
                option = f"?folders={name}"
            for each in there:
                yield f"folder {name}", option, (*parts, each)

    def roots(self) -> tuple[Path, ...]:
        """Return the inbox and the folders: each is a separate Maildir."""
        return tuple(Path(self._root, *folder) for folder in self._folders)

    def judge(self, place: FilePlace, is_directory: bool) -> NameKind:  # noqa: ARG002, FBT001
        """Take everything but control files for a message."""
        is_hidden = place.name.startswith(".")
        return NameKind.OTHER if is_hidden else NameKind.MESSAGE

    def native_id(self, place: FilePlace) -> str:
        """Return the base name."""
        return parse_name(place.name).base

    def load(self, place: FilePlace, descriptor: int, opened: OpenFiles) -> SourceEntry:
        """Read the start of a file."""
        file = load(place.name, descriptor, opened)
        name = parse_name(place.name)
        base = os.fsencode(name.base)
        packed = compression(file.head)
        trace = Trace() if packed else read_trace(file.head, self._rules)
        chunks = partial(read_content, file, trace)
        if packed:
            chunks = partial(raise_damage, MessageUnreadable("compressed", packed))
        noted = ("size-differs",) if differs_in_size(file, name) else ()
        return SourceEntry(
            native_id=name.base,
            arrived=time_of(file.status.st_mtime),
            envelope=trace.envelope,
            chunks=chunks,
            raw_bytes=file.size,
            stable=b"%d\n%b" % (len(base), base),
            files=(place,),
            head=file.head,
            flags=(*name.flags, *noted),
            problem=file_problem(file, name, packed)
            or trace.problem
            or _content_problem(file, trace),
        )

    def broken(self, place: FilePlace, error: MessageUnreadable) -> SourceEntry:
        """Return what the name says of a message that cannot be opened."""
        flags = parse_name(place.name).flags
        return replace(super().broken(place, error), flags=flags)

    def elsewhere(self, first: FilePlace) -> Iterator[FilePlace]:
        """Yield the places of its base name in the folder: usual names, then any."""
        folder, base = first.parts[:-1], self.key(first)
        for subdirectory in reversed(SUBDIRECTORIES):
            parts = (*folder, subdirectory)
            with suppress(FileNotFoundError), directory(self._root, parts) as opened:
                yield from (FilePlace(parts, name) for name in find_usual(opened, base))
        for place in super().elsewhere(first):
            if place.parts[:-1] == folder:
                yield place

    def keyed(self) -> Iterator[tuple[str, str]]:
        """Yield only the names with a reader's own flags: no other way finds them."""
        for base, path in super().keyed():
            if not is_usual(path.rpartition("/")[2], base):
                yield base, path

    def remove(self, found: OpenEntry[SourceEntry], touched: Touched) -> bool:
        """Move or remove a file; False when it is gone."""
        if not self._moves:
            return super().remove(found, touched)
        touched.add(found.place.parts)
        return self._drained.move(*found.place)

    def sync(self, touched: Touched) -> None:
        """Make the moves and removals durable."""
        if self._moves:
            self._drained.sync(touched)
        super().sync(touched)


def _content_problem(file: MaildirFile, trace: Trace) -> Problem | None:
    if sum(end - start for start, end in trace.stripped) < file.size:
        return None
    detail = "it ends within the trace fields of its delivery"
    return Problem(code="corrupt", detail=detail)


def _folder(name: str) -> tuple[str, ...]:
    """Return the directory of a Maildir++ folder."""
    bare = name.removeprefix(".")
    if not bare or "/" in bare or "\0" in bare or bare == ".":
        message = f"not a Maildir++ folder: {name!r}"
        raise UsageError(message, hint='name it like "Sub" or "Sub.Name"')
    return (f".{bare}",)


def _raise(error: OSError) -> None:
    raise error


FORMAT = SourceFormat(
    make=Maildir,
    marks=SUBDIRECTORIES,
    options={
        "ack": SourceOption("acknowledge", ("move", "keep", "remove")),
        "folders": SourceOption("folders", is_list=True),
        **TRACE_OPTIONS,
    },
)
