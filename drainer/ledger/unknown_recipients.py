"""Recipients that a census finds unknown: held, and pending again once a list has them.

Each function runs inside a transaction of the writer.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import DecisionKind, Row, WriteStamp
from drainer.ledger.transitions import Transition, transition
from drainer.mail.message import PROBLEMS
from drainer.policy.recipient.state import Event, State

_R, _M = schema.recipients.c, schema.messages.c
UNKNOWN_RECIPIENT = "unknown-recipient"
"""The rule of a recipient that is held because no list has it."""
_REVIEWED = [s.value for s in (State.PENDING, State.DEFERRED, State.BOUNCE_PENDING)]


class RecipientReview(NamedTuple):
    """Recipients of which a census says the same; each with message, n and state."""

    rows: Sequence[Row]
    #: What the lists say.
    detail: str


def find_reviewed(report: LedgerReader, sources: Sequence[str]) -> Iterator[Row]:
    """Yield the recipients of sources that a census may hold, or make pending again.

    Also those whose bounce is pending, so that the lists are asked for them.
    """
    held = (_R.state == State.HELD.value) & (_R.rule == UNKNOWN_RECIPIENT)
    query = (
        sa.select(_R.message, _R.n, _R.forward_path, _R.state, _R.released)
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state.in_(_REVIEWED) | held, _M.source.in_(list(sources)))
    )
    return report.rows(query)


def hold(connection: sa.Connection, stamp: WriteStamp, review: RecipientReview) -> None:
    """Hold recipients that a census finds unknown."""
    change = Transition(
        event=Event.CENSUS_HELD,
        kind=DecisionKind.SCANNED,
        rule=UNKNOWN_RECIPIENT,
        run=stamp.run,
        verdict="hold",
        reply=review.detail,
        values={"due": None, "rule": UNKNOWN_RECIPIENT, "reply": review.detail},
        evidence={"reason": PROBLEMS[UNKNOWN_RECIPIENT][0]},
    )
    transition(connection, review.rows, change, stamp.now)


def release(
    connection: sa.Connection, stamp: WriteStamp, review: RecipientReview
) -> None:
    """Make pending what was held as unknown, and exists."""
    change = Transition(
        event=Event.PROBLEM_GONE,
        kind=DecisionKind.SCANNED,
        rule="recipient-known",
        run=stamp.run,
        values={"due": 0, "rule": "recipient-known", "reply": ""},
        evidence={"reason": review.detail},
    )
    transition(connection, review.rows, change, stamp.now)
