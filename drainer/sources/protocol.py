"""The protocol of sources, which read spooled mail; one folder per spool format.

A source only lists, opens and acknowledges; it decides nothing. Reading is harmless
(promise P9): only ``acknowledge`` changes anything.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from drainer.mail.message import Message, SpooledMessage
from drainer.policy.admission.admit import Admission


class Source(Protocol):
    """A spool that can be drained."""

    #: Canonical URL; the ledger binds it to one primary.
    url: str
    #: Whether acknowledging changes the spool; if not, it is never called.
    acknowledges: bool

    def refuse_if_live(self) -> None:
        """Raise UsageError when a running server would deliver the same mail."""

    def scan(self) -> Iterator[SpooledMessage]:
        """List every message in the order of the spool, also those with problems.

        Raises SourceError when the whole spool cannot be read. A single unreadable
        message is listed with its problem.
        """

    def open(self, message: Message) -> SpooledMessage:
        """Find a message again and read it from the spool.

        Follows a rename within the spool, as ``acknowledge`` does. Raises
        MessageUnreadable('vanished') when it is gone or the name now belongs to
        another message.
        """

    def is_in_place(self, message: Message) -> bool:
        """Return whether this very message, by its whole content, is at its locator."""

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Remove or move these in the spool; return the ids that are done.

        Idempotent: a message that is gone counts as done. The answer leaves out a
        message that is another one now, or that must stay because of its format; it is
        not touched. If the message is not at its locator, its whole content must be the
        recorded one. A message with a twin is searched only at its locator. Durable on
        return.
        """


@runtime_checkable
class StartedSource(Protocol):
    """Additional method of a source that records what drainer starts to send."""

    def begin(self, messages: Sequence[Message]) -> set[str]:
        """Record that these may be sent; return the ids that may.

        Called before a final dot is sent; durable on return. The messages it leaves out
        belong to another drainer or to a server now. May block; raises SourceError.
        """


@runtime_checkable
class LeasingSource(StartedSource, Protocol):
    """Additional methods of a source that drainers of several ledgers share.

    Nothing is leased before ``lease`` is called, so listing is harmless.
    """

    #: How long a lease that is not renewed lasts.
    lease_seconds: float

    def lease(self, owner: str) -> None:
        """Make ``scan`` lease its messages for this owner, and skip those of others.

        ``owner`` is 32 hex digits, the same for the whole life of the ledger.
        """

    def renew(self) -> None:
        """Prove that the owner is alive; called several times per lease. May block."""

    def leased_elsewhere(self) -> int:
        """Return the number of messages leased to running drainers of other ledgers."""


@runtime_checkable
class FailableSource(Protocol):
    """Additional method of a source that separates delivered mail from other mail."""

    def fail(self, messages: Sequence[Message]) -> list[str]:
        """As ``acknowledge``: final, but a recipient of each was not delivered."""


class LedgerStatus(NamedTuple):
    """What the ledger knows of a message, for a source that settles its spool."""

    #: As recorded, with the SHA-256 of its whole content; without recipients.
    message: Message
    #: Forward-paths that are final, so nothing may be sent to them again.
    final: frozenset[str]
    #: Every recipient is final.
    is_finished: bool
    #: It waits for the operator, or is in doubt: a try of the server would do harm.
    waits: bool
    #: drainer tried it or set it aside, and a recipient is not final.
    is_open: bool


class SettlementLedger(Protocol):
    """What a source asks the ledger when it settles its spool."""

    def statuses(
        self, identities: Sequence[str]
    ) -> Mapping[str, Sequence[LedgerStatus]]:
        """Return the recorded messages by identity, which several may share."""

    def attempted(self, source: str) -> Iterable[Message]:
        """Return the messages of a source that its server must not send."""


class HeldCount(NamedTuple):
    """What one step of ``HoldingSource.take`` held."""

    messages: int = 0
    #: How many of these the server would bounce at its next failing attempt.
    expiring: int = 0
    #: Mail for this primary that cannot be replayed and stays with the server.
    left: int = 0


class ReleasedCount(NamedTuple):
    """What ``HoldingSource.give_back`` or ``settle`` did, in messages."""

    released: int = 0
    #: How many of these the server would bounce at its next failing attempt.
    expiring: int = 0
    #: Left on hold, and in the note: drainer or the operator decides.
    waiting: int = 0
    #: Finished, and therefore removed.
    removed: int = 0
    #: Left alone by ``settle``: each only starts like a message of the ledger.
    unlike: int = 0


class UntakenPart(NamedTuple):
    """A part of a spool that a source leaves out, although mail is in it."""

    #: What people call it: ``hold``, ``folder Sub``.
    name: str
    #: The option that takes it.
    option: str
    messages: int


@runtime_checkable
class PartialSource(Protocol):
    """An additional method of a source that takes parts of its spool."""

    def untaken(self) -> Sequence[UntakenPart]:
        """Return parts with mail that no option takes or leaves out; SourceError."""


@runtime_checkable
class SettledSource(Protocol):
    """A method of a source that its server may start on after a drain."""

    def settle(
        self, note: Path, ledger: SettlementLedger, *, dry_run: bool = False
    ) -> ReleasedCount:
        """Apply what the ledger knows to the whole spool, the original of a copy.

        With ``dry_run`` only counts. Raises UsageError while a server works that this
        source does not share its spool with, and the other errors of ``take``.
        """


@runtime_checkable
class HoldingSource(SettledSource, Protocol):
    """Additional methods of a source that puts what drainer sends on hold.

    So its server, which runs or may start, does not send the same mail. Nothing is held
    before ``take`` is called, so listing is harmless. ``note`` is a file of ours that
    records the held messages, also through a crash.
    """

    #: Names the spool: sources of the same one share a note.
    holds_key: str

    def peek(self, note: Path) -> None:
        """Learn from the note what earlier runs hold, to list it; changes nothing."""

    def take(self, note: Path, rules: Admission | None) -> Iterator[HeldCount]:
        """Hold, step by step, the messages that the rules admit.

        Then ``scan`` lists only what may be sent. It does not touch what others hold.
        Without rules it takes nothing more than an earlier run holds. Raises
        OwnedElsewhere when another process has the note, UsageError when a server works
        that this source does not share its spool with.
        """

    def finish(
        self, messages: Sequence[Message], ledger: SettlementLedger
    ) -> list[str]:
        """Acknowledge as ``Source.acknowledge``; compare content and recipients too."""

    def give_back(
        self, note: Path, ledger: SettlementLedger, *, everything: bool = False
    ) -> ReleasedCount:
        """Settle what is on hold: remove it, leave it there, or release it.

        The server learns which recipients are done. Messages that wait stay on hold,
        unless ``everything``. Idempotent; raises the errors of ``take``.
        """


class Nexthop(NamedTuple):
    """Where a backup's server sends a domain's mail."""

    #: A host name or address, or ``unix:PATH``; '' = the hosts of its MX records.
    host: str = ""
    port: int = 25
    #: ``smtp`` or ``lmtp``.
    protocol: str = "smtp"
    #: What a person must look at, because drainer cannot do as the server does.
    doubt: str = ""
    #: Several servers, each HOST:PORT, equal ones together; ``host`` is the first.
    tiers: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def to_servers(
        cls, tiers: Sequence[Sequence[tuple[str, int]]], protocol: str, doubt: str = ""
    ) -> "Nexthop":
        """Return the next hop to one server or to several, equal ones together."""
        host, port = tiers[0][0]
        named = tuple(
            tuple(f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in tier)
            for tier in tiers
        )
        is_alone = len(named) == len(named[0]) == 1
        return cls(host, port, protocol, doubt, () if is_alone else named)


@runtime_checkable
class LiveSource(HoldingSource, Protocol):
    """A source whose server runs and sends the same mail."""

    def domains(self) -> tuple[str, ...]:
        """Return the domains for which the server keeps mail for a primary.

        ``.example.org`` means its subdomains. Raises UsageError when they cannot be
        found out.
        """

    @property
    def hostname(self) -> str:
        """The server's own name."""

    def nexthops(self) -> Mapping[Nexthop, Sequence[str]]:
        """Return these domains by where the server sends them.

        Raises UsageError when drainer cannot do as the server does.
        """


class SourceOption(NamedTuple):
    """An option: ``?name=value`` in the URL, or a key of a ``[sources.NAME]`` table."""

    #: The keyword of ``SourceFormat.make`` that takes it.
    keyword: str
    #: The legal values; none = any text.
    legal: tuple[str, ...] = ()
    is_list: bool = False


class SourceFormat(NamedTuple):
    """What the registry knows about one spool format."""

    #: Called with the absolute path, and the options as keywords.
    make: Callable[..., Source]
    #: Directories that identify a spool of this format.
    marks: tuple[str, ...]
    options: Mapping[str, SourceOption]
    #: Options of a source that is only listed, if not given.
    listing: Mapping[str, object] = {}
    #: Whether ``make`` gets the URL itself, as for a database.
    takes_url: bool = False
    #: Ends of file names that identify the format; in lower case.
    mark_suffix: str = ""

    def has_marks(self, folder: Path) -> bool:
        """Return whether a directory looks like such a spool; raises OSError."""
        if any((folder / mark).is_dir() for mark in self.marks):
            return True
        if not self.mark_suffix:
            return False
        with os.scandir(folder) as entries:
            return any(each.name.lower().endswith(self.mark_suffix) for each in entries)
