"""``exim:DIR``: the spool of a stopped Exim 4, or a copy of it.

It reads ``input``, flat or split, and on request ``Finput`` (where some builds put
frozen mail) and named queues. It respects Exim's journal. A listed message remembers
its place, not its files. A later read finds it by its identity, also after it moved
between split and flat.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.content import HeldContent
from drainer.mail.message import Message, SpooledMessage
from drainer.sources.common.files import (
    HELD_BYTES,
    RereadContent,
    canonical,
    directory,
    has_content,
    not_a_file,
    sync_directory,
    unescape_name,
    unreadable,
    unusable,
    url_of,
)
from drainer.sources.exim.layout import (
    FROZEN,
    MAIN,
    EximEntry,
    exists,
    queue_parts,
    split_directories,
    walk,
)
from drainer.sources.exim.locks import exim_runs
from drainer.sources.exim.message import EximFiles, EximPlace, build
from drainer.sources.exim.open_files import EximOpenFiles, load
from drainer.sources.exim.removal import remove
from drainer.sources.protocol import SourceFormat, SourceOption

_Parts = tuple[str, ...]


class _Gone(MessageUnreadable):
    """No ``-H`` file of that name is in the spool any more."""


class EximSpool:
    """An Exim spool directory as a source."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        queues: Sequence[str] = (MAIN,),
        acknowledge: Literal["keep", "remove"] = "keep",
    ) -> None:
        """Check that this is a spool directory; raises SourceError.

        ``queues`` are ``input``, ``Finput`` or the names of named queues.
        ``acknowledge`` says what happens to a message when all its recipients are
        final: ``keep`` changes nothing, ``remove`` deletes its files. Raises
        UsageError for an invalid queue name.
        """
        self._root = canonical(path)
        self._queues = {queue: queue_parts(queue) for queue in queues}
        self.url = url_of("exim", self._root)
        self.acknowledges = acknowledge == "remove"
        if not self._queues:
            message = "exim: no queue to read"
            raise UsageError(message, hint=f"leave queues out to read {MAIN}")
        self._check_layout()

    def _check_layout(self) -> None:
        root = Path(self._root)
        if not any((root / each).is_dir() for each in (MAIN, FROZEN)):
            message = f"{root} is not an Exim spool directory"
            hint = f"it should contain the directory {MAIN}"
            if root.name in (MAIN, FROZEN):
                hint = f"name the folder above it: exim:{root.parent}"
            raise SourceError(message, hint=hint)
        for queue, parts in self._queues.items():
            if queue not in (MAIN, FROZEN) and not root.joinpath(*parts).is_dir():
                message = f"{root} has no named queue {queue!r}"
                hint = f"a named queue is a folder that contains {MAIN}"
                raise SourceError(message, hint=hint)

    def refuse_if_live(self) -> None:
        """Raise UsageError when a running Exim would deliver the same mail."""
        if exim_runs(self._root):
            message = f"an Exim is running on {self._root}: it would send this mail too"
            hint = (
                "stop it first, queue runners included (systemctl stop exim4), or"
                " copy the spool directory (cp -a) and drain the copy"
            )
            raise UsageError(message, hint=hint)

    def roots(self) -> tuple[Path, ...]:
        """Return the spool, and each named queue, which could be a separate spool."""
        parts = {parts[:-1] for parts in self._queues.values()}
        return tuple(Path(self._root, *each) for each in sorted(parts))

    def scan(self) -> Iterator[SpooledMessage]:
        """List the messages queue by queue, in directory order, as they are read."""
        for queue, parts in self._queues.items():
            try:
                with directory(self._root, parts) as descriptor:
                    for entry in walk(descriptor, parts):
                        spooled = self._list(entry, queue)
                        if spooled is not None:
                            yield spooled
            except FileNotFoundError:
                continue
            except OSError as error:
                path = "/".join((self._root, *parts))
                raise unusable(path, error) from error

    def _list(self, entry: EximEntry, queue: str) -> SpooledMessage | None:
        """Read one entry; None if it has moved since its directory was read."""
        stem = entry.stem
        name = entry.name if stem == entry.name else f"{stem}-H"
        place = EximPlace(self.url, stem, name, queue, entry.parts)
        try:
            if entry.error is not None:
                raise entry.error
            if not entry.is_file:
                raise not_a_file(entry.name, entry.descriptor)
            found = load(stem, entry.descriptor)
        except FileNotFoundError:
            return self._without_header(place, entry.descriptor)
        except MessageUnreadable as error:
            return self._broken(place, error)
        try:
            return self._spooled(found, place)
        finally:
            found.close()

    def _without_header(
        self, place: EximPlace, descriptor: int
    ) -> SpooledMessage | None:
        """List a ``-D`` whose ``-H`` does not exist yet or any more."""
        if not exists(f"{place.stem}-D", descriptor):
            return None
        code = "incomplete"
        detail = "it has a -D file and no -H: being received, or left by a crash"
        return self._broken(place, MessageUnreadable(code, detail))

    def _spooled(self, found: EximOpenFiles, place: EximPlace) -> SpooledMessage:
        message = build(found.files, place, modified=found.modified)
        if message.size_bytes <= HELD_BYTES and found.files.error is None:
            with suppress(MessageUnreadable):  # a later read finds the problem
                content = b"".join(found.chunks())
                message = replace(message, size_bytes=len(content))
                return SpooledMessage(message=message, content=HeldContent(content))
        return SpooledMessage(
            message=message, content=RereadContent(partial(self.stream, message))
        )

    def _broken(self, place: EximPlace, error: MessageUnreadable) -> SpooledMessage:
        """List what could not be opened, by its name."""
        message = build(EximFiles(error=error), place, modified=0)
        return SpooledMessage(
            message=message, content=RereadContent(partial(self.stream, message))
        )

    def open(self, message: Message) -> SpooledMessage:
        """Find a message again, anywhere in the spool."""
        with self._found(message) as (found, place):
            return self._spooled(found, place)

    def stream(self, message: Message) -> Iterator[bytes]:
        """Yield a message's content, after checking that its files are the same.

        Raises MessageUnreadable('locked') when a server started to work on it after it
        was listed.
        """
        if message.problem and message.problem.code in ("not-a-file", "incomplete"):
            raise MessageUnreadable(message.problem.code, message.problem.detail)
        with self._found(message) as (found, _):
            if found.files.is_locked and message.problem is None:
                code, detail = "locked", "a process has locked its -D file since"
                raise MessageUnreadable(code, detail)
            yield from found.chunks()

    @contextmanager
    def _found(self, message: Message) -> Iterator[tuple[EximOpenFiles, EximPlace]]:
        """Keep the files of a message open.

        Looks at its last place, then for its message id in every queue, split and flat.
        Accepts only the same identity. Raises MessageUnreadable('vanished').
        """
        *parts, name = unescape_name(message.locator).split("/")
        stem = name.removesuffix("-H")
        is_another = False
        for queue, candidate in self._candidates(message, tuple(parts), stem):
            found = self._try(candidate, stem)
            if found is None:
                continue
            try:
                is_here = candidate == tuple(parts)
                if found.identity == message.identity and (
                    is_here or has_content(message, found.chunks)
                ):
                    place = EximPlace(self.url, stem, f"{stem}-H", queue, candidate)
                    yield found, place
                    return
            finally:
                found.close()
            is_another = True
        code = "vanished"
        if is_another:
            raise MessageUnreadable(code, f"{message.native_id} is another message now")
        raise _Gone(code, f"no queue has {message.native_id} any more")

    def _candidates(
        self, message: Message, parts: _Parts, stem: str
    ) -> Iterator[tuple[str, _Parts]]:
        """Yield queues and directories that may contain a message, each once."""
        if {"", ".", ".."} & {*parts, stem} or "/" in stem:
            return
        yield unescape_name(message.queue), parts
        if message.has_twin:
            return
        queues = {MAIN: (MAIN,), FROZEN: (FROZEN,)} | self._queues
        for queue, above in queues.items():
            for below in split_directories(stem):
                if (*above, *below) != parts:
                    yield queue, (*above, *below)

    def is_in_place(self, message: Message) -> bool:
        """Return whether this very message, by its whole content, is at its locator."""
        *parts, name = unescape_name(message.locator).split("/")
        try:
            found = self._try(tuple(parts), name.removesuffix("-H"))
        except MessageUnreadable:
            return False
        if found is None:
            return False
        try:
            return found.identity == message.identity and has_content(
                message, found.chunks
            )
        finally:
            found.close()

    def _try(self, parts: _Parts, stem: str) -> EximOpenFiles | None:
        try:
            with directory(self._root, parts) as descriptor:
                return load(stem, descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(error) from error

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Remove the files of these, in Exim's order: log, body, header, journal.

        A message that a server has locked stays. A crash between body and header leaves
        a message of the same identity, so that the next scan repeats the removal.
        Raises SourceError when the spool does not allow removal.
        """
        if not self.acknowledges:
            return []
        touched: set[_Parts] = set()
        removed = [each.id for each in messages if self._remove(each, touched)]
        for parts in touched:
            sync_directory(self._root, parts)
        return removed

    def _remove(self, message: Message, touched: set[_Parts]) -> bool:
        try:
            with self._found(message) as (found, place):
                return remove(self._root, place, found, touched)
        except _Gone:
            touched.add(tuple(unescape_name(message.locator).split("/")[:-1]))
            return True
        except MessageUnreadable:
            return False


FORMAT = SourceFormat(
    make=EximSpool,
    marks=(MAIN,),
    options={
        "ack": SourceOption("acknowledge", ("keep", "remove")),
        "queues": SourceOption("queues", is_list=True),
    },
    listing={"queues": (MAIN, FROZEN)},
)
