"""Units of work: a message as it was scanned, and as it is to be tried."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from drainer.mail.envelope import Recipient, domain_of
from drainer.mail.message import Facts, Message, Problem, Spooled
from drainer.policy.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
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

    @property
    def domain(self) -> str:
        """The recipient's domain, lower-cased."""
        return domain_of(self.recipient.forward_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A message and those of its recipients that are to be tried together."""

    message: Message
    #: The message's number in the ledger.
    seq: int
    claimed: tuple[Claimed, ...]
    #: Present when the message was just read; otherwise the source opens it.
    spooled: Spooled | None = None
    facts: Facts | None = None
    #: In doubt before, or dropped: it goes alone on its connection.
    alone: bool = False
    #: All recipients of a message that was just scanned.
    whole: bool = False
    #: There is a durable copy of it: a refusal may become final.
    kept: bool = False

    @property
    def confirms(self) -> bool:
        """Whether this attempt may make a refusal final."""
        return any(claimed.refusal for claimed in self.claimed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A message as the scan saw it, with the first state of its recipients."""

    spooled: Spooled
    facts: Facts | None
    #: What holds the message as a whole.
    problem: Problem | None
    #: One per recipient: '' for pending, else the code of what holds it.
    problems: tuple[str, ...]
