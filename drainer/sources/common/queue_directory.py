"""What the readers of queue directories share: list, find again, remove.

A format says where its messages are (``judge``), reads one (``load``), and names its
files in the order in which they may be removed. The rest is the same for all:
identity, damage, messages that moved, removal.

Identity: SHA-256 over the format's tag, the data that the format keeps stable
(``SourceEntry.stable``) and the first 4 KiB of the content as transmitted. A damaged
message is identified by its name and the start of its file.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from drainer.errors import MessageUnreadable, SourceError
from drainer.mail.content import HeldContent, message_id_of
from drainer.mail.envelope import Envelope
from drainer.mail.message import Message, Problem, SpooledMessage
from drainer.runtime.folders import owner_of
from drainer.sources.common.files import (
    HELD_BYTES,
    RereadContent,
    beginning,
    canonical,
    directory,
    escape_name,
    not_a_file,
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
    is_same,
    time_of,
)
from drainer.sources.common.walk import FilePlace, NameKind, QueueEntry, place_of, walk


class EntryGone(MessageUnreadable):
    """No file of that name is in the queue any more."""


class QueueDirectory(ABC):
    """A queue directory as a source."""

    #: The scheme of its URLs; the tag of its identities.
    scheme: ClassVar[str]
    #: Directory to read a message's file from: ``.`` for the root, or one below it.
    start: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        acknowledge: Literal["keep", "remove"] = "keep",
    ) -> None:
        """Check that this is a queue directory; raises SourceError.

        ``acknowledge`` says what happens to a message when all its recipients are
        final: ``keep`` changes nothing, ``remove`` deletes its files.
        """
        self._root = canonical(path)
        self.url = url_of(self.scheme, self._root)
        self.acknowledges = acknowledge == "remove"
        self._whereabouts = PathIndex(self._keyed)
        self.check_layout()

    # ---- what a format says

    @abstractmethod
    def check_layout(self) -> None:
        """Raise SourceError unless this looks like such a queue."""

    @abstractmethod
    def refuse_if_live(self) -> None:
        """Raise UsageError when a running server would deliver the same mail."""

    def roots(self) -> tuple[Path, ...]:
        """Return the queue directory, which only one ledger may drain."""
        return (Path(self._root),)

    @abstractmethod
    def judge(self, place: FilePlace, is_directory: bool) -> NameKind:  # noqa: FBT001
        """Distinguish messages, directories of the queue and anything else."""

    @abstractmethod
    def load(self, place: FilePlace, descriptor: int, stack: ExitStack) -> SourceEntry:
        """Open and read the message of a name in an open directory.

        ``stack`` closes what it opens. Raises FileNotFoundError when the name is gone,
        MessageUnreadable when it cannot be opened.
        """

    def key(self, place: FilePlace) -> str:
        """Return the part of a message's name that stays when the server moves it."""
        return place.name

    def native_id(self, place: FilePlace) -> str:
        """Return the name of a message that cannot be read."""
        return place.name

    def may_remove(self, place: FilePlace) -> bool:
        """Return whether no server works on the message; called just before removal."""
        return place.is_safe

    def removed(self, draft: SourceEntry) -> None:  # noqa: B027 - most do nothing
        """Clean up after a message whose files are gone."""

    # ---- listing

    def entries(self) -> Iterator[QueueEntry]:
        """Yield every message by its name, as the directories are read."""
        yield from walk(self._root, self.start, self.judge)

    def scan(self) -> Iterator[SpooledMessage]:
        """List the messages in directory order, as they are read."""
        try:
            for entry in self.entries():
                spooled = self._list(entry)
                if spooled is not None:
                    yield spooled
        except OSError as error:
            raise unusable("/".join((self._root, *self.start)), error) from error

    def _list(self, entry: QueueEntry) -> SpooledMessage | None:
        """Read one; None if it has moved since its directory was read."""
        try:
            if entry.error is not None:
                raise entry.error
            if not entry.is_file:
                raise not_a_file(entry.place.name, entry.descriptor)
            with ExitStack() as stack:
                draft = self.load(entry.place, entry.descriptor, stack)
                return self._spooled(self._build(draft, entry.place))
        except FileNotFoundError:
            return None
        except MessageUnreadable as error:
            return self._broken(entry.place, error)

    def _build(self, draft: SourceEntry, place: FilePlace) -> OpenEntry:
        problem, content, head = draft.problem, None, b""
        try:
            if draft.raw_bytes <= HELD_BYTES:
                head = content = b"".join(draft.chunks())
            else:
                head = beginning(draft.chunks(), HELD_BYTES)
        except MessageUnreadable as error:
            problem = problem or Problem(code=error.code, detail=error.detail)
        message = Message(
            identity=self._identity(draft.stable, head),
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
        return OpenEntry(message, draft, content)

    def _spooled(self, found: OpenEntry) -> SpooledMessage:
        message, content = found.message, found.content
        if content is not None:
            return SpooledMessage(message=message, content=HeldContent(content))
        return SpooledMessage(
            message=message, content=RereadContent(partial(self.stream, message))
        )

    def _broken(self, place: FilePlace, error: MessageUnreadable) -> SpooledMessage:
        """List a message that could not be opened, by its name."""
        name = self.native_id(place)
        message = Message(
            identity=self._identity((b"broken", os.fsencode(name)), b""),
            source=self.url,
            native_id=escape_name(name),
            queue=place.queue,
            locator=place.locator,
            arrived=time_of(0),
            envelope=Envelope(),
            problem=Problem(code=error.code, detail=error.detail),
        )
        return SpooledMessage(
            message=message, content=RereadContent(partial(self.stream, message))
        )

    def _identity(self, stable: Iterable[bytes], head: bytes) -> str:
        digest = hashlib.sha256(f"drainer {self.scheme} 1\n".encode())
        for each in stable:
            digest.update(b"%d\n" % len(each) + each)
        digest.update(b"\n" + head[:IDENTITY_BYTES])
        return digest.hexdigest()[:32]

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
    def _found(self, message: Message) -> Iterator[OpenEntry]:
        """Keep the files of a message open.

        Looks at its last place, then for its name in the whole queue. Raises
        MessageUnreadable('vanished').
        """
        is_another = False
        first = place_of(message.locator)
        for place in self._candidates(first, message):
            with ExitStack() as stack:
                found = self._try(place, stack)
                if found is not None and is_same(found, message, moved=place != first):
                    yield found
                    return
                is_another = is_another or found is not None
        code = "vanished"
        if is_another:
            raise MessageUnreadable(code, f"{message.native_id} is another message now")
        raise EntryGone(code, f"the queue has no {message.native_id} any more")

    def is_in_place(self, message: Message) -> bool:
        """Return whether this very message, by its whole content, is at its locator."""
        place = place_of(message.locator)
        if not place.is_safe:
            return False
        try:
            with ExitStack() as stack:
                found = self._try(place, stack)
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
            paths = list(self._whereabouts.find(self.key(first)))
        except OSError as error:
            raise unreadable(error) from error
        for path in paths:
            *parts, name = path.split("/")
            if (place := FilePlace(tuple(parts), name)) != first:
                yield place

    def _keyed(self) -> Iterator[tuple[str, str]]:
        for entry in self.entries():
            place = entry.place
            yield self.key(place), "/".join((*place.parts, place.name))

    def _try(self, place: FilePlace, stack: ExitStack) -> OpenEntry | None:
        try:
            with directory(self._root, place.parts) as descriptor:
                return self._build(self.load(place, descriptor, stack), place)
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
        touched: set[tuple[str, ...]] = set()
        drafts: list[SourceEntry] = []
        done = [each.id for each in messages if self._begin(each, drafts, touched)]
        for stage in range(1, max((len(each.files) for each in drafts), default=0)):
            self._sync(touched)
            for draft in drafts:
                for place in draft.files[stage : stage + 1]:
                    self._unlink(place, touched)
        self._sync(touched)
        for draft in drafts:
            self.removed(draft)
        return done

    def _begin(
        self,
        message: Message,
        drafts: list[SourceEntry],
        touched: set[tuple[str, ...]],
    ) -> bool:
        """Remove the first file of a message; False when it stays."""
        try:
            with self._found(message) as found:
                draft = found.draft
                place = place_of(found.message.locator)
                if not draft.files or not self.may_remove(place):
                    return False
                self._unlink(draft.files[0], touched)
                drafts.append(draft)
        except EntryGone:
            touched.add(place_of(message.locator).parts)
        except MessageUnreadable:
            return False
        return True

    def _sync(self, touched: set[tuple[str, ...]]) -> None:
        """Make the removals so far durable."""
        for parts in touched:
            sync_directory(self._root, parts)
        touched.clear()

    def _unlink(self, place: FilePlace, touched: set[tuple[str, ...]]) -> None:
        try:
            with directory(self._root, place.parts) as above, owner_of(above):
                os.unlink(place.name, dir_fd=above)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            message = f"cannot remove {place.locator}: {error.strerror}"
            hint = 'use ack = "keep", or run as root'
            raise SourceError(message, hint=hint) from error
        touched.add(place.parts)
