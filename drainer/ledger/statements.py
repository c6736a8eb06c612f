"""What one group commit executes: many operations, few statements.

Every change of a recipient's state is guarded by its old state (and number of
attempts). A guard that does not hold raises Conflict: the batch is rolled back
and the writer finds out whose it was.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from drainer.ledger import Closed, Decision, Kind, Opened, Row, schema, to_micros
from drainer.ledger.prepared import Prepared, inserting
from drainer.ledger.rows import decision_row
from drainer.ledger.text import to_json
from drainer.ledger.writer import Conflict
from drainer.policy.settle import Settlement
from drainer.policy.state import State

_R, _M, _A = schema.recipients.c, schema.messages.c, schema.attempts.c

_IN_FLIGHT: sa.ColumnClause[str] = sa.literal_column(f"'{State.IN_FLIGHT.value}'")
_TAKE = Prepared(
    sa.update(schema.recipients)
    .where(
        _R.message == sa.bindparam("b_message"),
        _R.n == sa.bindparam("b_n"),
        _R.state == sa.bindparam("b_state"),
        _R.attempts == sa.bindparam("b_attempts"),
    )
    .values(
        state=_IN_FLIGHT,
        since=sa.bindparam("b_since"),
        attempt=sa.bindparam("b_attempt"),
    )
)
_SETTLE = Prepared(
    sa.update(schema.recipients)
    .where(
        _R.message == sa.bindparam("b_message"),
        _R.n == sa.bindparam("b_n"),
        _R.state == _IN_FLIGHT,
        _R.attempt == sa.bindparam("b_attempt"),
    )
    .values(
        state=sa.bindparam("b_state"),
        since=sa.bindparam("b_since"),
        due=sa.bindparam("b_due"),
        attempts=sa.bindparam("b_attempts"),
        doubts=sa.bindparam("b_doubts"),
        rule=sa.bindparam("b_rule"),
        reply=sa.bindparam("b_reply"),
    )
)
_END = Prepared(
    sa.update(schema.attempts)
    .where(_A.id == sa.bindparam("b_id"))
    .values(ended=sa.bindparam("b_ended"), stages=sa.bindparam("b_stages"))
)
_FREE = Prepared(
    sa.update(schema.messages)
    .where(_M.seq == sa.bindparam("b_seq"), _M.owner == sa.bindparam("b_owner"))
    .values(owner=sa.null())
)
_ATTEMPT = Prepared(inserting(schema.attempts))
_DECISION = Prepared(inserting(schema.decisions, without="id"))


@dataclass(frozen=True, slots=True)
class Call:
    """An operation of its own: any function of the connection."""

    function: Callable[[sa.Connection], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who writes: the owner and its run."""

    owner: str
    run: str


class Batch:
    """Executes operations; openings and closings are gathered, others flush."""

    def __init__(self, identity: Identity) -> None:
        """Remember who writes."""
        self._identity = identity
        self._opened: list[Opened] = []
        self._closed: list[Closed] = []

    def __call__(
        self, connection: sa.Connection, operations: Sequence[object]
    ) -> list[Any]:
        """Execute all operations and return a result for each, in order."""
        results: list[Any] = []
        self._opened, self._closed = [], []
        for operation in operations:
            result = None
            match operation:
                case Opened():
                    self._opened.append(operation)
                case Closed():
                    self._closed.append(operation)
                case Call(function=function):
                    self._flush(connection)
                    result = function(connection)
                case _:  # pragma: no cover - the ledger submits nothing else
                    raise TypeError(operation)
            results.append(result)
        self._flush(connection)
        return results

    def _flush(self, connection: sa.Connection) -> None:
        """Write what was gathered: openings first.

        A message is never opened and closed by two attempts within one batch:
        the second one needs a claim, which is a Call.
        """
        if self._opened:
            self._write_opened(connection)
            self._opened = []
        if self._closed:
            self._write_closed(connection)
            self._closed = []

    def _write_opened(self, connection: sa.Connection) -> None:
        guarded(connection, _TAKE, [row for o in self._opened for row in _take_rows(o)])
        _ATTEMPT(connection, [self._attempt_row(o) for o in self._opened])

    def _attempt_row(self, opened: Opened) -> Row:
        return {
            "id": opened.id,
            "message": opened.job.seq,
            "run": self._identity.run,
            "owner": self._identity.owner,
            "started": to_micros(opened.started),
            "ended": None,
            "recipients": to_json([claimed.n for claimed in opened.job.claimed]),
            "connection": opened.connection,
            "stages": "",
        }

    def _write_closed(self, connection: sa.Connection) -> None:
        settled: list[Row] = []
        ended: list[Row] = []
        decided: list[Row] = []
        freed: list[Row] = []
        for closed in self._closed:
            at = to_micros(closed.ended)
            ended.append(
                {
                    "b_id": closed.id,
                    "b_ended": at,
                    "b_stages": to_json(closed.stages),
                }
            )
            for settlement in closed.settlements:
                settled.append(_settle_row(closed, settlement, at))
                decision = verdict_decision(closed, settlement)
                decided.append(decision_row(decision, self._identity.run))
            if closed.free:
                freed.append({"b_seq": closed.job.seq, "b_owner": self._identity.owner})
        guarded(connection, _SETTLE, settled)
        _END(connection, ended)
        _DECISION(connection, decided)
        if freed:
            _FREE(connection, freed)


def guarded(
    connection: sa.Connection, statement: Prepared, rows: Sequence[Row]
) -> None:
    """Execute an update that must hit exactly one row for each of ``rows``."""
    if rows and statement(connection, rows) != len(rows):
        raise Conflict


def _take_rows(opened: Opened) -> Iterable[Row]:
    since = to_micros(opened.started)
    for claimed in opened.job.claimed:
        yield {
            "b_message": opened.job.seq,
            "b_n": claimed.n,
            "b_state": claimed.state.value,
            "b_attempts": claimed.attempts,
            "b_attempt": opened.id,
            "b_since": since,
        }


def _settle_row(closed: Closed, settlement: Settlement, at: int) -> Row:
    return {
        "b_message": closed.job.seq,
        "b_n": settlement.claimed.n,
        "b_attempt": closed.id,
        "b_state": settlement.state.value,
        "b_since": at,
        "b_due": to_micros(settlement.due) if settlement.due else None,
        "b_attempts": settlement.attempts,
        "b_doubts": settlement.doubts,
        "b_rule": settlement.judgement.rule,
        "b_reply": settlement.reply[:MAX_REPLY],
    }


MAX_REPLY = 4000
"""Characters of a reply that the ledger keeps."""


def verdict_decision(closed: Closed, settlement: Settlement) -> Decision:
    """Return the record of what one attempt meant for one recipient."""
    judgement = settlement.judgement
    evidence: dict[str, object] = {
        "stage": settlement.stage.value,
        "scope": judgement.scope.value,
        "state": settlement.state.value,
        "attempts": settlement.attempts,
    }
    if settlement.state is not State.DELIVERED:
        evidence["reason"] = judgement.reason
        evidence["before"] = settlement.claimed.state.value
    return Decision(
        at=closed.ended,
        kind=Kind.VERDICT,
        rule=judgement.rule,
        verdict=judgement.verdict.value,
        reply=settlement.reply[:MAX_REPLY],
        evidence=evidence,
        message=closed.job.seq,
        n=settlement.claimed.n,
        attempt=closed.id,
    )
