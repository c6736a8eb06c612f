"""Units of work: a message as it was scanned, and as it is to be tried."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from drainer.mail.envelope import AddressError, Recipient, domain_of
from drainer.mail.message import ContentFacts, Message, Problem, SpooledMessage
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.mapping import AddressMapping
from drainer.policy.recipient.state import State
from drainer.runtime.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRecipient:
    """A recipient that this worker may try now, as the ledger has it."""

    #: Its number within the message.
    n: int
    recipient: Recipient
    state: State = State.PENDING
    attempts: int = 0
    #: How often the reply to its final dot was lost.
    doubts: int = 0
    #: An operator's release overrules the problems that may be overruled.
    released: bool = False
    #: How often the connection went, or 421 came, right after its content.
    drops: int = 0
    #: It goes in a transaction of its own: another's filter may have refused for all.
    solo: bool = False
    #: The delays that it has waited while the primary was reachable.
    spent: timedelta = timedelta(0)
    #: The rule that refused it for good, or "stop", and since when.
    refusal: str = ""
    refused: datetime | None = None
    #: The number of a recipient before it that is mapped to the same address: one
    #: RCPT serves both, and both end alike.
    twin_of: int | None = None

    @property
    def domain(self) -> str:
        """The recipient's domain as the spool has it, lower-cased."""
        return domain_of(self.recipient.original or self.recipient.forward_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvidence:
    """What was found about a message's sender, as the ledger keeps it: JSON."""

    #: When it was asked first, in microseconds since 1970.
    asked: int
    facts: str
    marks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message and those of its recipients that are to be tried together."""

    message: Message
    #: The message's number in the ledger.
    seq: int
    claimed: tuple[ClaimedRecipient, ...]
    #: Present when the message was just read; otherwise the source opens it.
    spooled: SpooledMessage | None = None
    facts: ContentFacts | None = None
    #: In doubt before, or dropped: it goes alone on its connection.
    alone: bool = False
    #: All recipients of a message that was just scanned.
    whole: bool = False
    #: There is a durable copy of it: a refusal may become final.
    kept: bool = False
    #: What is known about its sender; None when nobody has looked.
    found: StoredEvidence | None = None

    @property
    def confirms(self) -> bool:
        """Whether this attempt may make a refusal final."""
        nothing = ("", Verdict.STOP)  # a refusal of us is never the message's
        return any(claimed.refusal not in nothing for claimed in self.claimed)

    @property
    def wants_success(self) -> bool:
        """Whether somebody asked to be told of a delivery."""
        return any(claimed.recipient.wants_success for claimed in self.claimed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedMessage:
    """A message as the scan saw it, with the first state of its recipients."""

    spooled: SpooledMessage
    facts: ContentFacts | None
    #: What holds the message as a whole.
    problem: Problem | None
    #: One per recipient: '' for pending, else the code of what holds it.
    problems: tuple[str, ...]


def redirected(
    claimed: tuple[ClaimedRecipient, ...], redirect: AddressMapping
) -> tuple[ClaimedRecipient, ...]:
    """Return the recipients as they are sent to, twins behind their first.

    One whose address does not fit (Admission.objection) stays as it is.
    """
    groups: dict[str, list[ClaimedRecipient]] = {}
    for each in claimed:
        try:
            recipient = redirect.applied(each.recipient)
        except AddressError:
            recipient = each.recipient
        twins = groups.setdefault(recipient.forward_path, [])
        twin_of = twins[0].n if twins else None
        twins.append(replace(each, recipient=recipient, twin_of=twin_of))
    return tuple(each for twins in groups.values() for each in twins)


def twinned(claimed: tuple[ClaimedRecipient, ...]) -> tuple[ClaimedRecipient, ...]:
    """Return recipients of which some were taken away; nobody is a twin of those."""
    if all(each.twin_of is None for each in claimed):
        return claimed
    first: dict[str, int] = {}
    found = []
    for each in claimed:
        n = first.setdefault(each.recipient.forward_path, each.n)
        found.append(replace(each, twin_of=None if n == each.n else n))
    return tuple(found)


def parts(
    claimed: tuple[ClaimedRecipient, ...], size: int
) -> Iterator[tuple[ClaimedRecipient, ...]]:
    """Cut recipients into parts of so many addresses; twins stay together."""
    part: list[ClaimedRecipient] = []
    addresses = 0
    for each in claimed:
        addresses += each.twin_of is None
        if addresses > size:
            yield tuple(part)
            part, addresses = [], 1
        part.append(each)
    if part:
        yield tuple(part)
