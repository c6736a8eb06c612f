"""Decisions as rows; each function that writes runs inside a transaction."""

from collections.abc import Iterable

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.columns import storable, to_json
from drainer.ledger.records import Decision, Row, Values, to_micros


def record_decisions(
    connection: sa.Connection, run: str, decisions: Iterable[Decision]
) -> None:
    """Append decisions of a run; '' is for those of commands."""
    if rows := [_row(decision, run) for decision in decisions]:
        connection.execute(sa.insert(schema.decisions), rows)


def decision_values(decision: Decision, run: str) -> Values:
    """Return the row of a decision in the order of the columns."""
    return tuple(_row(decision, run).values())


def _row(decision: Decision, run: str) -> Row:
    return {
        "at": to_micros(decision.at),
        "run": run,
        "message": decision.message,
        "n": decision.n,
        "attempt": decision.attempt,
        "kind": str(decision.kind),
        "rule": decision.rule,
        "verdict": decision.verdict,
        "reply": storable(decision.reply),
        "evidence": to_json(decision.evidence) if decision.evidence else "",
    }
