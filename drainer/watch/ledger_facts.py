"""The facts of the ledger that pages, metrics and reports share."""

from datetime import timedelta
from typing import Any, NamedTuple

from drainer.ledger.query.status import status_facts
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import from_micros
from drainer.policy.classify.describe import meaning_of

Facts = dict[str, Any]
REFUSED = ("deferred", "held", "bounce-pending", "unknown")
"""The states of which the reasons are shown."""


class LedgerFacts(NamedTuple):
    """The last facts of the ledger, or why there are none."""

    facts: Facts
    error: str = ""


def ledger_facts(report: LedgerReader, lifetime: timedelta) -> Facts:
    """Return the sums of the ledger, and why recipients wait; ``[retry] lifetime``."""
    reasons = [
        {
            "state": row["state"],
            "rule": row["rule"],
            "meaning": meaning_of(row["rule"]),
            "recipients": int(row["count"]),
            "since": from_micros(row["since"]).isoformat(),
            "due": from_micros(row["due"]).isoformat() if row["due"] else None,
            "reply": row["reply"],
        }
        for row in report.reasons()
        if row["state"] in REFUSED
    ]
    return {**status_facts(report, lifetime), "reasons": reasons}
