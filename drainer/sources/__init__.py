"""Edge in: where spooled mail lies. One file per spool format.

A source only lists, opens and acknowledges; it never decides. Reading is
harmless (promise P9): no method but ``acknowledge`` changes anything.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

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


@runtime_checkable
class Leasing(Protocol):
    """What a source has in addition when drainers of several ledgers share it.

    Nothing is leased before ``lease`` was called: listing stays harmless.
    """

    #: How long a lease that is not renewed lasts.
    lease_seconds: float

    def lease(self, owner: str) -> None:
        """Let ``scan`` lease what it lists for this owner, and skip what others have.

        ``owner`` is 32 hex digits that stay the same for as long as the ledger does.
        """
        ...

    def renew(self) -> None:
        """Prove that the owner lives; called several times per lease. May block."""
        ...

    def begin(self, messages: Sequence[Message]) -> set[str]:
        """Write down that these may be sent; return the ids that may.

        Called before a final dot leaves, and durable on return. A message that is
        left out belongs to somebody else by now. May block; raises SourceError.
        """
        ...

    def leased_elsewhere(self) -> int:
        """Return how many messages living drainers of other ledgers have."""
        ...


@runtime_checkable
class Failing(Protocol):
    """What a source has in addition when it tells delivered mail from other mail."""

    def fail(self, messages: Sequence[Message]) -> list[str]:
        """Do as ``acknowledge``: final, but a recipient of each was not delivered."""
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
    #: Whether ``make`` is called with the URL itself, as of a database.
    takes_url: bool = False
    #: How the name of a file ends that gives the format away; in lower case.
    mark_suffix: str = ""

    def has_marks(self, folder: Path) -> bool:
        """Tell whether a directory looks like such a spool; raises OSError."""
        if any((folder / mark).is_dir() for mark in self.marks):
            return True
        if not self.mark_suffix:
            return False
        with os.scandir(folder) as entries:
            return any(each.name.lower().endswith(self.mark_suffix) for each in entries)
