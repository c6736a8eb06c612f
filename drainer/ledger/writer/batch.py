"""What one group commit executes: many operations, few statements.

A guard that does not hold raises StateConflict (drainer.ledger.transitions). The batch
is rolled back, and the writer finds out which operation caused it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from msgspec import Struct, field

from drainer.ledger import schema
from drainer.ledger.codec import sender_of
from drainer.ledger.columns import pairs_json, storable, to_json
from drainer.ledger.decisions import decision_values
from drainer.ledger.records import (
    AttemptEnd,
    AttemptStart,
    DecisionKind,
    Row,
    Values,
    WriterIdentity,
    to_micros,
)
from drainer.ledger.reports.evidence import bounce_decision, report_row
from drainer.ledger.transitions import settle, take
from drainer.ledger.writer.prepared_statement import (
    PreparedStatement,
    build_insert,
    columns_to_insert,
)
from drainer.mail.dsn.model import DsnAction
from drainer.policy.recipient.settle import Settlement
from drainer.policy.recipient.state import State

_M, _A = schema.messages.c, schema.attempts.c

_BOUNCED = State.BOUNCED
_VERDICT = DecisionKind.VERDICT.value
_END = PreparedStatement(
    sa.update(schema.attempts)
    .where(_A.id == sa.bindparam("b_id"))
    .values(ended=sa.bindparam("b_ended"), stages=sa.bindparam("b_stages")),
    ("b_ended", "b_stages", "b_id"),
)
_FREE = PreparedStatement(
    sa.update(schema.messages)
    .where(_M.seq == sa.bindparam("b_seq"), _M.owner == sa.bindparam("b_owner"))
    .values(owner=sa.null()),
    ("b_seq", "b_owner"),
)
_ATTEMPT = PreparedStatement(
    build_insert(schema.attempts), columns_to_insert(schema.attempts)
)
_DECISION = PreparedStatement(
    build_insert(schema.decisions, without="id"),
    columns_to_insert(schema.decisions, without="id"),
)
_REPORT = PreparedStatement(build_insert(schema.reports))


class WriterCall(NamedTuple):
    """An operation of its own: any function of the connection."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]


class AttemptStartRows(Struct, gc=False):
    """The rows of an attempt about to be made."""

    taken: list[Values]
    attempt: Values


class AttemptEndRows(Struct, gc=False):
    """The rows of an attempt that ended."""

    ended: Values
    delivered: list[Values] = field(default_factory=list)
    others: list[Values] = field(default_factory=list)
    decided: list[Values] = field(default_factory=list)
    freed: list[Values] = field(default_factory=list)
    reported: list[Row] = field(default_factory=list)


class DecisionRows(Struct, gc=False):
    """Decisions that belong to no attempt."""

    decided: list[Values]


class WriteBatch:
    """Executes operations; all but calls are gathered, calls flush."""

    def __init__(self) -> None:
        """Gather nothing yet."""
        self._openings: list[AttemptStartRows] = []
        self._closings: list[AttemptEndRows] = []
        self._noted: list[Values] = []

    def __call__(
        self, connection: sa.Connection, operations: Sequence[object]
    ) -> list[Any]:
        """Execute all operations and return a result for each, in order."""
        results: list[Any] = []
        self._openings, self._closings, self._noted = [], [], []
        for operation in operations:
            result = None
            match operation:
                case AttemptStartRows():
                    self._openings.append(operation)
                case AttemptEndRows():
                    self._closings.append(operation)
                case DecisionRows(decided=decided):
                    self._noted += decided
                case WriterCall(function, arguments, named):
                    self._flush(connection)
                    result = function(connection, *arguments, **named)
                case _:  # pragma: no cover - the ledger submits nothing else
                    raise TypeError(operation)
            results.append(result)
        self._flush(connection)
        return results

    def _flush(self, connection: sa.Connection) -> None:
        """Write what was gathered: openings first.

        A message is never opened and closed by two attempts within one batch: the
        second one needs a claim, which is a WriterCall.
        """
        opened, closed = self._openings, self._closings
        decided = [row for each in closed for row in each.decided] + self._noted
        take(connection, [row for each in opened for row in each.taken])
        settle(
            connection,
            [row for each in closed for row in each.delivered],
            [row for each in closed for row in each.others],
        )
        _many(connection, _ATTEMPT, [each.attempt for each in opened])
        _many(connection, _END, [each.ended for each in closed])
        _many(connection, _DECISION, decided)
        _many(connection, _REPORT, [row for each in closed for row in each.reported])
        _many(connection, _FREE, [row for each in closed for row in each.freed])
        self._openings, self._closings, self._noted = [], [], []


def _many(
    connection: sa.Connection,
    statement: PreparedStatement,
    rows: list[Row] | list[Values],
) -> None:
    if rows:
        statement(connection, rows)


def opening_rows(opened: AttemptStart, identity: WriterIdentity) -> AttemptStartRows:
    """Return the rows that make an attempt's recipients in-flight."""
    since, seq = to_micros(opened.started), opened.delivery.seq
    claimed = opened.delivery.claimed
    taken: list[Values] = [
        (since, opened.id, seq, each.n, str(each.state), each.attempts)
        for each in claimed
    ]
    numbers = to_json([each.n for each in claimed])
    start = (opened.id, seq, identity.run, identity.owner, since)
    return AttemptStartRows(taken, (*start, None, numbers, opened.connection, ""))


def closing_rows(closed: AttemptEnd, identity: WriterIdentity) -> AttemptEndRows:
    """Return the rows that settle an attempt's recipients."""
    at, seq = to_micros(closed.ended), closed.delivery.seq
    rows = AttemptEndRows((at, to_json(closed.stages), closed.id))
    for each in closed.settlements:
        reply = storable(each.reply[:MAX_REPLY])
        outcome = _outcome_row(closed, each, at, reply)
        if each.state is State.DELIVERED:
            rows.delivered.append(outcome)
            if closed.relayed and each.claimed.recipient.wants_success:
                report = _report(closed, each, DsnAction.RELAYED, identity)
                rows.reported.append(report)
        else:
            rows.others.append(outcome + _carried(each))
            if each.state is _BOUNCED:
                report = _report(closed, each, DsnAction.FAILED, identity)
                rows.reported.append(report)
        rows.decided.append(_verdict_row(closed, each, (at, identity.run), reply))
        if each.permit is not None:
            about = {"message": seq, "n": each.claimed.n}
            decision = bounce_decision(each.permit, about, at, attempt=closed.id)
            rows.decided.append(decision_values(decision, identity.run))
    if closed.free:
        rows.freed.append((seq, identity.owner))
    return rows


def _outcome_row(
    closed: AttemptEnd, settlement: Settlement, at: int, reply: str
) -> Values:
    """Return what ``transitions.settle`` wants of a delivered recipient."""
    return (
        str(settlement.state),
        at,
        to_micros(settlement.due) if settlement.due else None,
        settlement.attempts,
        settlement.doubts,
        settlement.classification.rule,
        reply,
        closed.delivery.seq,
        settlement.claimed.n,
        closed.id,
    )


def _carried(settlement: Settlement) -> Values:
    """Return what it wants of any other one in addition."""
    refused = settlement.refused
    return (
        settlement.drops,
        int(settlement.solo),
        settlement.spent // timedelta(microseconds=1),
        settlement.refusal,
        to_micros(refused) if refused else None,
        settlement.waits,
    )


MAX_REPLY = 4000
"""Characters of a reply that the ledger keeps."""


def _report(
    closed: AttemptEnd,
    settlement: Settlement,
    action: DsnAction,
    identity: WriterIdentity,
) -> Row:
    """Return the report that is queued (or asked) with the outcome it reports."""
    recipient = settlement.claimed.recipient
    about = {
        "message": closed.delivery.seq,
        "n": settlement.claimed.n,
        "sender": sender_of(closed.delivery.message.envelope, recipient),
        "reply": storable(settlement.reply[:MAX_REPLY]),
        "rule": settlement.classification.rule,
        "refused": to_micros(closed.ended),
    }
    permit = settlement.permit
    return report_row(about, action, identity.run, to_micros(closed.ended), permit)


def _verdict_row(
    closed: AttemptEnd, settlement: Settlement, stamp: tuple[int, str], reply: str
) -> Values:
    """Return the record of what one attempt meant for one recipient.

    ``stamp``: when, and the run. The row is as ``decisions.decision_values`` makes it.
    """
    classification, claimed = settlement.classification, settlement.claimed
    return (
        *stamp,
        closed.delivery.seq,
        claimed.n,
        closed.id,
        _VERDICT,
        classification.rule,
        str(classification.verdict),
        reply,
        _evidence(settlement),
    )


def _evidence(settlement: Settlement) -> str:
    classification, claimed = settlement.classification, settlement.claimed
    evidence: tuple[tuple[str, object], ...] = (
        ("stage", str(settlement.stage)),
        ("scope", str(classification.scope)),
        ("state", str(settlement.state)),
        ("attempts", settlement.attempts),
    )
    if claimed.recipient.original:
        evidence += (("sent_to", claimed.recipient.forward_path),)
    if settlement.state is State.DELIVERED:
        return pairs_json(evidence)
    before = ("reason", classification.reason), ("before", claimed.state.value)
    return pairs_json((*evidence, *before, *classification.evidence))
