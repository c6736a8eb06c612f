"""The pending bounces, and what an operator decides about them.

Each change is guarded by the state ``bounce-pending`` and recorded as a decision. The
report is queued in the transaction that makes its recipient bounced.
"""

import itertools
import uuid
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy.engine import URL

from drainer.ledger import engine, schema
from drainer.ledger.codec import message_of, recipient_of, sender_of
from drainer.ledger.columns import from_json
from drainer.ledger.decisions import record_decisions
from drainer.ledger.filters import Filters
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import MANY, DecisionKind, Row, from_micros, to_micros
from drainer.ledger.reports.evidence import (
    QUEUED,
    bounce_decision,
    report_row,
    stored_evidence_of,
)
from drainer.ledger.reports.limits import LimitCheck, lately, make_limits, reported_of
from drainer.ledger.transitions import Transition, transition
from drainer.mail.dsn.model import DsnAction
from drainer.policy.bounce.limits import ReportTally
from drainer.policy.recipient.delivery import StoredEvidence
from drainer.policy.recipient.judge import BouncePermit
from drainer.policy.recipient.state import Event, State, follow

_R, _M = schema.recipients.c, schema.messages.c
_E, _N = schema.evidence.c, schema.reports.c
PENDING = State.BOUNCE_PENDING
REPORTABLE = (PENDING, State.BOUNCED)
"""States in which there is something to report to a sender."""


class PendingBounce(NamedTuple):
    """A recipient that may be reported, or was."""

    #: The recipient joined with its message.
    row: Row
    #: What was found about its sender; None when drainer has not looked yet.
    found: StoredEvidence | None
    #: Its row of ``reports``, once it is bounced.
    report: Row | None
    #: The address that gets the report.
    sender: str


def find_pending(report: LedgerReader, filters: Filters) -> Iterator[PendingBounce]:
    """Yield pending bounces and what was reported, oldest message first."""
    states = [state.value for state in REPORTABLE]
    wanted = [state for state in filters.states or states if state in states]
    if not wanted:
        return
    rows = report.recipients(replace(filters, states=wanted))
    while some := list(itertools.islice(rows, MANY)):
        seqs = sorted({row["message"] for row in some})
        known = sa.select(schema.evidence).where(_E.message.in_(seqs))
        evidence = {
            row["message"]: stored_evidence_of(row) for row in report.rows(known)
        }
        failed = sa.select(schema.reports).where(
            _N.message.in_(seqs), _N.action == DsnAction.FAILED.value
        )
        reports = {(row["message"], row["n"]): row for row in report.rows(failed)}
        messages = sa.select(schema.messages).where(_M.seq.in_(seqs))
        envelopes = {
            row["seq"]: message_of(row).envelope for row in report.rows(messages)
        }
        for row in some:
            yield PendingBounce(
                row,
                evidence.get(row["message"]),
                reports.get((row["message"], row["n"])),
                sender_of(envelopes[row["message"]], recipient_of(row)),
            )


def limits_now(report: LedgerReader, now: datetime) -> LimitCheck:
    """Return the limits at this moment, for commands that only read."""
    at = to_micros(now)
    return LimitCheck(ReportTally(map(reported_of, report.rows(lately(at)))), "", at)


def apply_limits(
    permit: BouncePermit, each: PendingBounce, limits: LimitCheck
) -> BouncePermit:
    """Return the bounce decision, limits included; a report that it permits counts."""
    return limits.apply(permit, each.sender, each.row["message"], DsnAction.FAILED)


class OperatorDecision(Struct, frozen=True, kw_only=True):
    """What an operator decided about one recipient."""

    pending: PendingBounce
    event: Event
    #: What the bounce rules said, when they were asked.
    permit: BouncePermit | None = None

    def within_limits(self, limits: LimitCheck) -> "OperatorDecision":
        """Return it as far as the limits permit."""
        if self.permit is None:
            return self
        permit = apply_limits(self.permit, self.pending, limits)
        event = self.event if permit.sends else Event.APPROVED_REFUSED
        return replace(self, permit=permit, event=event)


def rule(
    url: URL, verb: str, rulings: Sequence[OperatorDecision], reason: str
) -> list[OperatorDecision]:
    """Apply decisions in one transaction; return those that were applied, as done.

    A sender gets no report when another report has come in between.
    """
    now, why = to_micros(datetime.now(UTC)), (verb, reason)
    run = uuid.uuid4().hex  # whose reports are counted together
    with engine.open_transaction(url) as connection:
        limits = make_limits(connection, [each.permit for each in rulings], run, now)
        pending = [each for each in rulings if _is_pending(connection, each)]
        done = [each.within_limits(limits) for each in pending]
        for each in done:
            _apply(connection, each, why, run, now)
    return done


def _is_pending(connection: sa.Connection, ruling: OperatorDecision) -> bool:
    state = connection.scalar(sa.select(_R.state).where(*_mine(ruling)))
    return state == PENDING.value


def _mine(ruling: OperatorDecision) -> list[sa.ColumnElement[bool]]:
    row = ruling.pending.row
    return [_R.message == row["message"], _R.n == row["n"]]


def _apply(
    connection: sa.Connection,
    ruling: OperatorDecision,
    why: tuple[str, str],
    run: str,
    now: int,
) -> None:
    row, (verb, reason) = ruling.pending.row, why
    change = Transition(
        event=ruling.event,
        kind=DecisionKind.OPERATOR,
        rule=f"operator-{verb}",
        values={"due": None},
        evidence={"reason": reason},
    )
    transition(connection, [row], change, now)
    if ruling.permit is not None:
        record_decisions(connection, "", [bounce_decision(ruling.permit, row, now)])
    state = follow(PENDING, ruling.event)
    if state is State.BOUNCED and ruling.permit is not None:
        about = {name: row[name] for name in ("message", "n", "reply", "rule")}
        about |= {"sender": ruling.pending.sender, "refused": row["since"]}
        queued = report_row(about, DsnAction.FAILED, run, now, ruling.permit)
        connection.execute(sa.insert(schema.reports), [queued])


def find_drained_sources(report: LedgerReader, routes: Collection[str]) -> list[str]:
    """Return the URLs of the sources that were drained by some of these routes."""
    known = schema.sources.c
    rows = report.rows(sa.select(known.url, known.routes).order_by(known.url))
    found = ((str(row["url"]), from_json(row["routes"])) for row in rows)
    return [url for url, names in found if not set(names).isdisjoint(routes)]


class BounceOutlook(NamedTuple):
    """What will happen about refusals and reports, when the operator runs something."""

    pending: int
    pending_due: datetime | None
    queued: int
    due: datetime | None


def outlook(report: LedgerReader) -> BounceOutlook:
    """Return how many refusals become due, from when on, and how many reports wait."""
    refused: list[Any] = [
        sa.func.count().label("count"),
        sa.func.min(_R.due).label("due"),
    ]
    unsent: list[Any] = [
        sa.func.count(_N.message.distinct()).label("count"),
        sa.func.min(_N.due).label("due"),
    ]
    pending = sa.select(*refused).where(_R.state == PENDING.value)
    queued = sa.select(*unsent).where(_N.state == QUEUED)
    (first,), (second,) = list(report.rows(pending)), list(report.rows(queued))
    return BounceOutlook(
        int(first["count"]),
        None if first["due"] is None else from_micros(first["due"]),
        int(second["count"]),
        None if second["due"] is None else from_micros(second["due"]),
    )
