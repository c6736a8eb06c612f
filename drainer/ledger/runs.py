"""A run in the ledger: start, renew, end.

Each function runs inside a transaction of the writer.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import sqlalchemy as sa

from drainer.errors import LedgerLost
from drainer.ledger import schema
from drainer.ledger.codec import decision_row
from drainer.ledger.owner import lease_end
from drainer.ledger.records import Decision, DecisionKind, Row, from_micros
from drainer.ledger.reserve import ReserveRecord
from drainer.ledger.route_shares import join_routes
from drainer.ledger.takeover import abandon, settle_reserved, take_over
from drainer.ledger.writer.batch import WriterIdentity
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


class RunStart(NamedTuple):
    """What a run found when it started."""

    #: Recipients that dead runs left in doubt, and those that a reserve settled.
    in_doubt: int
    settled: int


def begin(
    connection: sa.Connection,
    owner: Row,
    identity: WriterIdentity,
    due: int,
    reserved: Sequence[ReserveRecord],
) -> RunStart:
    """Announce a run and its owner; take over from dead ones.

    ``owner`` has the routes and the facts as well. Recipients that stay in doubt wait
    until ``due``.
    """
    now = int(owner["begun"])
    routes, facts = list(map(str, owner["routes"])), str(owner["facts"])
    of_run = ("begun", "routes", "facts")
    row = {key: owner[key] for key in owner if key not in of_run}
    connection.execute(sa.insert(schema.owners), [row])
    run = {
        "id": identity.run,
        "owner": identity.owner,
        "started": now,
        "commits": 0,
        "facts": facts,
    }
    connection.execute(sa.insert(schema.runs), [run])
    join_routes(connection, identity.run, routes)
    words = ", ".join(routes)
    _note(connection, DecisionKind.RUN_STARTED, identity.run, now, route=words)
    settled = settle_reserved(connection, reserved, identity.run, now)
    return RunStart(take_over(connection, identity, now, due), settled)


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


def renew(connection: sa.Connection, owner: str, now: int) -> None:
    """Renew an owner's lease."""
    connection.execute(
        sa.update(schema.owners)
        .where(schema.owners.c.id == owner)
        .values(lease=lease_end(now))
    )


def end(
    connection: sa.Connection,
    identity: WriterIdentity,
    ending: Mapping[str, object],
    now: int,
    rest: timedelta,
) -> None:
    """End a run: ``ending`` has its exit code, its commits before this one, and more.

    It releases the run's claims. What is in flight is in doubt, and waits for ``rest``.
    """
    states = _states(connection)
    kind = DecisionKind.RUN_ENDED
    _note(connection, kind, identity.run, now, **ending, states=states)
    connection.execute(
        sa.update(schema.runs)
        .where(_N.id == identity.run)
        .values(ended=now, exit=ending["exit"])
    )
    due = now + rest // timedelta(microseconds=1)
    abandon(connection, [identity.owner], identity.run, (now, due))


def _states(connection: sa.Connection) -> dict[str, int]:
    """Return how many recipients of the ledger are in each state."""
    state = schema.recipients.c.state
    query = sa.select(state, sa.func.count()).group_by(state)
    return {row[0]: row[1] for row in connection.execute(query)}


def _note(
    connection: sa.Connection, kind: DecisionKind, run: str, now: int, **facts: object
) -> None:
    decision = Decision(at=from_micros(now), kind=kind, rule=kind.value, evidence=facts)
    connection.execute(sa.insert(schema.decisions), [decision_row(decision, run)])
