"""Overrides in the ledger: commands and hooks write them, drains and watches read."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import URL

from drainer.ledger import engine, route_shares, schema
from drainer.ledger.columns import from_json
from drainer.ledger.decisions import record_decisions
from drainer.ledger.records import (
    Decision,
    DecisionKind,
    Row,
    WriteStamp,
    from_micros,
    to_micros,
)
from drainer.policy.pacing.overrides import (
    ActiveOverrides,
    Override,
    OverrideKind,
    active,
)

_C = schema.controls.c
_STANDING = (
    OverrideKind.PAUSE.value,
    OverrideKind.RESUME.value,
    OverrideKind.THROTTLE.value,
)
MAX_TEXT = 500


def give(url: URL, route: str, control: Override) -> Override:
    """Record an override for a route, and the decision; return it with its id.

    It makes the ledger if there is none: a hook may come before the first drain. Raises
    LedgerError.
    """
    row = _row(route, control)
    with engine.open_transaction(url, create=True) as connection:
        result = connection.execute(sa.insert(schema.controls), row)
        key = result.inserted_primary_key
        record_decisions(connection, "", [_decision(row)])
    assert key is not None  # noqa: S101 - a serial has a value once it is written
    return _control(row | {"id": int(key[0])})


def _row(route: str, control: Override) -> Row:
    return {
        "at": to_micros(control.at),
        "route": route,
        "ask": control.ask.value,
        "per_second": control.per_second,
        "until": None if control.until is None else to_micros(control.until),
        "reason": control.reason[:MAX_TEXT],
        "by": control.by[:MAX_TEXT],
    }


def _decision(row: Row) -> Decision:
    """Return the record of an override: who asked for what, and why."""
    facts = {key: row[key] for key in ("route", "reason", "by")}
    if row["per_second"] is not None:
        facts["per_second"] = row["per_second"]
    if row["until"] is not None:
        facts["until"] = from_micros(row["until"]).isoformat()
    return Decision(
        at=from_micros(row["at"]),
        kind=DecisionKind.OPERATOR,
        rule=f"control-{row['ask']}",
        evidence=facts,
    )


def controls_after(connection: sa.Connection, route: str, last: int) -> list[Override]:
    """Return the overrides of a route whose ids are greater, in order."""
    query = (
        sa.select(schema.controls)
        .where(_C.route == route, _C.id > last)
        .order_by(_C.id)
    )
    return [_control(dict(row)) for row in connection.execute(query).mappings()]


def controls_in_force(
    connection: sa.Connection, route: str, now: int
) -> ActiveOverrides:
    """Return the overrides that apply to a drain of a route then (microseconds)."""
    latest = (
        sa.select(sa.func.max(_C.id))
        .where(_C.route == route, _C.ask.in_(_STANDING))
        .group_by(_C.ask)
    )
    query = sa.select(schema.controls).where(_C.id.in_(latest)).order_by(_C.id)
    rows = connection.execute(query).mappings()
    return active((_control(dict(row)) for row in rows), from_micros(now))


def outlook(
    connection: sa.Connection, stamp: WriteStamp, route: str, most: int
) -> tuple[float, ActiveOverrides]:
    """Return a run's fair share of a route's rate, and the overrides in force.

    At most ``most`` runs share it; the others have to wait. Every run asks every
    second, so that one read gives both.
    """
    share = route_shares.fair_share(connection, stamp, route, most)
    return share, controls_in_force(connection, route, stamp.now)


class OverrideReader:
    """Reads the overrides of one route for a watch, and does nothing else."""

    def __init__(self, url: URL, route: str) -> None:
        """Open the ledger, made if there is none; raise LedgerError on failure."""
        self._url = url
        self._database = engine.connect(url, create=True)
        self._route = route

    def after(self, last: int) -> list[Override]:
        """Return the overrides with greater ids, in order."""
        with engine.in_use(self._url), self._database.connect() as connection:
            return controls_after(connection, self._route, last)

    def in_force(self) -> ActiveOverrides:
        """Return the overrides in force now."""
        now = to_micros(datetime.now(UTC))
        with engine.in_use(self._url), self._database.connect() as connection:
            return controls_in_force(connection, self._route, now)

    def runs(self) -> list[str]:
        """Return the ids of the living runs on the route, the oldest first."""
        now = to_micros(datetime.now(UTC))
        with engine.in_use(self._url), self._database.connect() as connection:
            return route_shares.on_route(connection, self._route, now)

    def pace(self, run: str) -> Row:
        """Return how fast a run sends, and why: its last record; empty without one."""
        columns = schema.decisions.c
        query = (
            sa.select(columns.at, columns.rule, columns.evidence)
            .where(columns.run == run, columns.kind == DecisionKind.THROTTLE.value)
            .order_by(columns.id.desc())
            .limit(1)
        )
        with engine.in_use(self._url), self._database.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return {}
        at = from_micros(row.at).isoformat()
        return {"at": at, "rule": row.rule, **from_json(row.evidence)}

    def close(self) -> None:
        """Release the ledger."""
        self._database.dispose()


def _control(row: Row) -> Override:
    until = row["until"]
    return Override(
        id=int(row["id"]),
        at=from_micros(row["at"]),
        ask=OverrideKind(row["ask"]),
        per_second=row["per_second"],
        until=None if until is None else from_micros(until),
        reason=row["reason"],
        by=row["by"],
    )
