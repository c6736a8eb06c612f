"""``maildir:DIR``: messages that a backup delivered into a Maildir.

new/ and cur/ are read, tmp/ never (cr.yp.to/proto/maildir.html); Maildir++
folders on request. The envelope is what trace_headers finds.

Identity: SHA-256 over a tag, the base name (before the info separator, which
readers change) and the file's first 4 KiB. A file that cannot be read is known
by its base name alone.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.content import Held, crlf, message_id_of
from drainer.mail.envelope import Envelope
from drainer.mail.message import Message, Problem, Spooled
from drainer.sources import Format, Option
from drainer.sources.files import (
    HELD_BYTES,
    Reread,
    canonical,
    directory,
    escape_name,
    not_a_file,
    unescape_name,
    unusable,
    url_of,
)
from drainer.sources.maildir_file import File, file_problem, identity, load
from drainer.sources.maildir_layout import (
    SUBDIRECTORIES,
    Drained,
    compression,
    find_names,
    names,
    parse_name,
)
from drainer.sources.trace_headers import Trace, TraceRules, cut, read_trace

_NOTHING_LEFT = "it ends within the trace fields of its delivery"


class _Gone(MessageUnreadable):
    """No file of that base name is left in the folder."""


class _Place(NamedTuple):
    """Where a file lies: the directories down from the Maildir, and its name."""

    parts: tuple[str, ...]
    name: str


class Maildir:
    """A Maildir as a source."""

    def __init__(  # noqa: PLR0913 - one per option of the source
        self,
        path: str | os.PathLike[str],
        *,
        folders: Sequence[str] = (),
        backup_host: str = "",
        recipient_header: str = "",
        strip_prefix: str = "",
        acknowledge: Literal["move", "keep", "remove"] = "move",
    ) -> None:
        """Check that this is a Maildir with these folders; raises SourceError.

        ``folders`` are Maildir++ names (``Sub.Name``) to read besides the inbox.
        ``acknowledge`` says what becomes of a message whose recipients are all
        final: it moves to the sibling Maildir ``NAME.drained``, stays, or goes.
        """
        self._root = canonical(path)
        self._rules = TraceRules(
            backup_host=backup_host,
            recipient_header=recipient_header,
            strip_prefix=strip_prefix,
        )
        self._acknowledge = acknowledge
        self._drained = Drained(self._root)
        self._folders = [(), *map(_folder, folders)]
        self.url = url_of("maildir", self._root)
        self.acknowledges = acknowledge != "keep"
        for folder in self._folders:
            place = Path(self._root, *folder)
            if not any((place / each).is_dir() for each in SUBDIRECTORIES):
                message = f"{place} is not a Maildir"
                hint = "a Maildir contains the directories new and cur"
                raise SourceError(message, hint=hint)

    def refuse_if_live(self) -> None:
        """Refuse never: no server sends mail out of a Maildir."""

    def scan(self) -> Iterator[Spooled]:
        """List the inbox, then the folders: new before cur, in directory order."""
        for folder in self._folders:
            for subdirectory in SUBDIRECTORIES:
                parts = (*folder, subdirectory)
                try:
                    with directory(self._root, parts) as descriptor:
                        for name, is_file in names(descriptor):
                            place = _Place(parts, name)
                            try:
                                yield self._list(place, descriptor, is_file=is_file)
                            except FileNotFoundError:
                                continue  # a reader moved it
                except FileNotFoundError:
                    continue
                except OSError as error:
                    path = "/".join((self._root, *parts))
                    raise unusable(path, error) from error

    def _list(self, place: _Place, descriptor: int, *, is_file: bool) -> Spooled:
        try:
            if not is_file:
                raise not_a_file(place.name, descriptor)
            file = load(place.name, descriptor)
        except MessageUnreadable as error:
            return self._broken(place, error)
        try:
            return self._spooled(file, place)
        finally:
            os.close(file.descriptor)

    def _spooled(self, file: File, place: _Place) -> Spooled:
        name = parse_name(place.name)
        packed = compression(file.head)
        trace = Trace() if packed else read_trace(file.head, self._rules)
        size = file.status.st_size
        content = None
        if file.is_whole and size <= HELD_BYTES and not packed:
            content = b"".join(crlf(cut(file.chunks(), trace.stripped)))
            size = len(content)
        empty = None if size else Problem(code="corrupt", detail=_NOTHING_LEFT)
        message = Message(
            id=file.id,
            source=self.url,
            native_id=escape_name(name.base),
            queue=escape_name("/".join(place.parts)),
            locator=escape_name("/".join((*place.parts, place.name))),
            arrived=_time(file.status.st_mtime),
            envelope=Envelope(
                reverse_path=trace.reverse_path, recipients=trace.recipients
            ),
            size_bytes=size,
            flags=name.flags,
            message_id=message_id_of(file.head),
            problem=file_problem(file, name, packed) or trace.problem or empty,
        )
        if content is not None:
            return Spooled(message=message, content=Held(content))
        return Spooled(message=message, content=Reread(partial(self.stream, message)))

    def _broken(self, place: _Place, error: MessageUnreadable) -> Spooled:
        """List what could not be opened, by its base name."""
        name = parse_name(place.name)
        message = Message(
            id=identity(name.base, b""),
            source=self.url,
            native_id=escape_name(name.base),
            queue=escape_name("/".join(place.parts)),
            locator=escape_name("/".join((*place.parts, place.name))),
            arrived=_time(0),
            envelope=Envelope(),
            flags=name.flags,
            problem=Problem(code=error.code, detail=error.detail),
        )
        return Spooled(message=message, content=Reread(partial(self.stream, message)))

    def open(self, message: Message) -> Spooled:
        """Find a message again, also when a reader moved or flagged it."""
        with self._found(message) as (file, place):
            return self._spooled(file, place)

    def stream(self, message: Message) -> Iterator[bytes]:
        """Yield a message's content, without what its delivery put on top."""
        with self._found(message) as (file, _):
            packed = compression(file.head)
            if packed:
                code = "compressed"
                raise MessageUnreadable(code, packed)
            stripped = read_trace(file.head, self._rules).stripped
            yield from crlf(cut(file.chunks(), stripped))

    @contextmanager
    def _found(
        self, message: Message, elsewhere: Sequence[_Place] | None = None
    ) -> Iterator[tuple[File, _Place]]:
        """Hold the file of a message open.

        Looks where it was, then ``elsewhere``: by default wherever its base name
        stands in the folder. Raises MessageUnreadable('vanished').
        """
        first = _place(message)
        is_another = False
        for place in self._candidates(first, elsewhere):
            try:
                with directory(self._root, place.parts) as descriptor:
                    file = load(place.name, descriptor)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                code = "unreadable"
                raise MessageUnreadable(code, error.strerror or str(error)) from error
            try:
                if file.id == message.id:
                    yield file, place
                    return
            finally:
                os.close(file.descriptor)
            is_another = True
        code = "vanished"
        if is_another:
            raise MessageUnreadable(code, f"{message.native_id} is another message now")
        raise _Gone(code, f"{message.native_id} is in neither new nor cur any more")

    def _candidates(
        self, first: _Place, elsewhere: Sequence[_Place] | None
    ) -> Iterator[_Place]:
        """Yield where a message may lie; the folder is read only if need be."""
        if {"", ".", ".."} & {*first.parts, first.name}:
            return
        yield first
        if elsewhere is None:
            base = parse_name(first.name).base
            elsewhere = self._elsewhere(first.parts[:-1], [base]).get(base, [])
        yield from (place for place in elsewhere if place != first)

    def _elsewhere(
        self, folder: tuple[str, ...], bases: Sequence[str]
    ) -> dict[str, list[_Place]]:
        places: dict[str, list[_Place]] = {}
        for parts, name in find_names(self._root, folder, bases):
            places.setdefault(parse_name(name).base, []).append(_Place(parts, name))
        return places

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Move or remove these; what readers renamed is looked for in one go.

        Raises SourceError when the file system does not let them go.
        """
        if not self.acknowledges:
            return []
        done: list[str] = []
        touched: set[tuple[str, ...]] = set()
        missing: dict[tuple[str, ...], list[Message]] = {}
        for message in messages:
            gone = self._let_go(message, [], touched)
            if gone:
                done.append(message.id)
            elif gone is None:
                missing.setdefault(_place(message).parts[:-1], []).append(message)
        for folder, absent in missing.items():
            bases = [parse_name(_place(message).name).base for message in absent]
            places = self._elsewhere(folder, bases)
            for message, base in zip(absent, bases, strict=True):
                if self._let_go(message, places.get(base, []), touched) is not False:
                    done.append(message.id)
        self._drained.sync(touched)
        return done

    def _let_go(
        self,
        message: Message,
        elsewhere: Sequence[_Place],
        touched: set[tuple[str, ...]],
    ) -> bool | None:
        """Move or remove one; None when it was not found, False when it stays."""
        try:
            with self._found(message, elsewhere) as (_, place):
                pass
        except _Gone:
            return None
        except MessageUnreadable:
            return False
        touched.add(place.parts)
        if self._acknowledge == "move":
            return self._drained.move(*place) or None
        try:
            with directory(self._root, place.parts) as descriptor:
                os.unlink(place.name, dir_fd=descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            text = f"cannot remove {message.locator}: {error.strerror}"
            raise SourceError(
                text, hint='use ack = "keep", or run as the owner'
            ) from error
        return True


def _folder(name: str) -> tuple[str, ...]:
    """Return the directory of a Maildir++ folder."""
    bare = name.removeprefix(".")
    if not bare or "/" in bare or "\0" in bare or bare == ".":
        message = f"not a Maildir++ folder: {name!r}"
        raise UsageError(message, hint='name it like "Sub" or "Sub.Name"')
    return (f".{bare}",)


def _place(message: Message) -> _Place:
    *parts, name = unescape_name(message.locator).split("/")
    return _Place(tuple(parts), name)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(max(seconds, 0), 2**35), UTC)


FORMAT = Format(
    make=Maildir,
    marks=SUBDIRECTORIES,
    options={
        "ack": Option("acknowledge", ("move", "keep", "remove")),
        "folders": Option("folders", is_list=True),
        "backup_host": Option("backup_host"),
        "recipient_header": Option("recipient_header"),
        "strip_prefix": Option("strip_prefix"),
    },
)
