"""Edge in: where spooled mail lies. One file per spool format.

A source only lists, opens and acknowledges; it never decides. Reading is
harmless (promise P9): no method but ``acknowledge`` changes anything.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from drainer.mail.message import Message, SpooledMessage
from drainer.policy.admission.admit import Admission


class Source(Protocol):
    """A spool that can be drained."""

    #: Canonical URL; the ledger binds it to one primary.
    url: str
    #: Whether acknowledging changes the spool; if not it is never called.
    acknowledges: bool

    def refuse_if_live(self) -> None:
        """Raise UsageError when a running server would deliver the same mail."""
        ...

    def scan(self) -> Iterator[SpooledMessage]:
        """List every message, those with problems too, in the spool's order.

        Raises SourceError when the spool as a whole cannot be read. A single
        unreadable message is listed with its problem.
        """
        ...

    def open(self, message: Message) -> SpooledMessage:
        """Find a message again, fresh from the spool.

        Follows a rename within the spool, as ``acknowledge`` does. Raises
        MessageUnreadable('vanished') when it is gone or the name now belongs to
        another message.
        """
        ...

    def is_in_place(self, message: Message) -> bool:
        """Whether the very message, by its whole content, is at its locator."""
        ...

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Let the spool drop or move these; return the ids that are done.

        Idempotent: a message that is gone already counts as done. One that is
        another message by now, or must stay for a reason of the format, is left
        out of the answer and untouched. Elsewhere than at its locator, the whole
        content must be the recorded one; a message that has a twin is not looked
        for elsewhere. Durable on return.
        """
        ...


@runtime_checkable
class LeasingSource(Protocol):
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
class FailableSource(Protocol):
    """What a source has in addition when it tells delivered mail from other mail."""

    def fail(self, messages: Sequence[Message]) -> list[str]:
        """Do as ``acknowledge``: final, but a recipient of each was not delivered."""
        ...


class LedgerStatus(NamedTuple):
    """Where a message stands in the ledger, for a server that gets it back."""

    #: Forward-paths that are final, and must not be sent to again.
    final: frozenset[str]
    #: Every recipient is final.
    is_finished: bool
    #: It waits for a person, and the server's own attempt would do harm.
    waits: bool


class HeldCount(NamedTuple):
    """What a part of ``LiveSource.take`` took."""

    messages: int = 0
    #: Of these, what the server would bounce at its next failing attempt.
    expiring: int = 0
    #: Mail for this primary that cannot be replayed, and stays with the server.
    left: int = 0


class ReleasedCount(NamedTuple):
    """What ``LiveSource.give_back`` did, in messages."""

    released: int = 0
    #: Of these, what the server would bounce at its next failing attempt.
    expiring: int = 0
    #: Left on hold, and in the note: they wait for a person.
    waiting: int = 0
    #: Finished, so that they were removed.
    removed: int = 0


@runtime_checkable
class LiveSource(Protocol):
    """What a source has in addition when its server runs and sends the same mail.

    Nothing is taken before ``take`` was called: listing stays harmless. ``note`` is
    a file of ours that says what was taken, whatever happens.
    """

    def domains(self) -> tuple[str, ...]:
        """Return the domains whose mail the server keeps for a primary.

        ``.example.org`` stands for those below it. Raises UsageError when that
        cannot be told.
        """
        ...

    def take(self, note: Path, rules: Admission) -> Iterator[HeldCount]:
        """Take what the rules let pass away from the server, part by part.

        Then ``scan`` lists what was taken, by this run or by one that died, and
        nothing else. What others hold is not touched. Raises OwnedElsewhere when
        another process has the note.
        """
        ...

    def give_back(
        self,
        note: Path,
        standings: Callable[[Sequence[str]], Mapping[tuple[str, str], LedgerStatus]],
        *,
        everything: bool = False,
    ) -> ReleasedCount:
        """Give back what was taken and is not finished; remove what is.

        The server learns which recipients are done. What waits for an operator stays,
        unless ``everything``. ``standings`` takes identities, and answers by identity
        and native id; what is absent was never recorded. Idempotent; raises as
        ``take``.
        """
        ...


class SourceOption(NamedTuple):
    """An option: ``?name=value`` in the URL, or a key of a ``[sources.NAME]``."""

    #: The keyword of ``SourceFormat.make`` that takes it.
    keyword: str
    #: The legal values; none = any text.
    legal: tuple[str, ...] = ()
    is_list: bool = False


class SourceFormat(NamedTuple):
    """What the registry knows about one spool format."""

    #: Called with the absolute path, and the options as keywords.
    make: Callable[..., Source]
    #: Directories in a spool that give the format away.
    marks: tuple[str, ...]
    options: Mapping[str, SourceOption]
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
