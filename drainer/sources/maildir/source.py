"""``maildir:DIR``: messages that a backup delivered into a Maildir.

It reads new/ and cur/, never tmp/ (cr.yp.to/proto/maildir.html); Maildir++ folders on
request. trace_headers finds the envelope.

Identity: SHA-256 over a tag, the base name (before the info separator, which readers
change) and the file's first 4 KiB. A file that cannot be read is identified only by its
base name.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.content import HeldContent, crlf, message_id_of
from drainer.mail.envelope import Envelope
from drainer.mail.message import Message, Problem, SpooledMessage
from drainer.runtime.folders import owner_of
from drainer.sources.common.files import (
    HELD_BYTES,
    RereadContent,
    canonical,
    directory,
    escape_name,
    has_content,
    not_a_file,
    unescape_name,
    unreadable,
    unusable,
    url_of,
)
from drainer.sources.common.index import PathIndex
from drainer.sources.common.trace_headers import Trace, TraceRules, cut, read_trace
from drainer.sources.maildir.file import MaildirFile, file_problem, identity, load
from drainer.sources.maildir.layout import (
    SUBDIRECTORIES,
    DrainedFolder,
    compression,
    find_odd,
    find_usual,
    names,
    parse_name,
)
from drainer.sources.protocol import SourceFormat, SourceOption

_NOTHING_LEFT = "it ends within the trace fields of its delivery"


class _Gone(MessageUnreadable):
    """No file of that base name is in the folder any more."""


class _Place(NamedTuple):
    """The place of a file: the directories down from the Maildir, and its name."""

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
        ``acknowledge`` says what happens to a message when all its recipients are
        final: it moves to the sibling Maildir ``NAME.drained``, stays, or is removed.
        """
        self._root = canonical(path)
        self._rules = TraceRules(
            backup_host=backup_host,
            recipient_header=recipient_header,
            strip_prefix=strip_prefix,
        )
        self._acknowledge = acknowledge
        self._drained = DrainedFolder(self._root)
        self._folders = [(), *map(_folder, folders)]
        self._odd: dict[tuple[str, ...], PathIndex] = {}
        self.url = url_of("maildir", self._root)
        self.acknowledges = acknowledge != "keep"
        for folder in self._folders:
            place = Path(self._root, *folder)
            if not any((place / each).is_dir() for each in SUBDIRECTORIES):
                message = f"{place} is not a Maildir"
                hint = "a Maildir contains the directories new and cur"
                raise SourceError(message, hint=hint)

    def refuse_if_live(self) -> None:
        """Never refuse: no server sends mail from a Maildir."""

    def roots(self) -> tuple[Path, ...]:
        """Return the inbox and the folders: each is a separate Maildir."""
        return tuple(Path(self._root, *folder) for folder in self._folders)

    def scan(self) -> Iterator[SpooledMessage]:
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

    def _list(self, place: _Place, descriptor: int, *, is_file: bool) -> SpooledMessage:
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

    def _spooled(self, file: MaildirFile, place: _Place) -> SpooledMessage:
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
            identity=file.identity,
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
            return SpooledMessage(message=message, content=HeldContent(content))
        return SpooledMessage(
            message=message, content=RereadContent(partial(self.stream, message))
        )

    def _broken(self, place: _Place, error: MessageUnreadable) -> SpooledMessage:
        """List what could not be opened, by its base name."""
        name = parse_name(place.name)
        message = Message(
            identity=identity(name.base, b""),
            source=self.url,
            native_id=escape_name(name.base),
            queue=escape_name("/".join(place.parts)),
            locator=escape_name("/".join((*place.parts, place.name))),
            arrived=_time(0),
            envelope=Envelope(),
            flags=name.flags,
            problem=Problem(code=error.code, detail=error.detail),
        )
        return SpooledMessage(
            message=message, content=RereadContent(partial(self.stream, message))
        )

    def open(self, message: Message) -> SpooledMessage:
        """Find a message again, also after a reader moved or flagged it."""
        with self._found(message) as (file, place):
            return self._spooled(file, place)

    def stream(self, message: Message) -> Iterator[bytes]:
        """Yield a message's content, without what its delivery added on top."""
        with self._found(message) as (file, _):
            yield from self._chunks(file)

    def _chunks(self, file: MaildirFile) -> Iterator[bytes]:
        packed = compression(file.head)
        if packed:
            code = "compressed"
            raise MessageUnreadable(code, packed)
        stripped = read_trace(file.head, self._rules).stripped
        yield from crlf(cut(file.chunks(), stripped))

    def is_in_place(self, message: Message) -> bool:
        """Return whether this very message, by its whole content, is at its locator."""
        place = _place(message)
        if not _is_safe(place):
            return False
        try:
            with directory(self._root, place.parts) as descriptor:
                file = load(place.name, descriptor)
        except (OSError, MessageUnreadable):
            return False
        try:
            return file.identity == message.identity and has_content(
                message, partial(self._chunks, file)
            )
        finally:
            os.close(file.descriptor)

    @contextmanager
    def _found(self, message: Message) -> Iterator[tuple[MaildirFile, _Place]]:
        """Keep the file of a message open.

        Looks at its last place, then for its base name in the folder. Raises
        MessageUnreadable('vanished').
        """
        is_another = False
        first = _place(message)
        for place in self._candidates(first, message):
            try:
                with directory(self._root, place.parts) as descriptor:
                    file = load(place.name, descriptor)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise unreadable(error) from error
            try:
                if file.identity == message.identity and (
                    place == first or has_content(message, partial(self._chunks, file))
                ):
                    yield file, place
                    return
            finally:
                os.close(file.descriptor)
            is_another = True
        code = "vanished"
        if is_another:
            raise MessageUnreadable(code, f"{message.native_id} is another message now")
        raise _Gone(code, f"{message.native_id} is in neither new nor cur any more")

    def _candidates(self, first: _Place, message: Message) -> Iterator[_Place]:
        """Yield the places where a message may be; read the folder only if needed."""
        if not _is_safe(first):
            return
        yield first
        if message.has_twin:
            return
        try:
            yield from (place for place in self._elsewhere(first) if place != first)
        except OSError as error:
            raise unreadable(error) from error

    def _elsewhere(self, first: _Place) -> Iterator[_Place]:
        """Yield the places of its base name: by the usual names, then by any."""
        folder, base = first.parts[:-1], parse_name(first.name).base
        for subdirectory in reversed(SUBDIRECTORIES):
            parts = (*folder, subdirectory)
            with suppress(FileNotFoundError), directory(self._root, parts) as opened:
                yield from (_Place(parts, name) for name in find_usual(opened, base))
        odd = PathIndex(partial(self._names, folder))
        for path in self._odd.setdefault(folder, odd).find(base):
            subdirectory, _, name = path.partition("/")
            yield _Place((*folder, subdirectory), name)

    def _names(self, folder: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """Yield the names with a reader's own flags, each after its base."""
        for subdirectory in SUBDIRECTORIES:
            parts = (*folder, subdirectory)
            with suppress(FileNotFoundError), directory(self._root, parts) as opened:
                for base, name in find_odd(opened):
                    yield base, f"{subdirectory}/{name}"

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Move or remove these, also those that readers renamed.

        Raises SourceError when the file system does not allow it.
        """
        if not self.acknowledges:
            return []
        touched: set[tuple[str, ...]] = set()
        done = [each.id for each in messages if self._let_go(each, touched)]
        self._drained.sync(touched)
        return done

    def _let_go(self, message: Message, touched: set[tuple[str, ...]]) -> bool:
        """Move or remove one; False when it stays. One that is gone is done."""
        for _ in range(2):  # a reader may rename it at this moment
            try:
                with self._found(message) as (_, place):
                    pass
            except _Gone:
                return True
            except MessageUnreadable:
                return False
            touched.add(place.parts)
            if self._drop(place):
                return True
        return False

    def _drop(self, place: _Place) -> bool:
        """Move or remove a file; False when it is gone."""
        if self._acknowledge == "move":
            return self._drained.move(*place)
        try:
            with directory(self._root, place.parts) as above, owner_of(above):
                os.unlink(place.name, dir_fd=above)
        except FileNotFoundError:
            return False
        except OSError as error:
            path = "/".join((*place.parts, place.name))
            text = f"cannot remove {path}: {error.strerror}"
            hint = 'use ack = "keep", or run as the owner'
            raise SourceError(text, hint=hint) from error
        return True


def _is_safe(place: _Place) -> bool:
    return not {"", ".", ".."} & {*place.parts, place.name}


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


FORMAT = SourceFormat(
    make=Maildir,
    marks=SUBDIRECTORIES,
    options={
        "ack": SourceOption("acknowledge", ("move", "keep", "remove")),
        "folders": SourceOption("folders", is_list=True),
        "backup_host": SourceOption("backup_host"),
        "recipient_header": SourceOption("recipient_header"),
        "strip_prefix": SourceOption("strip_prefix"),
    },
)
