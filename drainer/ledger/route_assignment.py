"""Which route each recipient takes, when the configuration has changed.

The scan assigns a recipient to a route. A later run may have other routes. What it may
still try moves along. What is final stays, because it was sent where it was sent. What
is in doubt stays too, because another server may have it: an operator requeues it.
What an operator requeued or released although its domain has no route takes the one of
the primary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.columns import to_json
from drainer.ledger.records import DecisionKind, WriteStamp
from drainer.ledger.transitions import CHUNK, Transition, transition
from drainer.policy.admission.admit import Admission
from drainer.policy.recipient.state import Event, State

_R, _M = schema.recipients.c, schema.messages.c
_WAITING = [s.value for s in (State.PENDING, State.DEFERRED, State.HELD)]
_REFUSED = State.BOUNCE_PENDING.value
_RULE = "another-route"
AT_ONCE = 5_000
"""Recipients in memory."""


def assign(
    connection: sa.Connection,
    stamp: WriteStamp,
    sources: Sequence[str],
    rules: Admission,
) -> None:
    """Assign what waits in some sources to the routes of this run.

    A pending bounce that moves is tried again: another server has refused it.
    """
    digest = rules.routing_digest
    for url in sources:
        known = schema.sources.c
        before = connection.scalar(sa.select(known.routing).where(known.url == url))
        waiting = [_M.source == url, _M.owner.is_(None)]
        if before == digest:  # then only what an operator has requeued since
            waiting.append(_R.route.not_in(rules.routes.names))
        _move(connection, stamp, waiting, rules)
        names = to_json(rules.routes.names)
        row = {"url": url, "routing": digest, "routes": names, "bound": stamp.now}
        if before is None:
            connection.execute(sa.insert(schema.sources), [row])
        elif before != digest:
            changed = sa.update(schema.sources).where(known.url == url)
            connection.execute(changed.values(row))


def _move(
    connection: sa.Connection,
    stamp: WriteStamp,
    waiting: Sequence[sa.ColumnElement[bool]],
    rules: Admission,
) -> None:
    query = (
        sa.select(_R.message, _R.n, _R.state, _R.forward_path, _R.route)
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state.in_([*_WAITING, _REFUSED]), *waiting)
        .order_by(_R.message, _R.n)
        .limit(AT_ONCE)
    )
    last = (-1, -1)
    while True:
        behind = sa.tuple_(_R.message, _R.n) > sa.tuple_(*last)
        found = connection.execute(query.where(behind)).mappings()
        rows: list[Mapping[str, Any]] = [dict(row) for row in found]
        if not rows:
            return
        last = (rows[-1]["message"], rows[-1]["n"])
        _move_some(connection, stamp, rows, rules)


def _move_some(
    connection: sa.Connection,
    stamp: WriteStamp,
    rows: Sequence[Mapping[str, Any]],
    rules: Admission,
) -> None:
    moved: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        route = rules.route_of(row["forward_path"])
        if not route and row["state"] != State.HELD.value:
            route = rules.routes.fallback  # an operator's order
        if route != row["route"]:
            moved.setdefault(route, []).append(row)
    for route, some in moved.items():
        for start in range(0, len(some), CHUNK):
            _set_route(connection, some[start : start + CHUNK], route)
        refused = [row for row in some if row["state"] == _REFUSED]
        transition(connection, refused, _again(route, stamp), stamp.now)


def _set_route(
    connection: sa.Connection, rows: Sequence[Mapping[str, Any]], route: str
) -> None:
    """Move recipients; one that waits for the breaker of its old route is due."""
    keys = [(row["message"], row["n"]) for row in rows]
    mine = sa.tuple_(_R.message, _R.n).in_(keys)
    moved = sa.update(schema.recipients).where(mine)
    connection.execute(moved.values(route=route))
    connection.execute(moved.where(_R.waits != "").values(due=0, waits=""))


def _again(route: str, stamp: WriteStamp) -> Transition:
    return Transition(
        event=Event.REROUTED,
        kind=DecisionKind.SCANNED,
        rule=_RULE,
        run=stamp.run,
        values={"due": stamp.now, "refusal": "", "refused": None},
        evidence={"reason": f"its mail goes to {route or 'no route'} now"},
    )
