"""What the readers of queue directories share: list, find again, remove.

A format says where its messages are (``starts``, ``judge``), reads one (``load``), and
names its files in their order of removal. The rest is the same for all.

Identity: SHA-256 over the format's tag, the data that the format keeps stable
(``SourceEntry.stable``) and the first 4 KiB of the content as transmitted, unless the
format says what stands for it (``SourceEntry.head``). A damaged message is identified
by its name and the start of its file.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

from drainer.errors import MessageUnreadable, SourceError
from drainer.mail.content import message_id_of
from drainer.mail.message import Message, Problem, SpooledMessage
from drainer.runtime.folders import owner_of
from drainer.sources.common.files import (
    HELD_BYTES,
    SMALL_FILE_BYTES,
    OpenFiles,
    attach_content,
    canonical,
    directory,
    escape_name,
    has_name,
    not_a_file,
    source_error,
    sync_directory,
    unreadable,
    unusable,
    url_of,
)
from drainer.sources.common.index import PathIndex
from drainer.sources.common.queue_entry import (
    IDENTITY_BYTES,
    OpenEntry,
    SourceEntry,
    damaged_entry,
    is_same,
    read_start,
)
from drainer.sources.common.walk import FilePlace, NameKind, QueueEntry, place_of, walk
from drainer.sources.protocol import UntakenPart

E = TypeVar("E", bound=SourceEntry)
AnyEntry = TypeVar("AnyEntry", bound=SourceEntry)
Acknowledge = Literal["keep", "move", "remove"]
Touched = set[tuple[str, ...]]
"""Directories below the root whose changes are not durable yet."""


class EntryGone(MessageUnreadable):
    """No file of that name is in the queue any more."""


class QueueDirectory(ABC, Generic[E]):
    """A queue directory as a source; ``E`` is what the format knows of a message."""

    #: The scheme of its URLs; the tag of its identities.
    scheme: ClassVar[str]
    #: What the format calls a directory of messages, for people.
    directory_name: ClassVar[str] = "queue"
    #: Directories to walk, in the order of the listing; () is the root itself. Another
    #: one may be absent.
    starts: tuple[tuple[str, ...], ...] = ((),)

    def __init__(
        self, path: str | os.PathLike[str], *, acknowledge: Acknowledge = "keep"
    ) -> None:
        """Check that this is a queue directory; raises SourceError.

        ``acknowledge`` says what happens to a message when all its recipients are
        final: ``keep`` changes nothing, ``remove`` deletes its files, ``move`` is for
        formats that have another place for it.
        """
        self._root = canonical(path)
        self.url = url_of(self.scheme, self._root)
        self.acknowledges = acknowledge != "keep"
        self._tag = f"drainer {self.scheme} 1\n".encode()
        self._whereabouts = PathIndex(self.keyed)
        self.check_layout()

    # ---- what a format says

    @abstractmethod
    def check_layout(self) -> None:
        """Raise SourceError unless this looks like such a queue."""

    def refuse_if_live(self) -> None:
        """Raise UsageError when a running server would deliver the same mail.

        By default never: no server sends mail from there.
        """

    def roots(self) -> tuple[Path, ...]:
        """Return the queue directory, which only one ledger may drain."""
        return (Path(self._root),)

    @abstractmethod
    def judge(self, place: FilePlace, is_directory: bool) -> NameKind:  # noqa: FBT001
        """Distinguish messages, directories of the queue and anything else."""

    @abstractmethod
    def load(self, place: FilePlace, descriptor: int, opened: OpenFiles) -> E:
        """Open and read the message of a name in an open directory.

        ``opened`` closes what it opens. Raises FileNotFoundError when the name is gone,
        MessageUnreadable when it cannot be opened.
        """

    def key(self, place: FilePlace) -> str:
        """Return the part of a message's name that stays when the server moves it."""
        return self.native_id(place)

    def native_id(self, place: FilePlace) -> str:
        """Return the name of a message that cannot be read."""
        return place.name

    def broken(self, place: FilePlace, error: MessageUnreadable) -> SourceEntry:
        """Return what is known of a message that cannot be opened: its name."""
        return damaged_entry(self.native_id(place), error, b"", 0)

    # ---- listing

    def entries(self) -> Iterator[QueueEntry]:
        """Yield every message by name, as directories are read; raises SourceError."""
        for start in self.starts:
            yield from self.walk(start)

    def walk(self, start: tuple[str, ...]) -> Iterator[QueueEntry]:
        """Yield the messages below a directory; raises SourceError."""
        try:
            yield from walk(self._root, start, self.judge)
        except OSError as error:
            if not (start and isinstance(error, FileNotFoundError)):
                raise unusable("/".join((self._root, *start)), error) from error

    def other_parts(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield what this source could take, too: name, option, and directory.

        Nothing if the operator has said what to take.
        """
        return iter(())

    def untaken(self) -> list[UntakenPart]:
        """Return those parts that have mail in them."""
        names: dict[tuple[str, str], set[str]] = {}
        try:
            for name, option, start in self.other_parts():
                found = {self.native_id(entry.place) for entry in self.walk(start)}
                names.setdefault((name, option), set()).update(found)
        except OSError as error:
            raise unusable(self._root, error) from error
        return [UntakenPart(*key, len(found)) for key, found in names.items() if found]

    def scan(self) -> Iterator[SpooledMessage]:
        """List the messages in directory order, as they are read."""
        for entry in self.entries():
            spooled = self.list_entry(entry)
            if spooled is not None:
                yield spooled

    def list_entry(self, entry: QueueEntry) -> SpooledMessage | None:
        """Read one; None if it has moved since its directory was read."""
        try:
            if entry.error is not None:
                raise entry.error
            if not entry.is_file:
                raise not_a_file(entry.place.name, entry.descriptor)
            with OpenFiles() as opened:
                draft = self.load(entry.place, entry.descriptor, opened)
                return self._spooled(self._build(draft, entry.place), SMALL_FILE_BYTES)
        except FileNotFoundError:
            return None
        except MessageUnreadable as error:
            return self.list_broken(entry.place, error)

    def list_broken(self, place: FilePlace, error: MessageUnreadable) -> SpooledMessage:
        """List a message that could not be opened; its content is the error."""
        draft = self.broken(place, error)
        return attach_content(self._build(draft, place).message, None, draft.chunks)

    def _build(self, draft: AnyEntry, place: FilePlace) -> OpenEntry[AnyEntry]:
        problem, content, start = draft.problem, None, b""
        try:
            if draft.raw_bytes <= SMALL_FILE_BYTES:
                start, is_whole = read_start(draft.chunks(), 2 * SMALL_FILE_BYTES)
                content = start if is_whole else None
            elif draft.head is None:
                start, _ = read_start(draft.chunks(), HELD_BYTES)
        except MessageUnreadable as error:
            problem = problem or Problem(code=error.code, detail=error.detail)
        head = start if draft.head is None else draft.head
        digest = hashlib.sha256(self._tag + draft.stable + head[:IDENTITY_BYTES])
        message = Message(
            identity=digest.hexdigest()[:32],
            source=self.url,
            native_id=escape_name(draft.native_id),
            queue=draft.queue or place.queue,
            locator=place.locator,
            arrived=draft.arrived,
            envelope=draft.envelope,
            size_bytes=draft.raw_bytes if content is None else len(content),
            client=draft.client,
            login=draft.login,
            flags=draft.flags,
            message_id=message_id_of(head),
            problem=problem,
        )
        return OpenEntry(message, draft, place, content)

    def _spooled(self, found: OpenEntry[E], held: int = HELD_BYTES) -> SpooledMessage:
        message = found.message
        content = found.content if message.size_bytes <= held else None
        return attach_content(message, content, partial(self.stream, message))

    # ---- finding again

    def open(self, message: Message) -> SpooledMessage:
        """Find a message again, anywhere in the queue."""
        with self._found(message) as found:
            return self._spooled(found)

    def stream(self, message: Message) -> Iterator[bytes]:
        """Yield a message's content, after checking that its files are the same."""
        with self._found(message) as found:
            yield from found.draft.chunks()

    @contextmanager
    def _found(self, message: Message) -> Iterator[OpenEntry[E]]:
        """Keep the files of a message open.

        Looks at its last place, then elsewhere. Raises MessageUnreadable('vanished').
        """
        is_another = False
        first = place_of(message.locator)
        for place in self._candidates(first, message):
            with OpenFiles() as opened:
                found = self._try(place, opened)
                if found is not None and is_same(found, message, moved=place != first):
                    yield found
                    return
                is_another = is_another or found is not None
        if is_another:
            raise MessageUnreadable(
                "vanished", f"{message.native_id} is another message now"
            )
        detail = f"no {self.directory_name} has {message.native_id} any more"
        raise EntryGone("vanished", detail)

    def identity_at(self, place: FilePlace) -> str:
        """Return the identity of the message there; '' if it cannot be read."""
        with suppress(MessageUnreadable), OpenFiles() as opened:
            found = self._try(place, opened)
            if found is not None:
                return found.message.identity
        return ""

    def is_in_place(self, message: Message) -> bool:
        """Return whether this very message, by its whole content, is at its locator."""
        try:
            with OpenFiles() as opened:
                found = self._try(place_of(message.locator), opened)
                return found is not None and is_same(found, message, moved=True)
        except MessageUnreadable:
            return False

    def _candidates(self, first: FilePlace, message: Message) -> Iterator[FilePlace]:
        if not first.is_safe:
            return
        yield first
        if message.has_twin:
            return
        try:
            yield from (place for place in self.elsewhere(first) if place != first)
        except OSError as error:
            raise unreadable(error) from error
        except SourceError as error:
            raise MessageUnreadable("unreadable", str(error)) from error

    def elsewhere(self, first: FilePlace) -> Iterator[FilePlace]:
        """Yield where a message may be that is not at its last place.

        By default wherever a listing finds its name. Raises OSError, SourceError.
        """
        for path in self._whereabouts.find(self.key(first)):
            *parts, name = path.split("/")
            yield FilePlace(tuple(parts), name)

    def keyed(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the path of every message, for a search by its name."""
        for entry in self.entries():
            place = entry.place
            yield self.key(place), "/".join((*place.parts, place.name))

    def exists(self, place: FilePlace) -> bool:
        """Return whether there is anything, as far as drainer may look."""
        try:
            with directory(self._root, place.parts) as descriptor:
                return has_name(place.name, descriptor)
        except OSError:
            return False

    def _try(self, place: FilePlace, opened: OpenFiles) -> OpenEntry[E] | None:
        if not place.is_safe:
            return None
        try:
            with directory(self._root, place.parts) as descriptor:
                return self._build(self.load(place, descriptor, opened), place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(error) from error

    # ---- removal

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Remove the files of these; a message that a server works on stays.

        It removes the first file of every message after checking that it is the same,
        and the others after that is durable, so a crash cannot change the order. Raises
        SourceError when the queue does not allow removal.
        """
        if not self.acknowledges:
            return []
        touched: Touched = set()
        drafts: list[SourceEntry] = []
        done = [each.id for each in messages if self._begin(each, drafts, touched)]
        for stage in range(1, max((len(each.files) for each in drafts), default=0)):
            self.sync(touched)
            for draft in drafts:
                for place in draft.files[stage : stage + 1]:
                    self.unlink(place, touched)
        self.sync(touched)
        for draft in drafts:
            self.clean_up(draft)
        return done

    def _begin(
        self, message: Message, drafts: list[SourceEntry], touched: Touched
    ) -> bool:
        """Remove the first file of a message; False when it stays."""
        for _ in range(2):  # a server or a reader may rename it at this moment
            try:
                with self._found(message) as found:
                    if not found.draft.files:
                        return False
                    if self.remove(found, touched):
                        drafts.append(found.draft)
                        return True
            except EntryGone:
                touched.add(place_of(message.locator).parts)
                return True
            except MessageUnreadable:
                return False
        return False

    def remove(self, found: OpenEntry[E], touched: Touched) -> bool:
        """Remove the first file; False when a server has the message, or it is gone."""
        return self.unlink(found.draft.files[0], touched)

    def clean_up(self, draft: SourceEntry) -> None:
        """Clean up after a message whose files are gone."""

    def sync(self, touched: Touched) -> None:
        """Make the removals so far durable, and forget them."""
        for parts in touched:
            sync_directory(self._root, parts)
        touched.clear()

    def unlink(self, place: FilePlace, touched: Touched) -> bool:
        """Remove a file; False when it is gone. Raises SourceError."""
        try:
            with directory(self._root, place.parts) as above, owner_of(above):
                os.unlink(place.name, dir_fd=above)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise unremovable(place, error) from error
        touched.add(place.parts)
        return True


def unremovable(place: FilePlace, error: OSError) -> SourceError:
    """Turn an error that forbids a removal into one for the operator."""
    message = f"cannot remove {place.locator}: {error.strerror}"
    hint = 'use ack = "keep", or run as root or as the owner of the spool'
    return source_error(message, error, hint)
