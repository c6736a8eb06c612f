"""Which messages and recipients the operator selects, and in which order. Pure.

Addresses are compared without regard to case, and the U-label and the A-label of a
domain are one (``mail.mailbox.readable``).
"""

import enum
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from msgspec import Struct, field

from drainer.mail.envelope import domain_key, domain_of
from drainer.mail.mailbox import readable
from drainer.mail.message import Message

MIN_DIGITS = 8
"""Digits of a drainer id that name it where drainer cannot check that it is unique."""

_HEX = frozenset("0123456789abcdef")
_SIDES = ("sender", "recipient")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATE = 2**61


class MessageSummary(NamedTuple):
    """The facts of a message that a selection checks."""

    id: str
    native_id: str
    message_id: str
    reverse_path: str
    queue: str
    arrived: datetime
    #: None while the size is not known; then every size matches.
    size: int | None


def summarize(message: Message, size: int | None) -> MessageSummary:
    """Return the facts that a selection checks, for a message that a source listed."""
    return MessageSummary(
        id=message.id,
        native_id=message.native_id,
        message_id=message.message_id,
        reverse_path=message.envelope.reverse_path,
        queue=message.queue,
        arrived=message.arrived,
        size=size,
    )


class MessageIds:
    """Messages by name: a drainer id or the start of one, a queue id, a Message-ID."""

    __slots__ = ("_heads", "_names")

    def __init__(self, words: Iterable[str]) -> None:
        """Take the names as people write them; blank ones name nothing."""
        self._names: set[str] = set()
        self._heads: dict[int, set[str]] = {}
        for word in filter(None, map(str.strip, words)):
            self._names |= {word, word.strip("<>")}
            if len(word) >= MIN_DIGITS and _HEX.issuperset(word.lower()):
                self._heads.setdefault(len(word), set()).add(word.lower())

    def __bool__(self) -> bool:
        return bool(self._names)

    def name(self, message: MessageSummary) -> bool:
        """Return whether a message is one of these."""
        names = self._names
        return (
            message.native_id in names
            or (message.message_id and message.message_id.strip("<>") in names)
            or any(message.id[:n] in heads for n, heads in self._heads.items())
        )


class ExcludePattern:
    """What ``--exclude`` takes: an address, a domain, ``*`` in them, or an id."""

    __slots__ = ("_ids", "_is_domain", "_parts", "_side", "_word")

    def __init__(self, text: str) -> None:
        """Parse one; raise ValueError if it would match nothing or everything."""
        side, colon, rest = text.strip().partition(":")
        self._side = side if colon and side in _SIDES else ""
        word = readable(rest if self._side else text).strip()
        if not word.strip("*@ "):
            raise ValueError(f"{text!r} excludes nothing that could be named")
        self._word = "" if word == "<>" else word.removeprefix("@")
        self._is_domain = "@" not in self._word and word != "<>"
        self._parts = self._word.split("*")
        is_plain = "*" not in word and not self._side
        self._ids = MessageIds([text] if is_plain else ())

    def hits_message(self, message: MessageSummary) -> bool:
        """Return whether it names the message or its sender."""
        if self._ids and self._ids.name(message):
            return True
        return self._side != "recipient" and self._hits(message.reverse_path)

    def hits_recipient(self, forward_path: str) -> bool:
        """Return whether it names this recipient; false for an unknown recipient."""
        hit = bool(forward_path) and self._side != "sender"
        return hit and self._hits(forward_path)

    def _hits(self, mailbox: str) -> bool:
        if self._is_domain:
            return bool(mailbox) and _fits(self._parts, readable(domain_of(mailbox)))
        return _fits(self._parts, readable(mailbox).rstrip("."))


def _fits(parts: list[str], text: str) -> bool:
    """Return whether the text consists of these parts with anything between them."""
    if len(parts) == 1:
        return text == parts[0]
    at, end = len(parts[0]), len(text) - len(parts[-1])
    if at > end or not (text.startswith(parts[0]) and text.endswith(parts[-1])):
        return False
    for part in parts[1:-1]:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


class Selection(Struct, frozen=True, kw_only=True):
    """Which messages and recipients to select; every given condition must match."""

    #: Part of the reverse-path; ``<>`` is the null sender.
    sender: str = ""
    #: Part of the forward-path.
    recipient: str = ""
    #: The recipient's domain.
    domain: str = ""
    older_than: datetime | None = None
    newer_than: datetime | None = None
    larger_than: int | None = None
    smaller_than: int | None = None
    #: Parts of the spool; ``deferred`` includes the folders below it.
    queues: tuple[str, ...] = ()
    #: None matches every name.
    ids: MessageIds | None = None
    exclude: tuple[ExcludePattern, ...] = field(default=())

    @property
    def is_all(self) -> bool:
        """Return whether it selects everything."""
        return self == Selection()

    def takes_message(self, message: MessageSummary) -> bool:
        """Return whether it selects the message as such, whatever its recipients."""
        return (
            self._sent_by(message.reverse_path)
            and (self.older_than is None or message.arrived < self.older_than)
            and (self.newer_than is None or message.arrived > self.newer_than)
            and (message.size is None or self.takes_size(message.size))
            and (not self.queues or any(_in(q, message.queue) for q in self.queues))
            and (self.ids is None or self.ids.name(message))
            and not any(pattern.hits_message(message) for pattern in self.exclude)
        )

    def takes_size(self, size: int) -> bool:
        """Return whether it selects a message of this many bytes."""
        return (self.larger_than is None or size > self.larger_than) and (
            self.smaller_than is None or size < self.smaller_than
        )

    def takes_recipient(self, forward_path: str) -> bool:
        """Return whether it selects a recipient of a selected message."""
        return (
            (not self.recipient or readable(self.recipient) in readable(forward_path))
            and (not self.domain or domain_of(forward_path) == self.domain_key)
            and not any(
                pattern.hits_recipient(forward_path) for pattern in self.exclude
            )
        )

    def takes(self, message: MessageSummary, forward_paths: Iterable[str]) -> bool:
        """Return whether it selects a message because of any of its recipients.

        A message with unknown recipients counts as one recipient without a name.
        """
        return self.takes_message(message) and any(
            self.takes_recipient(path) for path in (tuple(forward_paths) or ("",))
        )

    @property
    def domain_key(self) -> str:
        """Return the one spelling of the domain."""
        return domain_key(self.domain.removeprefix("@"))

    def _sent_by(self, reverse_path: str) -> bool:
        if self.sender == "<>":
            return not reverse_path
        return readable(self.sender).strip("<>") in readable(reverse_path)


def _in(queue: str, place: str) -> bool:
    return place == queue or place.startswith(f"{queue}/")


class SendOrder(enum.StrEnum):
    """In which order messages are sent, if not in the order of the spool."""

    OLDEST = "oldest"
    NEWEST = "newest"
    SMALLEST = "smallest"
    #: Whose lifetime ends first; those past it come last, because it is too late for
    #: them.
    DEADLINE = "deadline"


def order_key(
    order: SendOrder, arrived: datetime, size: int, *, lifetime_began: datetime
) -> int:
    """Return the number by which messages are sorted.

    ``lifetime_began`` is the arrival time of a message whose lifetime ends now.
    """
    if order is SendOrder.SMALLEST:
        return size
    micros = (arrived - _EPOCH) // timedelta(microseconds=1)
    if order is SendOrder.NEWEST:
        return -micros
    late = order is SendOrder.DEADLINE and arrived < lifetime_began
    return micros + _LATE * late


class Choice(Struct, frozen=True, kw_only=True):
    """Which part of a spool a command works on."""

    selection: Selection = field(default_factory=Selection)
    #: At most this many messages.
    limit: int | None = None
    #: None: in the order of the spool, with the recipient domains in turn.
    order: SendOrder | None = None

    @property
    def is_all(self) -> bool:
        """Return whether everything is selected, and in the usual order."""
        return self == Choice()
