"""A run in the ledger: start, bind, renew, end; and its share of a rate.

Each function runs inside a transaction of the writer.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import sqlalchemy as sa

from drainer.errors import LedgerLost, UsageError
from drainer.ledger import schema
from drainer.ledger.codec import decision_row
from drainer.ledger.owner import dead_owners, lease_end
from drainer.ledger.records import Decision, DecisionKind, Row, from_micros
from drainer.ledger.reserve import ReserveRecord
from drainer.ledger.takeover import abandon, settle_reserved, take_over
from drainer.ledger.writer.batch import WriterIdentity
from drainer.ledger.writer.prepared_statement import PreparedStatement

_N = schema.runs.c
WHOLE = 1_000_000
"""A share of a rate is counted in millionths."""
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

    ``owner`` has the route and the facts as well. Recipients that stay in doubt wait
    until ``due``.
    """
    now = int(owner["begun"])
    route, facts = str(owner["route"]), str(owner["facts"])
    of_run = ("begun", "route", "facts")
    row = {key: owner[key] for key in owner if key not in of_run}
    connection.execute(sa.insert(schema.owners), [row])
    run = {
        "id": identity.run,
        "owner": identity.owner,
        "route": route,
        "started": now,
        "commits": 0,
        "share": 0,
        "facts": facts,
    }
    connection.execute(sa.insert(schema.runs), [run])
    _note(connection, DecisionKind.RUN_STARTED, identity.run, now, route=route)
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


def bind(
    connection: sa.Connection, sources: Sequence[str], route: str, now: int
) -> None:
    """Bind sources to their primary; raise UsageError when it is another one.

    drainer binds a source again if nothing of it was ever tried and no run works on it:
    an operator who mistyped a name loses nothing.
    """
    bound = schema.sources.c
    for url in sources:
        known = connection.scalar(sa.select(bound.route).where(bound.url == url))
        if known is None:
            row = {"url": url, "route": route, "bound": now}
            connection.execute(sa.insert(schema.sources), [row])
        elif known != route and not _is_begun(connection, url):
            row = {"route": route, "bound": now}
            connection.execute(
                sa.update(schema.sources).where(bound.url == url).values(row)
            )
        elif known != route:
            message = f"{url} has been drained to {known} before, not to {route}"
            hint = "give the same --to, another --ledger, or --rehearse to try it"
            raise UsageError(message, hint=hint)


def _is_begun(connection: sa.Connection, url: str) -> bool:
    message, attempt = schema.messages.c, schema.attempts.c
    tried = sa.exists().where(attempt.message == message.seq)
    begun = sa.select(sa.literal(1)).where(
        message.source == url, message.owner.is_not(None) | tried
    )
    return connection.scalar(begun.limit(1)) is not None


def last_activity(
    connection: sa.Connection, route: str, run: str, now: int
) -> int | None:
    """Return until when another run may have sent to this route.

    A run without an end died at an unknown moment, or is still running: that counts as
    now.
    """
    others = sa.select(_N.ended).where(_N.route == route, _N.id != run)
    ends = list(connection.scalars(others))
    if not ends:
        return None
    return max(now if end is None else end for end in ends)


def renew(connection: sa.Connection, owner: str, now: int) -> None:
    """Renew an owner's lease."""
    connection.execute(
        sa.update(schema.owners)
        .where(schema.owners.c.id == owner)
        .values(lease=lease_end(now))
    )


def fair_share(connection: sa.Connection, run: str, most: int, now: int) -> int:
    """Return what a run may have of its route's rate, in millionths.

    The living runs on a route share equally; only the ``most`` oldest have a part,
    because a bucket smaller than one message would never send.
    """
    route = sa.select(_N.route).where(_N.id == run).scalar_subquery()
    ranks = [id_ for id_, _ in _living(connection, route, now)]
    if run not in ranks[:most]:
        return 0
    return WHOLE // min(most, len(ranks))


def take_share(connection: sa.Connection, run: str, wanted: int, now: int) -> int:
    """Take a share, as far as the others have left one; return the share it got."""
    route = sa.select(_N.route).where(_N.id == run).scalar_subquery()
    living = _living(connection, route, now)
    taken = sum(share for id_, share in living if id_ != run)
    share = max(0, min(wanted, WHOLE - taken))
    connection.execute(sa.update(schema.runs).where(_N.id == run).values(share=share))
    return share


def on_route(connection: sa.Connection, route: str, now: int) -> list[str]:
    """Return the ids of the living runs on a route, the oldest first."""
    return [id_ for id_, _ in _living(connection, route, now)]


def _living(
    connection: sa.Connection, route: sa.ScalarSelect[str] | str, now: int
) -> list[tuple[str, int]]:
    """Return the living runs on a route, the oldest first, with their shares."""
    dead = dead_owners(connection, now)
    rows = connection.execute(
        sa.select(_N.id, _N.share)
        .where(_N.route == route, _N.ended.is_(None), _N.owner.not_in(dead))
        .order_by(_N.started, _N.id)
    )
    return [(str(row.id), int(row.share)) for row in rows]


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
