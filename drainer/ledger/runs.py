"""A run in the ledger: start, renew, end.

Each function runs inside a transaction of the writer.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import sqlalchemy as sa

from drainer.errors import LedgerLost
from drainer.ledger import schema
from drainer.ledger.columns import to_json
from drainer.ledger.decisions import record_decisions
from drainer.ledger.owner import lease_end
from drainer.ledger.records import Decision, DecisionKind, Row, WriteStamp, from_micros
from drainer.ledger.reserve import ReserveRecord
from drainer.ledger.route_shares import join_routes
from drainer.ledger.takeover import abandon, settle_reserved, take_over
from drainer.ledger.writer.prepared_statement import PreparedStatement

_N = schema.runs.c
_COUNT = PreparedStatement(
    sa.update(schema.runs)
    .where(
        _N.id == sa.bindparam("b_run"),
        _N.commits == sa.bindparam("b_before"),
    )
    .values(commits=sa.bindparam("b_number"))
)


class RunRequest(NamedTuple):
    """A run that is to start."""

    #: The row of its owner.
    owner: Row
    routes: Sequence[str]
    #: Its version, and the trace of its caller.
    facts: Mapping[str, object]


class RunStart(NamedTuple):
    """What a run found when it started."""

    #: Recipients that dead runs left in doubt, and those that a reserve settled.
    in_doubt: int
    settled: int


def begin(
    connection: sa.Connection,
    stamp: WriteStamp,
    run: RunRequest,
    rest: timedelta,
    reserved: Sequence[ReserveRecord],
) -> RunStart:
    """Announce a run and its owner; take over from dead ones.

    Recipients that stay in doubt wait for ``rest``.
    """
    connection.execute(sa.insert(schema.owners), [run.owner])
    row = {
        "id": stamp.run,
        "owner": stamp.owner,
        "started": stamp.now,
        "commits": 0,
        "facts": to_json(run.facts),
    }
    connection.execute(sa.insert(schema.runs), [row])
    join_routes(connection, stamp.run, run.routes)
    _note(connection, stamp, DecisionKind.RUN_STARTED, route=", ".join(run.routes))
    settled = settle_reserved(connection, stamp, reserved)
    return RunStart(take_over(connection, stamp, rest), settled)


def count_commit(connection: sa.Connection, run: str, number: int) -> None:
    """Give a transaction its number among those of its run.

    Raises LedgerLost when the previous one is missing.
    """
    row = {"b_run": run, "b_number": number, "b_before": number - 1}
    if _COUNT(connection, [row]) != 1:
        message = "the ledger has lost commits that it had confirmed"
        hint = "a copy that was behind may have taken over; then run the same again"
        raise LedgerLost(message, hint=hint)


def last_commit(connection: sa.Connection, run: str) -> int | None:
    """Return the number of a run's last transaction; None when there is none."""
    return connection.scalar(sa.select(_N.commits).where(_N.id == run))


def renew(connection: sa.Connection, stamp: WriteStamp) -> None:
    """Renew an owner's lease."""
    connection.execute(
        sa.update(schema.owners)
        .where(schema.owners.c.id == stamp.owner)
        .values(lease=lease_end(stamp.now))
    )


def end(
    connection: sa.Connection,
    stamp: WriteStamp,
    ending: Mapping[str, object],
    rest: timedelta,
) -> None:
    """End a run: ``ending`` has its exit code, its commits before this one, and more.

    It releases the run's claims. What is in flight is in doubt, and waits for ``rest``.
    """
    states = _states(connection)
    _note(connection, stamp, DecisionKind.RUN_ENDED, **ending, states=states)
    connection.execute(
        sa.update(schema.runs)
        .where(_N.id == stamp.run)
        .values(ended=stamp.now, exit=ending["exit"])
    )
    abandon(connection, stamp, [stamp.owner], rest)


def _states(connection: sa.Connection) -> dict[str, int]:
    """Return how many recipients of the ledger are in each state."""
    state = schema.recipients.c.state
    query = sa.select(state, sa.func.count()).group_by(state)
    return {row[0]: row[1] for row in connection.execute(query)}


def _note(
    connection: sa.Connection, stamp: WriteStamp, kind: DecisionKind, **facts: object
) -> None:
    at = from_micros(stamp.now)
    decision = Decision(at=at, kind=kind, rule=kind.value, evidence=facts)
    record_decisions(connection, stamp.run, [decision])
