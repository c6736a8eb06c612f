"""Durable memory: what was scanned, tried and decided.

One process writes for a worker (drainer.ledger.writer.process); a method returns when
its group commit is durable. Reading (drainer.ledger.reader) never waits for it.
"""

import enum
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from msgspec import Struct, field

from drainer.mail.message import ContentFacts
from drainer.policy.recipient.delivery import Delivery
from drainer.policy.recipient.settle import Settlement

Row = dict[str, Any]
"""Column values by name."""
Values = tuple[Any, ...]
"""Column values in the order that a statement names them."""

MANY = 500
"""Rows at a time, and values in one condition: databases have limits."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Return microseconds since 1970 UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the moment, in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


class AttemptIds:
    """Makes the ids of a process's attempts: 63 bits that grow with time.

    Processes that share a ledger make different ones, unless they drew the same tag.
    """

    _TAG_BITS = 18
    _UNIT_MICROS = 64

    def __init__(self) -> None:
        """Draw the tag at the first attempt, because a fork would share it."""
        self._tag: int | None = None
        self._last = 0

    def make(self) -> int:
        """Return a new one."""
        if self._tag is None:
            self._tag = random.getrandbits(self._TAG_BITS)
        now = time.time_ns() // (1000 * self._UNIT_MICROS)
        self._last = max(self._last + 1, now)
        return self._last << self._TAG_BITS | self._tag

    @classmethod
    def time_of(cls, id_: int) -> datetime:
        """Return when an id was made, in UTC; up to a unit early."""
        return from_micros((id_ >> cls._TAG_BITS) * cls._UNIT_MICROS)


new_attempt_id = AttemptIds().make
time_of_attempt = AttemptIds.time_of


class DecisionKind(enum.StrEnum):
    """The closed list of decision records."""

    RUN_STARTED = "run-started"
    RUN_ENDED = "run-ended"
    HEALTH = "health"
    CONNECTION = "connection"
    BREAKER = "breaker"
    THROTTLE = "throttle"
    SCANNED = "scanned"
    VERDICT = "verdict"
    TAKEOVER = "takeover"
    ACKNOWLEDGED = "acknowledged"
    OPERATOR = "operator"
    BOUNCE = "bounce"
    WATCH = "watch"


WATCH_ENDED = "watch-ended"
"""The rule of a watch's last record."""
RUN_DIED = "died"
"""The verdict of the record with which another run ends one that was killed."""


class Decision(Struct, frozen=True, kw_only=True):
    """One decision as it is recorded."""

    at: datetime
    kind: DecisionKind
    rule: str
    verdict: str = ""
    reply: str = ""
    evidence: dict[str, object] = field(default_factory=dict)
    #: The seq of the message it is about.
    message: int | None = None
    n: int | None = None
    attempt: int | None = None


class ScanRow(NamedTuple):  # a tuple travels fast between processes
    """A message as a scan lists it, in the form of rows: ready to be recorded."""

    message: Row
    recipients: list[Row]
    facts: ContentFacts | None
    #: The content with CRLF line ends when it is small; None: read it again.
    content: bytes | None


class ScanBatch(NamedTuple):
    """A part of a scan."""

    listings: list[ScanRow]
    #: Messages that the scan met since the last part and did not select.
    passed: int


class AttemptStart(Struct, frozen=True, kw_only=True):
    """An attempt about to be made: durable before its final dot leaves."""

    id: int
    delivery: Delivery
    #: The address of the peer, a space, and the id of the session; '' for none.
    connection: str
    started: datetime


class AttemptEnd(Struct, frozen=True, kw_only=True):
    """An attempt that ended, with everything that was learnt."""

    id: int
    delivery: Delivery
    ended: datetime
    #: (stage, offset in microseconds from the start, the answer).
    stages: tuple[tuple[str, int, str], ...]
    settlements: tuple[Settlement, ...]
    #: Whether the claim on the message ends with this attempt.
    free: bool = False
    #: The primary does not report its deliveries, so that drainer does, on request.
    relayed: bool = False


class WriterIdentity(Struct, frozen=True, kw_only=True):
    """Identity of the writer: the owner and its run."""

    owner: str
    run: str


class WriteStamp(WriterIdentity, frozen=True, kw_only=True):
    """Whose work something is, and when it was asked for, in microseconds."""

    now: int


class StateConflict(Exception):
    """A guarded update found another state: another owner had changed it."""


class WriteOutcome(NamedTuple):
    """The result of one operation of the writer."""

    result: Any
    error: Exception | None = None
