"""The progress of a drain: the facts of `status --json`, and of the hook's page."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.reader import LedgerReader, sum_states
from drainer.ledger.records import MANY, Row
from drainer.policy.recipient.state import State

_R, _M, _A = schema.recipients.c, schema.messages.c, schema.attempts.c


def status_facts(
    report: LedgerReader, lifetime: timedelta, sources: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the facts by their names in `status --json`; ``lifetime`` is [retry]'s.

    Without sources, of the whole ledger.
    """
    with report.snapshot():  # else a scan or a drain changes it between two sums
        routes, sums = report.states_by_route(sources), report.sums(sources)
        states = sum_states(routes)
        return {
            "spooled": sums.spooled,
            "states": states,
            "routes": [{"route": name, "states": routes[name]} for name in routes],
            "balanced": sums.spooled == sum(states.values()),
            "messages": sums.messages,
            "run": report.last_run(),
            "breakers": report.breakers(),
            "expires_first": expiry(report.expires_first(sources), lifetime),
        }


def expiry(row: Row | None, lifetime: timedelta) -> dict[str, Any] | None:
    """Return which recipient expires first, and the seconds that it has left."""
    if row is None:
        return None
    left = lifetime.total_seconds() - row["spent"] / 1e6
    return {
        "id": row["id"],
        "native_id": row["native_id"],
        "forward_path": row["forward_path"],
        "left": round(max(left, 0.0), 1),
    }


def replayable(report: LedgerReader, *, all_kept: bool = False) -> Row:
    """Return ``recipients`` that were delivered and that their source still has.

    ``since``: when the first of them was delivered, in microseconds, or None. What the
    source has dropped is not counted; ``all_kept`` says that it has dropped nothing.
    """
    kept: list[sa.ColumnElement[bool]] = [_R.state == State.DELIVERED.value]
    if not all_kept:
        kept.append(_M.acknowledged.is_(None))
    of_message = _R.message == _M.seq

    def ask(what: sa.ColumnElement[Any]) -> Any:  # noqa: ANN401 - a number, or None
        query = sa.select(what.label("found")).where(*kept)
        if not all_kept:
            query = query.join(schema.messages, of_message)
        return next(report.rows(query))["found"]

    count, since = ask(sa.func.count()), None
    if count:
        # What was tried first was delivered first, unless none of it was delivered.
        first = sa.select(_A.message).order_by(_A.id).limit(MANY)
        few = [row["message"] for row in report.rows(first)]
        tried = sa.select(_R.since, sa.and_(*kept).label("kept")).where(
            _R.message.in_(few)
        )
        rows = report.rows(tried.join(schema.messages, of_message))
        since = min((row["since"] for row in rows if row["kept"]), default=None)
        since = since or ask(sa.func.min(_R.since))
    return {"recipients": count, "since": since}
