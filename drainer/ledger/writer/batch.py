"""What one group commit executes: many operations, few statements.

A guard that does not hold raises StateConflict (drainer.ledger.transitions). The batch
is rolled back, and the writer finds out which operation caused it.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from msgspec import Struct

from drainer.ledger import schema
from drainer.ledger.codec import decision_row, sender_of
from drainer.ledger.columns import storable, to_json
from drainer.ledger.records import (
    AttemptEnd,
    AttemptStart,
    Decision,
    DecisionKind,
    Row,
    to_micros,
)
from drainer.ledger.reports.evidence import report_row
from drainer.ledger.transitions import settle, take
from drainer.ledger.writer.prepared_statement import PreparedStatement, inserting
from drainer.mail.dsn.model import DsnAction
from drainer.policy.recipient.settle import Settlement
from drainer.policy.recipient.state import State

_M, _A = schema.messages.c, schema.attempts.c

_BOUNCED = State.BOUNCED
_END = PreparedStatement(
    sa.update(schema.attempts)
    .where(_A.id == sa.bindparam("b_id"))
    .values(ended=sa.bindparam("b_ended"), stages=sa.bindparam("b_stages"))
)
_FREE = PreparedStatement(
    sa.update(schema.messages)
    .where(_M.seq == sa.bindparam("b_seq"), _M.owner == sa.bindparam("b_owner"))
    .values(owner=sa.null())
)
_ATTEMPT = PreparedStatement(inserting(schema.attempts))
_REPORT = PreparedStatement(inserting(schema.reports))
_DECISION = PreparedStatement(inserting(schema.decisions, without="id"))


class WriterIdentity(Struct, frozen=True, kw_only=True):
    """Identity of the writer: the owner and its run."""

    owner: str
    run: str


class WriterCall(NamedTuple):
    """An operation of its own: any function of the connection."""

    function: Callable[[sa.Connection], Any]


class AttemptStartRows(NamedTuple):
    """The rows of an attempt about to be made."""

    taken: list[Row]
    attempt: Row


class AttemptEndRows(NamedTuple):
    """The rows of an attempt that ended."""

    ended: Row
    delivered: list[Row]
    others: list[Row]
    decided: list[Row]
    freed: list[Row]
    reported: list[Row]


class DecisionRows(NamedTuple):
    """Decisions that belong to no attempt."""

    decided: list[Row]


class WriteBatch:
    """Executes operations; all but calls are gathered, calls flush."""

    def __init__(self) -> None:
        """Gather nothing yet."""
        self._openings: list[AttemptStartRows] = []
        self._closings: list[AttemptEndRows] = []
        self._noted: list[Row] = []

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
                case WriterCall(function=function):
                    self._flush(connection)
                    result = function(connection)
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
    connection: sa.Connection, statement: PreparedStatement, rows: list[Row]
) -> None:
    if rows:
        statement(connection, rows)


def opening(opened: AttemptStart, identity: WriterIdentity) -> AttemptStartRows:
    """Return the rows that make an attempt's recipients in-flight."""
    since = to_micros(opened.started)
    taken = [
        {
            "b_message": opened.delivery.seq,
            "b_n": claimed.n,
            "b_state": str(claimed.state),
            "b_attempts": claimed.attempts,
            "b_attempt": opened.id,
            "b_since": since,
        }
        for claimed in opened.delivery.claimed
    ]
    attempt = {
        "id": opened.id,
        "message": opened.delivery.seq,
        "run": identity.run,
        "owner": identity.owner,
        "started": since,
        "ended": None,
        "recipients": to_json([claimed.n for claimed in opened.delivery.claimed]),
        "connection": opened.connection,
        "stages": "",
    }
    return AttemptStartRows(taken, attempt)


def closing(closed: AttemptEnd, identity: WriterIdentity) -> AttemptEndRows:
    """Return the rows that settle an attempt's recipients."""
    at = to_micros(closed.ended)
    seq = closed.delivery.seq
    delivered = [s for s in closed.settlements if s.state is State.DELIVERED]
    others = [s for s in closed.settlements if s.state is not State.DELIVERED]
    return AttemptEndRows(
        ended={"b_id": closed.id, "b_ended": at, "b_stages": to_json(closed.stages)},
        delivered=[_settle_row(closed, each, at) for each in delivered],
        others=[_rest_row(closed, each, at) for each in others],
        decided=[
            decision_row(decision, identity.run)
            for each in closed.settlements
            for decision in _decisions(closed, each)
        ],
        freed=[{"b_seq": seq, "b_owner": identity.owner}] if closed.free else [],
        reported=[
            _report(closed, each, DsnAction.FAILED, identity)
            for each in others
            if each.state is _BOUNCED
        ]
        + [
            _report(closed, each, DsnAction.RELAYED, identity)
            for each in delivered
            if closed.relayed and each.claimed.recipient.wants_success
        ],
    )


def _settle_row(closed: AttemptEnd, settlement: Settlement, at: int) -> Row:
    return {
        "b_message": closed.delivery.seq,
        "b_n": settlement.claimed.n,
        "b_attempt": closed.id,
        "b_state": str(settlement.state),
        "b_since": at,
        "b_due": to_micros(settlement.due) if settlement.due else None,
        "b_attempts": settlement.attempts,
        "b_doubts": settlement.doubts,
        "b_rule": settlement.classification.rule,
        "b_reply": storable(settlement.reply[:MAX_REPLY]),
    }


def _rest_row(closed: AttemptEnd, settlement: Settlement, at: int) -> Row:
    refused = settlement.refused
    return _settle_row(closed, settlement, at) | {
        "b_drops": settlement.drops,
        "b_solo": int(settlement.solo),
        "b_spent": settlement.spent // timedelta(microseconds=1),
        "b_refusal": settlement.refusal,
        "b_refused": to_micros(refused) if refused else None,
        "b_waits": settlement.waits,
    }


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


def _decisions(closed: AttemptEnd, settlement: Settlement) -> list[Decision]:
    found = [verdict_decision(closed, settlement)]
    if settlement.permit is not None:
        asked = settlement.permit.decision
        found.append(
            Decision(
                at=closed.ended,
                kind=DecisionKind.BOUNCE,
                rule=asked.rule,
                verdict=asked.answer.value,
                evidence={"reason": asked.reason, **asked.evidence},
                message=closed.delivery.seq,
                n=settlement.claimed.n,
                attempt=closed.id,
            )
        )
    return found


def verdict_decision(closed: AttemptEnd, settlement: Settlement) -> Decision:
    """Return the record of what one attempt meant for one recipient."""
    classification = settlement.classification
    evidence: dict[str, object] = {
        "stage": str(settlement.stage),
        "scope": str(classification.scope),
        "state": str(settlement.state),
        "attempts": settlement.attempts,
    }
    if settlement.claimed.recipient.original:
        evidence["sent_to"] = settlement.claimed.recipient.forward_path
    if settlement.state is not State.DELIVERED:
        evidence["reason"] = classification.reason
        evidence["before"] = settlement.claimed.state.value
        evidence |= dict(classification.evidence)
    return Decision(
        at=closed.ended,
        kind=DecisionKind.VERDICT,
        rule=classification.rule,
        verdict=str(classification.verdict),
        reply=settlement.reply[:MAX_REPLY],
        evidence=evidence,
        message=closed.delivery.seq,
        n=settlement.claimed.n,
        attempt=closed.id,
    )
