"""The routes of runs, and each run's share of a route's rate.

Each function runs inside a transaction of the writer. All living runs on a route share
its rate, whatever else they send to.
"""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.owner import dead_owners
from drainer.ledger.records import WriteStamp, from_micros

_N, _T = schema.runs.c, schema.run_routes.c
_WHOLE = 1_000_000
"""The ledger has a share of a rate in millionths."""


def join_routes(connection: sa.Connection, run: str, routes: Sequence[str]) -> None:
    """Record by which routes a run sends; it has no share of their rates yet."""
    rows = [
        {"run": run, "route": route, "place": place, "share": 0}
        for place, route in enumerate(routes)
    ]
    if rows:
        connection.execute(sa.insert(schema.run_routes), rows)


def routes_of(connection: sa.Connection, run: str) -> list[str]:
    """Return the names of a run's routes."""
    query = sa.select(_T.route).where(_T.run == run).order_by(_T.place)
    return list(connection.scalars(query))


def last_activity(
    connection: sa.Connection, stamp: WriteStamp, route: str
) -> datetime | None:
    """Return until when another run may have sent to this route.

    A run without an end died at an unknown moment, or is still running: that counts as
    now.
    """
    others = _on(route).where(_N.id != stamp.run).with_only_columns(_N.ended)
    ends = list(connection.scalars(others))
    if not ends:
        return None
    return from_micros(max(stamp.now if end is None else end for end in ends))


def fair_share(
    connection: sa.Connection, stamp: WriteStamp, route: str, most: int
) -> float:
    """Return what a run may have of a route's rate, 0 to 1.

    The living runs on a route share equally; only the ``most`` oldest have a part,
    because a bucket smaller than one message would never send.
    """
    ranks = on_route(connection, route, stamp.now)
    if stamp.run not in ranks[:most]:
        return 0.0
    return _WHOLE // min(most, len(ranks)) / _WHOLE


def take_share(
    connection: sa.Connection, stamp: WriteStamp, route: str, wanted: float
) -> float:
    """Take a share of a route's rate, as far as the others have left one; return it.

    Lower the own rate before taking a smaller share, never after.
    """
    living = _living(connection, route, stamp.now)
    taken = sum(share for id_, share in living if id_ != stamp.run)
    share = max(0, min(int(wanted * _WHOLE), _WHOLE - taken))
    mine = (_T.run == stamp.run, _T.route == route)
    connection.execute(sa.update(schema.run_routes).where(*mine).values(share=share))
    return share / _WHOLE


def on_route(connection: sa.Connection, route: str, now: int) -> list[str]:
    """Return the ids of the living runs on a route, the oldest first."""
    return [id_ for id_, _ in _living(connection, route, now)]


def _living(connection: sa.Connection, route: str, now: int) -> list[tuple[str, int]]:
    """Return the living runs on a route, the oldest first, with their shares."""
    dead = dead_owners(connection, now)
    rows = connection.execute(
        _on(route)
        .where(_N.ended.is_(None), _N.owner.not_in(dead))
        .order_by(_N.started, _N.id)
    )
    return [(str(row.id), int(row.share)) for row in rows]


def _on(route: str) -> sa.Select[tuple[str, int]]:
    return (
        sa.select(_N.id, _T.share)
        .join(schema.run_routes, _T.run == _N.id)
        .where(_T.route == route)
    )
