"""``mbox:FILE``: messages that a backup delivered into one file.

trace_headers finds the envelope; the reverse path may also come from the From_ line.
framing finds where a message starts and ends. Notes of readers in a message
(Status, X-UID and so on) are not part of it.

Identity: SHA-256 over a tag, the From_ line and the first 4 KiB of the stored message,
with its delivery fields but without those that readers change. So copies for two
recipients are two messages. The locator is an offset; in a rewritten file, drainer
searches a message by its identity. It never removes anything: only the ledger
remembers.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from drainer.errors import MessageUnreadable, SourceError, SourceLost
from drainer.mail.content import MAX_HEADER_BYTES, crlf, message_id_of
from drainer.mail.message import Message, Problem, SpooledMessage
from drainer.sources.common.files import (
    CHUNK_BYTES,
    HELD_BYTES,
    attach_content,
    escape_name,
    has_content,
)
from drainer.sources.common.queue_entry import time_of
from drainer.sources.common.trace_envelope import TraceRules
from drainer.sources.common.trace_headers import TRACE_OPTIONS, Trace, cut, read_trace
from drainer.sources.maildir.layout import compression
from drainer.sources.mbox.file import MboxSnapshot, canonical_file, open_mbox, signature
from drainer.sources.mbox.framing import Span, Spans, has_header_end, identity
from drainer.sources.mbox.quotes import VARIANTS, unquote
from drainer.sources.mbox.reader_state import reader_state
from drainer.sources.mbox.separator import MMDF_LINE, WINDOW_BYTES, parse_arrival
from drainer.sources.protocol import SourceFormat, SourceOption


class _Item(Struct, frozen=True):
    """A message of the open file: its place and its start."""

    span: Span
    from_line: bytes
    #: The whole content if it is small, else at least the header section.
    head: bytes
    identity: str

    @property
    def start(self) -> int:
        """Where the content starts."""
        return self.span.start + len(self.from_line)

    @property
    def size(self) -> int:
        """Bytes of the stored content."""
        return max(self.span.content_end - self.start, 0)


class _MboxMessage(NamedTuple):
    """The data of a message's header section."""

    trace: Trace
    #: Byte ranges in it that are not part of the mail, in order.
    ranges: tuple[tuple[int, int], ...]
    flags: tuple[str, ...]


class _Index(NamedTuple):
    """The place of each message in one state of the file."""

    signature: tuple[int, ...]
    places: dict[str, tuple[int, ...]]


class Mbox:
    """An mbox file as a source."""

    acknowledges = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        variant: str = "plain",
        acknowledge: str = "keep",  # noqa: ARG002 - there is no other value
        **rules: str,
    ) -> None:
        """Check that the file exists; raises SourceError.

        ``variant`` says how its writer quoted From_ lines; ``plain`` leaves them
        unchanged. ``rules`` are those of the trace headers.
        """
        self._path = canonical_file(path)
        self._variant = variant
        self._rules = TraceRules(**rules)
        self._index = _Index((), {})
        self.url = f"mbox:{self._path}"

    def refuse_if_live(self) -> None:
        """Never refuse: no server sends mail from an mbox."""

    def roots(self) -> tuple[Path, ...]:
        """Return the file, which only one ledger may drain."""
        return (Path(self._path),)

    def scan(self) -> Iterator[SpooledMessage]:
        """List the messages in the order of the file, in one pass.

        Raises SourceError also when the file is rewritten in the meantime.
        """
        with open_mbox(self._path) as file:
            if MMDF_LINE.match(file.read(0, WINDOW_BYTES)):
                message = f"{self._path} is an MMDF file, not an mbox"
                hint = "convert it first: open it with mutt, and save all to a Maildir"
                raise SourceError(message, hint=hint)
            try:
                for item in self._items(file):
                    spooled = self._spooled(file, item)
                    if not file.is_same():
                        message = f"{self._path} was rewritten while it was read"
                        hint = "stop the program that changes it, then run this again"
                        raise SourceError(message, hint=hint)
                    yield spooled
            except MessageUnreadable as error:
                message = f"cannot read {self._path}: {error.detail}"
                raise SourceLost(message, hint="check the disk") from error

    def _spans(self, file: MboxSnapshot) -> Spans:
        return Spans(file.read, file.size, self._variant)

    def _items(self, file: MboxSnapshot) -> Iterator[_Item]:
        spans = self._spans(file)
        for span in spans:
            yield _load(spans, span)

    def _spooled(self, file: MboxSnapshot, item: _Item) -> SpooledMessage:
        parsed = self._parse(item)
        content = None
        size = item.size
        if len(item.head) == size <= HELD_BYTES:
            content = b"".join(self._decode(iter((item.head,)), parsed))
            size = len(content)
        written = time_of(file.status.st_mtime)
        message = Message(
            identity=item.identity,
            source=self.url,
            native_id=f"{item.span.start}",
            queue=escape_name(os.path.basename(self._path)),  # noqa: PTH119
            locator=f"{item.span.start}",
            arrived=parse_arrival(item.from_line) or written,
            envelope=parsed.trace.envelope,
            size_bytes=size,
            flags=parsed.flags,
            message_id=message_id_of(item.head),
            problem=_problem(item, parsed.flags) or parsed.trace.problem,
        )
        return attach_content(message, content, partial(self.stream, message))

    def _parse(self, item: _Item) -> _MboxMessage:
        trace = read_trace(item.head, self._rules, from_line=item.from_line)
        has_lengths = self._variant.startswith("mboxcl")
        state = reader_state(item.head, has_lengths=has_lengths)
        ranges = tuple(sorted({*trace.stripped, *state.ranges}))
        return _MboxMessage(trace, ranges, state.flags)

    def _decode(self, chunks: Iterator[bytes], parsed: _MboxMessage) -> Iterator[bytes]:
        """Return the content as it was transmitted."""
        return crlf(unquote(cut(chunks, parsed.ranges), self._variant))

    def open(self, message: Message) -> SpooledMessage:
        """Find a message again, also after the file was rewritten."""
        with _reopen(self._path) as file:
            return self._spooled(file, self._find(file, message))

    def stream(self, message: Message) -> Iterator[bytes]:
        """Yield a message's content; the last piece after checking that it is whole."""
        with _reopen(self._path) as file:
            item = self._find(file, message)
            held = b""
            for chunk in self._contents(file, item):
                if held:
                    yield held
                held = chunk
            if not file.is_same() and self._at(file, item.span.start) != item:
                raise MessageUnreadable(
                    "vanished", f"{self._path} was rewritten meanwhile"
                )
            yield held

    def _contents(self, file: MboxSnapshot, item: _Item) -> Iterator[bytes]:
        return self._decode(_chunks(file, item), self._parse(item))

    def is_in_place(self, message: Message) -> bool:
        """Return whether this very message, by its whole content, is at its locator."""
        try:
            with _reopen(self._path) as file:
                item = self._at(file, _offset(message, file.size))
                return (
                    item is not None
                    and item.identity == message.identity
                    and has_content(message, partial(self._contents, file, item))
                )
        except MessageUnreadable:
            return False

    def _at(self, file: MboxSnapshot, start: int) -> _Item | None:
        spans = self._spans(file)
        return _load(spans, spans.at(start)) if start < file.size else None

    def _find(self, file: MboxSnapshot, message: Message) -> _Item:
        """Return a message by its offset, else by its identity and content."""
        item = self._at(file, _offset(message, file.size))
        if item is not None and item.identity == message.identity:
            return item
        if message.has_twin:
            detail = f"{self._path} has changed, and now contains a similar one"
            raise MessageUnreadable("vanished", detail)
        if self._index.signature != signature(file.status):
            places: dict[str, tuple[int, ...]] = {}
            for each in self._items(file):
                starts = places.get(each.identity, ())
                places[each.identity] = (*starts, each.span.start)
            self._index = _Index(signature(file.status), places)
        for start in self._index.places.get(message.identity, ()):
            item = self._at(file, start)
            if item is not None and has_content(
                message, partial(self._contents, file, item)
            ):
                return item
        raise MessageUnreadable(
            "vanished", f"{self._path} does not contain it any more"
        )

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Do nothing: an mbox is never changed."""
        del messages
        return []


def _load(spans: Spans, span: Span) -> _Item:
    line = spans.from_line(span.start)
    start = span.start + len(line)
    size = max(span.content_end - start, 0)
    head = spans.read(start, size if size <= HELD_BYTES else CHUNK_BYTES)
    if len(head) < size and not has_header_end(head):
        head = spans.read(start, min(size, MAX_HEADER_BYTES))
    changed = reader_state(head, has_lengths=True).ranges
    kept = b"".join(cut(iter((head,)), changed))
    return _Item(span, line, head[:size], identity(line, kept))


def _offset(message: Message, otherwise: int) -> int:
    return int(message.locator) if message.locator.isdecimal() else otherwise


def _chunks(file: MboxSnapshot, item: _Item) -> Iterator[bytes]:
    for offset in range(item.start, item.span.content_end, CHUNK_BYTES):
        yield file.read(offset, min(CHUNK_BYTES, item.span.content_end - offset))


@contextmanager
def _reopen(path: str) -> Iterator[MboxSnapshot]:
    """Keep the file open for one message; an error becomes that message's problem."""
    try:
        with open_mbox(path) as file:
            yield file
    except SourceError as error:
        code = "unreadable" if os.path.lexists(path) else "vanished"
        raise MessageUnreadable(code, str(error)) from error


def _problem(item: _Item, flags: Sequence[str]) -> Problem | None:
    """Judge its place and its start; its headers are judged later."""
    packed = "" if item.from_line else compression(item.head)
    if packed:
        return Problem(code="compressed", detail=packed)
    if item.span.code:
        return Problem(code=item.span.code, detail=item.span.detail)
    if not item.size:
        return Problem(code="corrupt", detail="it is empty")
    if len(item.head) < item.size and not has_header_end(item.head):
        detail = f"no end of the header section in {len(item.head)} bytes"
        return Problem(code="corrupt", detail=detail)
    for flag in ("trashed", "draft"):
        if flag in flags:
            return Problem(code=flag, detail="a mail reader set the flag")
    return None


FORMAT = SourceFormat(
    make=Mbox,
    marks=(),
    options={
        "ack": SourceOption("acknowledge", ("keep",)),
        "variant": SourceOption("variant", VARIANTS),
        **TRACE_OPTIONS,
    },
)
