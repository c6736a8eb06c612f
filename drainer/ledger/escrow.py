"""What rests in escrow, and what an operator decides about it.

Each change is guarded by the state ``bounce-pending`` and recorded as a decision; the
report is queued in the transaction that makes its recipient bounced.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import URL

from drainer.ledger import Decision, Kind, Row, engine, from_micros, schema, to_micros
from drainer.ledger.bounces import QUEUED, counting
from drainer.ledger.filters import Filters
from drainer.ledger.report import MANY, Report
from drainer.ledger.rows import decision_row
from drainer.mail.report import Action
from drainer.policy.job import Found
from drainer.policy.judging import Permit
from drainer.policy.state import Event, State, follow

_R, _M = schema.recipients.c, schema.messages.c
_E, _N = schema.evidence.c, schema.reports.c
PENDING = State.BOUNCE_PENDING
TOLD = (PENDING, State.BOUNCED)
"""States in which there is something to tell a sender."""


class Resting(NamedTuple):
    """A recipient that may be reported, or was."""

    #: The recipient joined with its message.
    row: Row
    #: What was found about its sender; None when nobody has looked.
    found: Found | None
    #: Its row of ``reports``, once it is bounced.
    report: Row | None


def resting(report: Report, filters: Filters) -> Iterator[Resting]:
    """Yield what rests in escrow and what was reported, oldest message first."""
    states = [state.value for state in TOLD]
    wanted = [state for state in filters.states or states if state in states]
    if not wanted:
        return
    rows = report.recipients(replace(filters, states=wanted))
    while some := list(itertools.islice(rows, MANY)):
        seqs = sorted({row["message"] for row in some})
        known = sa.select(schema.evidence).where(_E.message.in_(seqs))
        evidence = {
            row["message"]: Found(
                asked=row["asked"], facts=row["facts"], marks=row["marks"]
            )
            for row in report.rows(known)
        }
        told = sa.select(schema.reports).where(
            _N.message.in_(seqs), _N.action == Action.FAILED.value
        )
        reports = {(row["message"], row["n"]): row for row in report.rows(told)}
        for row in some:
            yield Resting(
                row,
                evidence.get(row["message"]),
                reports.get((row["message"], row["n"])),
            )


def recent_reports(report: Report, since: datetime) -> list[Row]:
    """Return the reports that count against further ones, as bounces.recent does."""
    return list(report.rows(counting(to_micros(since))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What becomes of one recipient by an operator's word."""

    resting: Resting
    event: Event
    #: What the bounce gate said, when it was asked.
    permit: Permit | None = None


def rule(url: URL, verb: str, rulings: Sequence[Ruling], reason: str) -> int:
    """Carry rulings out in one transaction; return how many still applied."""
    now, why = to_micros(datetime.now(UTC)), (verb, reason)
    with engine.writing(url) as connection:
        return sum(_apply(connection, each, why, now) for each in rulings)


def _apply(
    connection: sa.Connection, ruling: Ruling, why: tuple[str, str], now: int
) -> int:
    row = ruling.resting.row
    state = follow(PENDING, ruling.event)
    mine = (_R.message == row["message"], _R.n == row["n"])
    changed = connection.execute(
        sa.update(schema.recipients)
        .where(*mine, _R.state == PENDING.value)
        .values(state=state.value, since=now, due=None)
    )
    if changed.rowcount != 1:
        return 0
    decisions = _decisions(ruling, state, why, now)
    rows = [decision_row(decision, "") for decision in decisions]
    connection.execute(sa.insert(schema.decisions), rows)
    if state is State.BOUNCED and ruling.permit is not None:
        queued = _report_row(row, ruling.permit, now)
        connection.execute(sa.insert(schema.reports), [queued])
    return 1


def _decisions(
    ruling: Ruling, state: State, why: tuple[str, str], now: int
) -> list[Decision]:
    """Return what the operator decided, and what the bounce gate said."""
    row, (verb, reason) = ruling.resting.row, why
    about: dict[str, Any] = {
        "at": from_micros(now),
        "message": row["message"],
        "n": row["n"],
    }
    evidence: dict[str, object] = {
        "reason": reason,
        "before": PENDING.value,
        "state": state.value,
    }
    decisions = [
        Decision(
            kind=Kind.OPERATOR, rule=f"operator-{verb}", evidence=evidence, **about
        )
    ]
    if ruling.permit is not None:
        asked = ruling.permit.decision
        decisions.append(
            Decision(
                kind=Kind.BOUNCE,
                rule=asked.rule,
                verdict=asked.answer.value,
                evidence={"reason": asked.reason, **asked.evidence},
                **about,
            )
        )
    return decisions


def _report_row(row: Row, permit: Permit, now: int) -> Row:
    return {
        "message": row["message"],
        "n": row["n"],
        "at": now,
        "action": Action.FAILED.value,
        "key": permit.key,
        "sender": row["reverse_path"],
        "status": permit.status,
        "reply": row["reply"],
        "rule": row["rule"],
        "refused": row["since"],
        "report": "",
        "state": QUEUED,
        "due": now,
        "attempts": 0,
        "answer": "",
    }


def bound(report: Report, route: str) -> list[str]:
    """Return the URLs of the sources that are bound to a route."""
    known = schema.sources.c
    query = sa.select(known.url).where(known.route == route).order_by(known.url)
    return [str(row["url"]) for row in report.rows(query)]


class Outlook(NamedTuple):
    """What will happen about refusals and reports, when somebody runs something."""

    pending: int
    ripe: datetime | None
    queued: int
    due: datetime | None


def outlook(report: Report) -> Outlook:
    """Say how many refusals ripen from when on, and how many reports are queued."""
    refused: list[Any] = [
        sa.func.count().label("count"),
        sa.func.min(_R.due).label("due"),
    ]
    told: list[Any] = [
        sa.func.count(_N.message.distinct()).label("count"),
        sa.func.min(_N.due).label("due"),
    ]
    resting_ = sa.select(*refused).where(_R.state == PENDING.value)
    queued = sa.select(*told).where(_N.state == QUEUED)
    (first,), (second,) = list(report.rows(resting_)), list(report.rows(queued))
    return Outlook(
        int(first["count"]),
        None if first["due"] is None else from_micros(first["due"]),
        int(second["count"]),
        None if second["due"] is None else from_micros(second["due"]),
    )
