"""Every change of a recipient's state: the table, a guarded UPDATE, a decision record.

Each function runs inside a transaction of a writer. ``transition`` makes the changes
that happen outside of an attempt; ``take`` and ``settle`` make those of attempts, many
at a time. No other module changes the state column of a recipient.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from msgspec import Struct, field

from drainer.ledger import schema
from drainer.ledger.decisions import record_decisions
from drainer.ledger.records import (
    Decision,
    DecisionKind,
    Row,
    StateConflict,
    Values,
    from_micros,
)
from drainer.ledger.writer.prepared_statement import PreparedStatement
from drainer.policy.recipient.state import Event, State, follow

_R = schema.recipients.c
_IN_FLIGHT: sa.ColumnClause[str] = sa.literal_column(f"'{State.IN_FLIGHT.value}'")
CHUNK = 200
"""Recipients in one statement; databases limit the values of a condition."""


class Transition(Struct, frozen=True, kw_only=True):
    """What happens to some recipients, and what is recorded of it."""

    event: Event
    kind: DecisionKind
    rule: str
    run: str = ""
    verdict: str = ""
    reply: str = ""
    attempt: int | None = None
    #: The columns that change besides ``state`` and ``since``.
    values: Mapping[str, object] = field(default_factory=dict)
    #: What the record says besides the states before and after.
    evidence: Mapping[str, object] = field(default_factory=dict)


def transition(
    connection: sa.Connection,
    rows: Iterable[Mapping[str, object]],
    change: Transition,
    now: int,
) -> list[Mapping[str, object]]:
    """Bring recipients into the state that an event leads to; record each change.

    A row has at least ``message``, ``n`` and ``state``, as it was read. Returns the
    rows that were still in that state; the others do not change. Raises KeyError for an
    event that is not legal in a row's state.
    """
    ordered = sorted(rows, key=lambda row: str(row["state"]))
    changed: list[Mapping[str, object]] = []
    for before, same in itertools.groupby(ordered, key=lambda row: str(row["state"])):
        after = follow(State(before), change.event)
        found = list(same)
        for start in range(0, len(found), CHUNK):
            some = _still(connection, found[start : start + CHUNK], before)
            if some:
                _update(connection, some, before, _values(after, change, now))
                changed += some
    decisions = [_decision(row, change, now) for row in changed]
    record_decisions(connection, change.run, decisions)
    return changed


def _still(
    connection: sa.Connection, rows: Sequence[Mapping[str, object]], state: str
) -> list[Mapping[str, object]]:
    """Return the rows that are still in this state, locked until the end."""
    query = sa.select(_R.message, _R.n).where(_keys(rows), _R.state == state)
    if connection.dialect.name != "sqlite":  # its transaction has locked everything
        query = query.with_for_update()
    found = {(row.message, row.n) for row in connection.execute(query)}
    return [row for row in rows if (row["message"], row["n"]) in found]


def _update(
    connection: sa.Connection,
    rows: Sequence[Mapping[str, object]],
    before: str,
    values: Row,
) -> None:
    connection.execute(
        sa.update(schema.recipients)
        .where(_keys(rows), _R.state == before)
        .values(**values)
    )


def _keys(rows: Sequence[Mapping[str, object]]) -> sa.ColumnElement[bool]:
    keys = [(row["message"], row["n"]) for row in rows]
    return sa.tuple_(_R.message, _R.n).in_(keys)


def _values(after: State, change: Transition, now: int) -> Row:
    return {"state": after.value, "since": now, **change.values}


def _decision(row: Mapping[str, object], change: Transition, now: int) -> Decision:
    before = State(str(row["state"]))
    return Decision(
        at=from_micros(now),
        kind=change.kind,
        rule=change.rule,
        verdict=change.verdict,
        reply=change.reply,
        evidence={
            "before": before.value,
            "state": follow(before, change.event).value,
            **change.evidence,
        },
        message=int(str(row["message"])),
        n=int(str(row["n"])),
        attempt=change.attempt,
    )


# --- attempts

_TAKE = PreparedStatement(
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
    ),
    ("b_since", "b_attempt", "b_message", "b_n", "b_state", "b_attempts"),
)
_OUTCOME = ("state", "since", "due", "attempts", "doubts", "rule", "reply")
_WHOSE = ("b_message", "b_n", "b_attempt")
_CARRIED = ("drops", "solo", "spent", "refusal", "refused", "waits")
"""What a later attempt must know of a recipient that is not delivered."""


def _settling(*carried: str) -> PreparedStatement:
    """Return the statement that ends an attempt of a recipient."""
    columns = (*_OUTCOME, *carried)
    return PreparedStatement(
        sa.update(schema.recipients)
        .where(
            _R.message == sa.bindparam("b_message"),
            _R.n == sa.bindparam("b_n"),
            _R.state == _IN_FLIGHT,
            _R.attempt == sa.bindparam("b_attempt"),
        )
        .values(**{name: sa.bindparam(f"b_{name}") for name in columns}),
        (
            *(f"b_{name}" for name in _OUTCOME),
            *_WHOSE,
            *(f"b_{name}" for name in carried),
        ),
    )


_DELIVERED = _settling()
_SETTLED = _settling(*_CARRIED)


def take(connection: sa.Connection, rows: Sequence[Values]) -> None:
    """Make recipients in-flight; StateConflict unless all are as they were claimed.

    A row: when, the attempt, message, n, and the state and attempts as claimed.
    """
    _guarded(connection, _TAKE, rows)


def settle(
    connection: sa.Connection, delivered: Sequence[Values], others: Sequence[Values]
) -> None:
    """End the attempts of recipients; StateConflict unless all are in flight there.

    policy.recipient.settle has looked their new states up in the table. A row: the
    values of _OUTCOME, then of _WHOSE, and of _CARRIED for those not delivered.
    """
    _guarded(connection, _DELIVERED, delivered)
    _guarded(connection, _SETTLED, others)


def _guarded(
    connection: sa.Connection, statement: PreparedStatement, rows: Sequence[Values]
) -> None:
    """Execute an update that must change exactly one row for each of ``rows``."""
    if rows and statement(connection, rows) != len(rows):
        raise StateConflict
