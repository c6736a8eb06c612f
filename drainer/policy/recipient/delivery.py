"""A message as it was scanned, and as a delivery to try."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from drainer.mail.envelope import AddressError, Recipient, domain_of
from drainer.mail.message import ContentFacts, Message, Problem, SpooledMessage
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.mapping import AddressMapping
from drainer.policy.recipient.state import State


class ClaimedRecipient(Struct, frozen=True, kw_only=True):
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
    #: How often the connection was lost, or 421 came, right after its content.
    drops: int = 0
    #: It gets a transaction of its own: another recipient's filter may have refused for
    #: all.
    solo: bool = False
    #: The sum of the delays that it waited while the primary was reachable.
    spent: timedelta = timedelta(0)
    #: The rule that refused it permanently, or "stop", and since when.
    refusal: str = ""
    refused: datetime | None = None
    #: The number of an earlier recipient that is mapped to the same address: one RCPT
    #: serves both, and both have the same result.
    twin_of: int | None = None

    @property
    def domain(self) -> str:
        """The recipient's domain as the spool has it, in lower case."""
        return domain_of(self.recipient.original or self.recipient.forward_path)


class StoredEvidence(Struct, frozen=True, kw_only=True):
    """What was found about a message's sender, as the ledger keeps it: JSON."""

    #: When drainer first looked, in microseconds since 1970.
    asked: int
    facts: str
    marks: str


class Delivery(Struct, frozen=True, kw_only=True):
    """A message and those of its recipients that are tried together."""

    message: Message
    #: The message's number in the ledger.
    seq: int
    claimed: tuple[ClaimedRecipient, ...]
    #: The name of the route that they take.
    route: str = ""
    #: Present if the message was just read; otherwise the source opens it.
    spooled: SpooledMessage | None = None
    facts: ContentFacts | None = None
    #: In doubt before, or dropped: it is sent alone on its connection.
    alone: bool = False
    #: All recipients of a message that was just scanned.
    whole: bool = False
    #: There is a durable copy of it: a refusal may become final.
    kept: bool = False
    #: What is known about its sender; None if drainer has not looked yet.
    found: StoredEvidence | None = None

    @property
    def confirms(self) -> bool:
        """Return whether this attempt may make a refusal final."""
        nothing = ("", Verdict.STOP)  # a refusal of us is never about the message
        return any(claimed.refusal not in nothing for claimed in self.claimed)

    @property
    def was_refused(self) -> bool:
        """Return whether the primary refused it before."""
        return any(claimed.refused is not None for claimed in self.claimed)

    @property
    def wants_success(self) -> bool:
        """Return whether a sender asked for a report of a delivery."""
        return any("SUCCESS" in each.recipient.notify for each in self.claimed)


class ScannedMessage(Struct, frozen=True, kw_only=True):
    """A message as the scan saw it, with the first state of its recipients."""

    spooled: SpooledMessage
    facts: ContentFacts | None
    #: The problem that holds the message as a whole.
    problem: Problem | None
    #: One per recipient: None for pending, else the problem that holds it.
    problems: tuple[Problem | None, ...]
    #: One per recipient: the name of its route; '' = it has none.
    routes: tuple[str, ...]


def redirect_all(
    claimed: tuple[ClaimedRecipient, ...], redirect: AddressMapping
) -> tuple[ClaimedRecipient, ...]:
    """Return the recipients with their redirected addresses, twins behind their first.

    A recipient whose address does not fit (Admission.objection) stays as it is.
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


def assign_twins(claimed: tuple[ClaimedRecipient, ...]) -> tuple[ClaimedRecipient, ...]:
    """Return recipients after some were removed; none is a twin of a removed one."""
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
    """Split recipients into parts of this many addresses; twins stay together."""
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
