"""The circuit breakers in the ledger, and what earlier runs learnt of a route.

Each function runs inside a transaction of the writer.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from msgspec import convert

from drainer.ledger import schema
from drainer.ledger.columns import from_json, to_json
from drainer.ledger.records import Row, WriteStamp, from_micros, to_micros
from drainer.mail.envelope import domain_of
from drainer.policy.breaker.breaker import BreakerState, Cause, CircuitBreaker, Phase
from drainer.policy.breaker.detector import UNKNOWN_USER
from drainer.policy.classify.verdict import Classification
from drainer.policy.recipient.settle import ROUTE_WAITS
from drainer.policy.recipient.state import State

_R, _M, _G = schema.recipients.c, schema.messages.c, schema.breakers.c
_OF_BREAKER = ("phase", "failures", "reopening")
_OF_CAUSE = ("trigger", "reply", "sender_domain", "fingerprint", "blind", "content")
_OF_CLASSIFICATION = ("verdict", "scope", "rule", "reason", "short", "counts")
LEARNT_FOR = timedelta(days=30)
MAX_LEARNT = 20_000
SENDERS = 2
"""Senders recalled for a recipient domain: with two, one always differs from any."""


def keep(
    connection: sa.Connection, stamp: WriteStamp, route: str, breaker: CircuitBreaker
) -> None:
    """Record a breaker; one that is as at the start needs no row."""
    connection.execute(
        sa.delete(schema.breakers).where(_G.route == route, _G.scope == breaker.scope)
    )
    if breaker == CircuitBreaker(pauses=breaker.pauses, scope=breaker.scope):
        return
    row = {
        "route": route,
        "scope": breaker.scope,
        "state": breaker.state.value,
        "until": to_micros(breaker.until) if breaker.until else None,
        "since": stamp.now,
        "facts": to_json(_facts(breaker)),
    }
    connection.execute(sa.insert(schema.breakers), [row])


def _facts(breaker: CircuitBreaker) -> Row:
    facts = {name: getattr(breaker, name) for name in _OF_BREAKER}
    if breaker.cause is None:
        return facts | {"cause": None}
    cause = {name: getattr(breaker.cause, name) for name in _OF_CAUSE}
    classification = breaker.cause.classification
    cause |= {name: getattr(classification, name) for name in _OF_CLASSIFICATION}
    return facts | {"cause": cause}


def breaker_of(row: Row, pauses: tuple[timedelta, ...]) -> CircuitBreaker:
    """Rebuild a breaker from its row."""
    facts = from_json(row["facts"])
    return CircuitBreaker(
        pauses=pauses,
        scope=row["scope"],
        state=BreakerState(row["state"]),
        phase=Phase(facts["phase"]),
        until=None if row["until"] is None else from_micros(row["until"]),
        failures=facts["failures"],
        reopening=facts["reopening"],
        cause=cause_of(facts["cause"]) if facts["cause"] else None,
    )


def cause_of(facts: Row) -> Cause:
    """Rebuild the cause of a breaker from its JSON."""
    classification = convert(facts, Classification)
    return convert(facts | {"classification": classification}, Cause)


class RouteMemory(NamedTuple):
    """What earlier runs knew of a route."""

    breakers: list[Row]
    #: Addresses that were delivered to lately.
    learnt: list[str]
    #: (recipient domain, sender domain, when), the latest two senders of each domain.
    delivered: list[tuple[str, str, int]]
    #: When the first run to this route started; None = there was none.
    first_run: int | None
    #: Addresses of them that the primary does not know now.
    lost: list[str]


def recall(connection: sa.Connection, stamp: WriteStamp, route: str) -> RouteMemory:
    """Return a route's breakers as the last run left them, and what it knew.

    The addresses that the route took lately are in order.
    """
    mine = _G.route == route
    paused = BreakerState.PAUSED.value  # a new run tries at once
    connection.execute(sa.delete(schema.breakers).where(mine, _G.state == paused))
    rows = connection.execute(sa.select(schema.breakers).where(mine))
    since = stamp.now - LEARNT_FOR // timedelta(microseconds=1)
    kept = [dict(row) for row in rows.mappings()]
    scopes = [row["scope"] or ROUTE_WAITS for row in kept]
    _make_orphans_due(connection, route, scopes, stamp.now)
    delivered: sa.Select[Any] = (
        sa.select(_R.forward_path, _M.reverse_path, _R.since)
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state == State.DELIVERED.value, _R.since > since)
        .where(_R.route == route)
        .order_by(_R.since.desc(), _R.message, _R.n)
        .limit(MAX_LEARNT)
    )
    lately = connection.execute(delivered).all()[::-1]
    runs, taken = schema.runs.c, schema.run_routes.c
    first = connection.scalar(
        sa.select(sa.func.min(runs.started)).where(
            runs.id.in_(sa.select(taken.run).where(taken.route == route))
        )
    )
    learnt = [row.forward_path for row in lately]
    lost = _unknown(connection, route).intersection(learnt)
    return RouteMemory(kept, learnt, _senders(lately), first, sorted(lost))


def _unknown(connection: sa.Connection, route: str) -> set[str]:
    """Return recipients that the primary says it does not know, not yet finally."""
    waits = (State.BOUNCE_PENDING.value, State.DEFERRED.value)
    query = sa.select(_R.forward_path).where(
        _R.route == route, _R.state.in_(waits), _R.refusal.in_(UNKNOWN_USER)
    )
    return set(connection.scalars(query))


def _senders(lately: Sequence[sa.Row[Any]]) -> list[tuple[str, str, int]]:
    """Return who was delivered last to each recipient domain, in order."""
    found: dict[str, dict[str, int]] = {}
    for row in reversed(lately):
        senders = found.setdefault(domain_of(row.forward_path), {})
        if len(senders) < SENDERS:
            senders.setdefault(domain_of(row.reverse_path), row.since)
    last = ((to, who, at) for to, some in found.items() for who, at in some.items())
    return sorted(last, key=lambda each: each[2])


def _make_orphans_due(
    connection: sa.Connection, route: str, scopes: list[str], now: int
) -> None:
    """Make due what waits for a breaker that no run has any more, after a crash."""
    connection.execute(
        sa.update(schema.recipients)
        .where(_R.state == State.DEFERRED.value, _R.waits.not_in(["", *scopes]))
        .where(_R.route == route)
        .values(due=now, waits="")
    )
