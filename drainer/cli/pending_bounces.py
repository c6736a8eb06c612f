"""Pending bounces and sent bounces, as `bounces list` and `bounces show` print them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from drainer.bounce import approval
from drainer.bounce.build import make_bouncing
from drainer.bounce.decider import BounceDecider
from drainer.cli.output import clean, stdout
from drainer.cli.table import Table
from drainer.cli.times import format_time
from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.ledger.filters import Filters
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import from_micros
from drainer.ledger.reports.limits import LimitCheck
from drainer.ledger.reports.pending_bounces import (
    PendingBounce,
    apply_limits,
    find_pending,
    limits_now,
)
from drainer.policy.recipient.state import State
from drainer.runtime.process import utcnow


@contextmanager
def open_decider(config: Config) -> Iterator[tuple[LedgerReader, BounceDecider | None]]:
    """Yield the ledger and the bounce rules; no rules when no bounces are sent."""
    bouncing = make_bouncing(config)
    with LedgerReader(ledger_url(config)) as report:
        yield report, bouncing.decider if bouncing is not None else None


def bounce_facts(
    report: LedgerReader, bounce_decider: BounceDecider | None, filters: Filters
) -> Iterator[dict[str, Any]]:
    """Yield recipients for scripts, as if every pending bounce were final now."""
    limits = limits_now(report, utcnow())
    for each in find_pending(report, filters):
        yield _facts(bounce_decider, limits, each)


def _facts(
    bounce_decider: BounceDecider | None, limits: LimitCheck, each: PendingBounce
) -> dict[str, Any]:
    row = each.row
    waits = row["state"] == State.BOUNCE_PENDING.value
    decision = None
    evidence: dict[str, str] = {}
    if waits and bounce_decider is not None:
        permit = approval.ask(bounce_decider, each, utcnow())
        found = apply_limits(permit, each, limits).decision
        evidence = dict(found.evidence)
        decision = {
            "answer": found.answer.value,
            "rule": found.rule,
            "reason": found.reason,
        }
    due = row["due"] if waits else None
    return {
        "id": row["id"],
        "native_id": row["native_id"],
        "sender": row["reverse_path"],
        "forward_path": row["forward_path"],
        "state": row["state"],
        "due": from_micros(due).isoformat() if due is not None else None,
        "reply": row["reply"] or None,
        "rule": row["rule"],
        "gathered": each.found is not None,
        "decision": decision,
        "evidence": evidence,
        "report": _report_facts(each),
    }


def _report_facts(each: PendingBounce) -> dict[str, Any] | None:
    report = each.report
    if report is None:
        return None
    return {
        "state": report["state"],
        "message_id": report["report"] or None,
        "attempts": report["attempts"],
        "due": from_micros(report["due"]).isoformat() if report["due"] else None,
        "answer": report["answer"] or None,
    }


def bounce_table() -> Table:
    """Return an empty table of bounces, for ``add_row``."""
    return Table(
        "id", "sender", "recipient", "state", "due", "decision", "because",
        spare=("due", "state", "decision", "because"), cut=("because",),
    )  # fmt: skip


def add_row(table: Table, fact: dict[str, Any]) -> None:
    """Add one recipient to a table of bounces."""
    decision, report = fact["decision"], fact["report"]
    words, because = "", fact["reply"] or ""
    if report is not None:
        words, because = f"report {report['state']}", report["answer"] or ""
    elif decision is not None:
        words, because = (
            f"{decision['answer']} by {decision['rule']}",
            decision["reason"],
        )
    values = (
        fact["sender"] or "<>",
        fact["forward_path"],
        fact["state"],
        format_time(fact["due"], seconds=False),
        words,
        because,
    )
    table.add(fact["id"][:12], *(clean(value, 1000) for value in values))


def print_facts(fact: dict[str, Any]) -> None:
    """Print everything about one recipient."""
    console = stdout()
    for key, value in fact.items():
        if isinstance(value, dict):
            for name, words in value.items():
                console.print(f"{key} {name}: {clean(words, 400)}", soft_wrap=True)
        elif key == "due" and value:
            console.print(f"{key}: {format_time(value)}")
        elif value is not None:
            console.print(f"{key}: {clean(value, 400)}", soft_wrap=True)
