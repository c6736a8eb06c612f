"""``postfix:DIR``: the queue of a stopped Postfix, or a copy of it.

It reads incoming, active, deferred and, on request, hold, corrupt and maildrop. The
folder may contain any of these, hashed or not. A listed message remembers its place,
not its file: queue ids are reused and files are renamed. A later read finds a message
by its identity.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.content import HeldContent
from drainer.mail.message import Message, SpooledMessage
from drainer.runtime.folders import owner_of
from drainer.sources.common.files import (
    HELD_BYTES,
    SMALL_FILE_BYTES,
    RereadContent,
    canonical,
    directory,
    has_content,
    not_a_file,
    open_file,
    read_at,
    sync_directory,
    unescape_name,
    unreadable,
    unusable,
    url_of,
)
from drainer.sources.postfix.layout import (
    DEFAULT_QUEUES,
    QUEUES,
    UNCLEANED,
    PostfixEntry,
    hash_directories,
    walk,
)
from drainer.sources.postfix.master import master_runs
from drainer.sources.postfix.message import (
    IDENTITY_BYTES,
    PostfixPlace,
    QueueFile,
    build,
    identity,
    parse_large,
    parse_whole,
)
from drainer.sources.postfix.records import RecordReader
from drainer.sources.postfix.segments import EnvelopeRecords, read_envelope
from drainer.sources.protocol import SourceFormat, SourceOption


class PostfixEntryGone(MessageUnreadable):
    """No file of that name is in the spool any more."""


class OpenQueueFile(Struct, frozen=True):
    """An open queue file that was parsed; its opener closes it."""

    descriptor: int
    status: os.stat_result
    parsed: QueueFile
    identity: str


class PostfixQueue:
    """A Postfix queue directory as a source."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        queues: Sequence[str] = DEFAULT_QUEUES,
        acknowledge: Literal["keep", "remove"] = "keep",
    ) -> None:
        """Check that this is a queue directory; raises SourceError.

        ``acknowledge`` says what happens to a message when all its recipients are
        final: ``keep`` changes nothing, ``remove`` deletes the file.
        """
        self._root = canonical(path)
        self._queues = tuple(dict.fromkeys(queues))
        self.url = url_of("postfix", self._root)
        self.acknowledges = acknowledge == "remove"
        unknown = [queue for queue in self._queues if queue not in QUEUES]
        if unknown or not self._queues:
            message = f"not a Postfix queue: {', '.join(unknown) or 'none given'}"
            raise UsageError(message, hint=f"legal: {', '.join(QUEUES)}")
        self._check_layout()

    def _check_layout(self) -> None:
        root = Path(self._root)
        if any((root / queue).is_dir() for queue in QUEUES):
            return
        message = f"{root} is not a Postfix queue directory"
        hint = f"it should contain one or more of {', '.join(QUEUES)}"
        if root.name in QUEUES:
            hint = f"name the folder above it: postfix:{root.parent}"
        raise SourceError(message, hint=hint)

    def master_runs(self) -> bool:
        """Return whether a Postfix works in this directory."""
        return master_runs(self._root)

    def refuse_if_live(self) -> None:
        """Raise UsageError when a running Postfix would deliver the same mail.

        Does not refuse if the operator asked for removal.
        """
        if self.master_runs() and not self.acknowledges:
            message = (
                f"a Postfix is running on {self._root}: it would send this mail too"
            )
            hint = (
                "drain postfix:live, which holds its mail first; or stop it (postfix"
                " stop), or copy the queue directory (cp -a) and drain the copy"
            )
            raise UsageError(message, hint=hint)

    def roots(self) -> tuple[Path, ...]:
        """Return the queue directory, which only one ledger may drain."""
        return (Path(self._root),)

    def scan(self) -> Iterator[SpooledMessage]:
        """List the messages queue by queue, in directory order, as they are read."""
        has_logs = self._has_bounce_logs()
        for entry in self._entries(self._queues):
            spooled = self._list(entry, has_logs=has_logs)
            if spooled is not None:
                yield spooled

    def _entries(self, queues: Sequence[str]) -> Iterator[PostfixEntry]:
        """Yield the names in these queues; raises SourceError."""
        for queue in queues:
            try:
                with directory(self._root, (queue,)) as descriptor:
                    yield from walk(descriptor, (queue,))
            except FileNotFoundError:
                continue
            except OSError as error:
                path = f"{self._root}/{queue}"
                raise unusable(path, error) from error

    def _list(self, entry: PostfixEntry, *, has_logs: bool) -> SpooledMessage | None:
        """Read one entry; None if it has moved since its directory was read."""
        name = entry.name
        place = self._place(entry.parts, name, has_logs=has_logs)
        try:
            if entry.error is not None:
                raise entry.error
            if not entry.is_file:
                raise not_a_file(name, entry.descriptor)
            found = load(entry.parts, name, entry.descriptor)
        except FileNotFoundError:
            return None
        except MessageUnreadable as error:
            return self._broken(place, error)
        os.close(found.descriptor)
        return self._spooled(found, place)

    def _place(
        self, parts: tuple[str, ...], name: str, *, has_logs: bool
    ) -> PostfixPlace:
        bounce_log = has_logs and self._log_exists("bounce", name)
        return PostfixPlace(self.url, name, parts, bounce_log)

    def _spooled(self, found: OpenQueueFile, place: PostfixPlace) -> SpooledMessage:
        status, parsed = found.status, found.parsed
        message = build(
            parsed,
            place,
            identifier=found.identity,
            mode=status.st_mode,
            modified=status.st_mtime,
        )
        content = parsed.content
        if content is not None and len(content) <= HELD_BYTES:
            return SpooledMessage(message=message, content=HeldContent(content))
        return SpooledMessage(
            message=message, content=RereadContent(partial(self.stream, message))
        )

    def _broken(self, place: PostfixPlace, error: MessageUnreadable) -> SpooledMessage:
        """List a message that could not be opened, by its name."""
        parsed = QueueFile(EnvelopeRecords(), error=error)
        identifier = identity(parsed, place.name, b"")
        message = build(parsed, place, identifier=identifier, mode=0o700, modified=0)
        return SpooledMessage(
            message=message, content=RereadContent(partial(self.stream, message))
        )

    def open(self, message: Message) -> SpooledMessage:
        """Find a message again, in any queue."""
        with self._found(message) as (found, place):
            return self._spooled(found, place)

    def stream(self, message: Message) -> Iterator[bytes]:
        """Yield a message's content, after checking that its file is the same."""
        if message.problem and message.problem.code == "not-a-file":
            raise MessageUnreadable(message.problem.code, message.problem.detail)
        with self._found(message) as (found, place):
            yield from _chunks(found, place.parts)

    @contextmanager
    def _found(self, message: Message) -> Iterator[tuple[OpenQueueFile, PostfixPlace]]:
        """Keep the file of a message open.

        Looks at its last place, then for its queue id in every queue. Accepts only a
        file with the same identity. Raises MessageUnreadable('vanished').
        """
        *parts, name = unescape_name(message.locator).split("/")
        others = (
            (queue, *below)
            for queue in QUEUES
            for below in hash_directories(name)
            if not message.has_twin
        )
        is_another = False
        for candidate in dict.fromkeys((tuple(parts), *others)):
            found = self._try(candidate, name)
            if found is None:
                continue
            try:
                if found.identity == message.identity and (
                    candidate == tuple(parts)
                    or has_content(message, partial(_chunks, found, candidate))
                ):
                    has_logs = self._has_bounce_logs()
                    yield found, self._place(candidate, name, has_logs=has_logs)
                    return
            finally:
                os.close(found.descriptor)
            is_another = True
        code = "vanished"
        if is_another:
            raise MessageUnreadable(code, f"{message.native_id} is another message now")
        raise PostfixEntryGone(code, f"no queue has {message.native_id} any more")

    def is_in_place(self, message: Message) -> bool:
        """Return whether this very message, by its whole content, is at its locator."""
        *parts, name = unescape_name(message.locator).split("/")
        try:
            found = self._try(tuple(parts), name)
        except MessageUnreadable:
            return False
        if found is None:
            return False
        try:
            return found.identity == message.identity and has_content(
                message, partial(_chunks, found, parts)
            )
        finally:
            os.close(found.descriptor)

    def _try(self, parts: tuple[str, ...], name: str) -> OpenQueueFile | None:
        if {"", ".", ".."} & {*parts, name}:
            return None
        try:
            with directory(self._root, parts) as descriptor:
                return load(parts, name, descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(error) from error

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Remove the queue files, and the logs about them in defer and trace.

        A message with a pending bounce log stays: postsuper would delete the log too,
        and the sender would never get the report. Raises SourceError when the spool
        does not allow removal.
        """
        if not self.acknowledges:
            return []
        touched: set[tuple[str, ...]] = set()
        removed = [each.id for each in messages if self._remove(each, touched)]
        for parts in touched:
            sync_directory(self._root, parts)
        return removed

    def _remove(self, message: Message, touched: set[tuple[str, ...]]) -> bool:
        """Remove one message; the queue file last, so that a rerun repeats it."""
        try:
            with self._found(message) as (_, place):
                if place.bounce_log:
                    return False
        except PostfixEntryGone:
            touched.add(tuple(unescape_name(message.locator).split("/")[:-1]))
            return True
        except MessageUnreadable:
            return False
        for log in ("defer", "trace"):
            for below in hash_directories(place.name):
                self._unlink((log, *below), place.name, touched)
        self._unlink(place.parts, place.name, touched)
        return True

    def _unlink(
        self, parts: tuple[str, ...], name: str, touched: set[tuple[str, ...]]
    ) -> None:
        try:
            with directory(self._root, parts) as descriptor, owner_of(descriptor):
                os.unlink(name, dir_fd=descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            message = f"cannot remove {'/'.join((*parts, name))}: {error.strerror}"
            raise SourceError(
                message, hint='use ack = "keep", or run as root'
            ) from error
        touched.add(parts)

    def _has_bounce_logs(self) -> bool:
        try:
            with directory(self._root, ("bounce",)) as descriptor:
                return any(True for _ in walk(descriptor, ("bounce",)))
        except OSError:
            return False

    def _log_exists(self, log: str, name: str) -> bool:
        for below in hash_directories(name):
            try:
                with directory(self._root, (log, *below)) as descriptor:
                    os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except OSError:
                continue
            return True
        return False


def load(parts: Sequence[str], name: str, directory_fd: int) -> OpenQueueFile:
    """Open and parse a queue file in the directory ``parts``; the caller closes it.

    Raises FileNotFoundError, and MessageUnreadable when it cannot be opened. The result
    holds any problem inside.
    """
    descriptor, status = open_file(name, directory_fd)
    cleaned = _is_cleaned(parts)
    try:
        size = status.st_size
        if size <= SMALL_FILE_BYTES:
            raw = read_at(descriptor, 0, size)
            parsed = parse_whole(raw, cleaned=cleaned)
        else:
            reading = partial(read_at, descriptor)
            parsed = parse_large(reading, size, cleaned=cleaned)
            raw = read_at(descriptor, 0, IDENTITY_BYTES) if parsed.error else b""
    except BaseException:
        os.close(descriptor)
        raise
    return OpenQueueFile(descriptor, status, parsed, identity(parsed, name, raw))


def _chunks(found: OpenQueueFile, parts: Sequence[str]) -> Iterator[bytes]:
    """Yield the content of an open queue file; raises MessageUnreadable."""
    parsed = found.parsed
    if parsed.content is not None:
        yield parsed.content
        return
    if parsed.error is not None:
        raise parsed.error
    size = found.status.st_size
    reader = RecordReader(read_at=partial(read_at, found.descriptor), size=size)
    read_envelope(reader, EnvelopeRecords(), cleaned=_is_cleaned(parts))
    yield from reader.content()


def _is_cleaned(parts: Sequence[str]) -> bool:
    return parts[0] != UNCLEANED


FORMAT = SourceFormat(
    make=PostfixQueue,
    marks=QUEUES,
    options={
        "ack": SourceOption("acknowledge", ("keep", "remove")),
        "queues": SourceOption("queues", QUEUES, is_list=True),
    },
    listing={"queues": (*DEFAULT_QUEUES, "hold")},
)
