"""Edge in: where spooled mail lies. One file per spool format.

A source only lists, opens and acknowledges; it never decides. Reading is
harmless (promise P9): no method but ``acknowledge`` changes anything.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from drainer.mail.message import Message, Spooled


class Source(Protocol):
    """A spool that can be drained."""

    #: Canonical URL; the ledger binds it to one primary.
    url: str
    #: Whether acknowledging changes the spool; if not it is never called.
    acknowledges: bool

    def refuse_if_live(self) -> None:
        """Raise UsageError when a running server would deliver the same mail."""
        ...

    def scan(self) -> Iterator[Spooled]:
        """List every message, those with problems too, in the spool's order.

        Raises SourceError when the spool as a whole cannot be read. A single
        unreadable message is listed with its problem.
        """
        ...

    def open(self, message: Message) -> Spooled:
        """Find a message again, fresh from the spool.

        Follows a rename within the spool. Raises MessageUnreadable('vanished')
        when it is gone or the name now belongs to another message.
        """
        ...

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Let the spool drop or move these; return the ids that are done.

        Idempotent: a message that is gone already counts as done. One that is
        another message by now, or must stay for a reason of the format, is left
        out of the answer and untouched. Durable on return.
        """
        ...


class Option(NamedTuple):
    """An option: ``?name=value`` in the URL, or a key of a ``[sources.NAME]``."""

    #: The keyword of ``Format.make`` that takes it.
    keyword: str
    #: The legal values; none = any text.
    legal: tuple[str, ...] = ()
    is_list: bool = False


class Format(NamedTuple):
    """What the registry knows about one spool format."""

    #: Called with the absolute path, and the options as keywords.
    make: Callable[..., Source]
    #: Directories in a spool that give the format away.
    marks: tuple[str, ...]
    options: Mapping[str, Option]
    #: Options of a source that is only listed, unless they are given.
    listing: Mapping[str, object] = {}
