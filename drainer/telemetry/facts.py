"""Reads decisions of the ledger, and what they refer to: few queries for many of them.

The facts hold only the columns that spans need: rows are many, and some are long.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from drainer.ledger import schema
from drainer.ledger.records import DecisionKind
from drainer.ledger.route_shares import routes_of
from drainer.policy.recipient.state import FINAL

Row = dict[str, Any]
_R, _M, _D = schema.recipients.c, schema.messages.c, schema.decisions.c
_A, _RUN = schema.attempts.c, schema.runs.c
_FINAL = [state.value for state in FINAL]
_MESSAGE = (
    _M.seq, _M.id, _M.native_id, _M.source, _M.queue, _M.size, _M.reverse_path,
    _M.scanned, _M.arrived, _M.message_id, _M.problem,
)  # fmt: skip
_ATTEMPT = (
    _A.id, _A.message, _A.run, _A.started, _A.ended, _A.connection, _A.stages,
)  # fmt: skip
_RECIPIENT = (
    _R.message, _R.n, _R.forward_path, _R.route, _R.state, _R.since, _R.attempts,
    _R.attempt,
)  # fmt: skip
_RUNS = (_RUN.id, _RUN.started, _RUN.facts)


class SpanFacts(Struct, frozen=True, kw_only=True):
    """What the rows refer to."""

    #: By seq, as all that refers to a message.
    messages: Mapping[int, Row]
    attempts: Mapping[int, Row]
    #: seq -> number -> recipient.
    recipients: Mapping[int, Mapping[int, Row]]
    #: Decisions that made the last recipient of their message final.
    finishing: frozenset[int]
    #: The first decision of each message that is not final.
    first: frozenset[int]
    runs: Mapping[str, Row]


def next_decisions(connection: sa.Connection, position: int, most: int) -> list[Row]:
    """Return decisions after a position, in order; never half of an attempt's."""
    query = sa.select(schema.decisions).where(_D.id > position).order_by(_D.id)
    while True:
        rows = _dicts(connection.execute(query.limit(most)))
        if len(rows) < most or rows[-1]["attempt"] is None:
            return rows
        last = rows[-1]["attempt"]
        whole = [row for row in rows if row["attempt"] != last]
        if whole:
            return whole
        most *= 4  # one attempt has more recipients than that


def decisions_of(connection: sa.Connection, seq: int) -> list[Row]:
    """Return all decisions about a message, in order."""
    query = sa.select(schema.decisions).where(_D.message == seq).order_by(_D.id)
    return _dicts(connection.execute(query))


def read_facts(connection: sa.Connection, decisions: Sequence[Row]) -> SpanFacts:
    """Look up what some decisions refer to."""
    chosen = _D.id.between(decisions[0]["id"], decisions[-1]["id"])
    return _facts(connection, chosen)


def facts_of_message(connection: sa.Connection, seq: int) -> SpanFacts:
    """Look up what the decisions about one message refer to."""
    return _facts(connection, _D.message == seq)


def _facts(connection: sa.Connection, chosen: sa.ColumnElement[bool]) -> SpanFacts:
    def lookup(
        columns: Sequence[sa.Column[Any]], key: sa.Column[Any], named: sa.Column[Any]
    ) -> list[Row]:
        among = sa.select(named).where(chosen)
        return _dicts(connection.execute(sa.select(*columns).where(key.in_(among))))

    recipients: dict[int, dict[int, Row]] = {}
    unfinished = set()
    for row in lookup(_RECIPIENT, _R.message, _D.message):
        recipients.setdefault(row["message"], {})[row["n"]] = row
        if row["state"] not in _FINAL:
            unfinished.add(row["message"])
    messages = {row["seq"]: row for row in lookup(_MESSAGE, _M.seq, _D.message)}
    attempts = {row["id"]: row for row in lookup(_ATTEMPT, _A.id, _D.attempt)}
    limits = _limits(connection, chosen)
    ran = {row["id"]: row for row in lookup(_RUNS, _RUN.id, _D.run)}
    former = {row["run"] for row in attempts.values()} - ran.keys()
    if former:  # runs that died, and whose attempts another run has taken over
        query = sa.select(*_RUNS).where(_RUN.id.in_(list(former)))
        ran |= {row["id"]: row for row in _dicts(connection.execute(query))}
    for id_, row in ran.items():
        row["route"] = ", ".join(routes_of(connection, id_))
    return SpanFacts(
        messages=messages,
        attempts=attempts,
        recipients=recipients,
        finishing=frozenset(last for seq, _, last in limits if seq not in unfinished),
        first=frozenset(first for seq, first, _ in limits if seq in unfinished),
        runs=ran,
    )


def _limits(
    connection: sa.Connection, chosen: sa.ColumnElement[bool]
) -> list[tuple[int, int, int]]:
    """Return the first and the last decision about each message.

    Not as the last one count that of its source, and a report about it, which is sent
    afterwards, maybe days later.
    """
    is_later = sa.or_(
        _D.kind == DecisionKind.ACKNOWLEDGED.value, _D.rule.like("report-%")
    )
    last = sa.func.max(sa.case((is_later, 0), else_=_D.id))
    query = (
        sa.select(_D.message, sa.func.min(_D.id), last)
        .where(_D.message.in_(sa.select(_D.message).where(chosen)))
        .group_by(_D.message)
    )
    return [tuple(row) for row in connection.execute(query)]


def _dicts(result: sa.CursorResult[Any]) -> list[Row]:
    """Return rows as plain dicts: twice as fast as through ``mappings``."""
    columns = list(result.keys())
    return [dict(zip(columns, row, strict=True)) for row in result.all()]
