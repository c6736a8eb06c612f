"""The progress of a drain: the facts of `status --json`, and of the hook's page."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row


def standing(
    report: LedgerReader, lifetime: timedelta, sources: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the facts by their names in `status --json`; ``lifetime`` is [retry]'s.

    Without sources, of the whole ledger.
    """
    with report.snapshot():  # else a scan or a drain changes it between two sums
        states, spooled = report.states(sources), report.spooled(sources)
        routes = report.states_by_route(sources)
        return {
            "spooled": spooled,
            "states": states,
            "routes": [{"route": name, "states": routes[name]} for name in routes],
            "balanced": spooled == sum(states.values()),
            "messages": report.message_counts(sources),
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
