"""Queued reports: which one is next, and the result of sending it.

Each function runs inside a transaction of the writer. drainer records an attempt, with
the time of the next one, before it makes the attempt: a crash neither repeats it at
once nor forgets it. By then the contents of the report are fixed, and so is its
Message-ID.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from msgspec import Struct

from drainer.ledger import schema
from drainer.ledger.codec import message_of, recipient_of
from drainer.ledger.columns import storable
from drainer.ledger.decisions import record_decisions
from drainer.ledger.records import Decision, DecisionKind, Row, WriteStamp, from_micros
from drainer.ledger.reports.evidence import FAILED, QUEUED, SENT
from drainer.ledger.writer.batch import MAX_REPLY
from drainer.mail.dsn.model import DsnAction
from drainer.mail.envelope import Recipient
from drainer.mail.message import Message
from drainer.policy.bounce.limits import report_id as named
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.state import FINAL, State

_R, _M, _N = schema.recipients.c, schema.messages.c, schema.reports.c
_MICROSECOND = timedelta(microseconds=1)
MAX_DELAY = timedelta(hours=1)
LIFETIME = timedelta(days=5)
"""Time after which drainer gives up a report that no server accepted."""


class ReportDelays(NamedTuple):
    """How long a report waits for further recipients, and after a first failure."""

    settle: timedelta
    retry: timedelta


class QueuedReport(Struct, frozen=True, kw_only=True):
    """One report, as it is to be sent now."""

    seq: int
    message: Message
    #: What it reports.
    action: DsnAction
    #: The address of the primary's route.
    route: str
    report_id: str
    #: When the first of its recipients became bounced, and attempts with this one.
    at: int
    attempts: int
    #: Due again then, should this attempt not succeed.
    due: int
    #: What the report says of each recipient: a row of ``reports``, and the recipient.
    recipients: Sequence[tuple[Row, Recipient]]

    @property
    def is_last(self) -> bool:
        """Whether it is given up if this attempt fails."""
        return self.due - self.at > LIFETIME // _MICROSECOND


def ready(settle: timedelta, now: int) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on rows of ``reports`` that may be sent now."""
    others = schema.recipients.alias()
    open_ = [state.value for state in State if state not in FINAL]
    refused = (others.c.state == State.BOUNCE_PENDING.value) | (
        others.c.state.in_(open_)
        & others.c.refusal.not_in(("", Verdict.STOP.value, "breaker-open"))
    )
    waiting = sa.exists().where(others.c.message == _N.message, refused)
    rested = _N.at <= now - settle // _MICROSECOND
    return [_N.state == QUEUED, _N.due <= now, (_N.report != "") | rested | ~waiting]


MAX_SENDERS = 1000
"""How many due reports DNS is asked about beforehand."""


def due_senders_of(
    connection: sa.Connection, stamp: WriteStamp, waits: ReportDelays
) -> list[str]:
    """Return the senders of reports that are due, those that wait longest first."""
    rows = connection.execute(
        sa.select(_N.sender, sa.func.min(_N.due).label("first"))
        .where(*ready(waits.settle, stamp.now))
        .group_by(_N.sender)
        .order_by("first")
        .limit(MAX_SENDERS)
    )
    return [row.sender for row in rows]


def take(
    connection: sa.Connection, stamp: WriteStamp, waits: ReportDelays, hostname: str
) -> QueuedReport | None:
    """Start an attempt to send the report that is due longest; None when none is.

    Its message is claimed until ``ended``. ``hostname`` is that of its Message-ID.
    """
    first = (
        connection.execute(
            sa.select(schema.reports)
            .join(schema.messages, _M.seq == _N.message)
            .where(
                *ready(waits.settle, stamp.now),
                _M.owner.is_(None) | (_M.owner == stamp.owner),
            )
            .order_by(_N.due, _N.message, _N.n)
            .limit(1)
        )
        .mappings()
        .first()
    )
    if first is None:
        return None
    query = sa.select(schema.messages).where(_M.seq == first["message"])
    message = dict(connection.execute(query).mappings().one())
    mine = _together(dict(first), message)
    rows = [
        dict(row)
        for row in connection.execute(
            sa.select(schema.reports).where(*mine).order_by(_N.n)
        ).mappings()
    ]
    attempts = max(row["attempts"] for row in rows)
    delay = min(waits.retry * 2 ** min(attempts, 20), MAX_DELAY)
    due = stamp.now + delay // _MICROSECOND
    report_id = first["report"] or named((row["key"] for row in rows), hostname)
    connection.execute(
        sa.update(schema.reports)
        .where(*mine)
        .values(report=report_id, attempts=attempts + 1, due=due)
    )
    connection.execute(
        sa.update(schema.messages)
        .where(_M.seq == first["message"])
        .values(owner=stamp.owner)
    )
    return _queued(connection, message, rows, report_id, due)


def _together(
    first: Mapping[str, Any], message: Mapping[str, Any]
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on what one report contains: one kind of outcome.

    With VERP each recipient has a sender of its own, and so a report.
    """
    same = [_N[name] == first[name] for name in ("message", "report", "action")]
    if message_of(message).envelope.verp:
        same.append(_N.n == first["n"])
    return [*same, _N.state == QUEUED]


def _queued(
    connection: sa.Connection,
    message: Mapping[str, Any],
    rows: list[Row],
    report_id: str,
    due: int,
) -> QueuedReport:
    query = sa.select(schema.recipients).where(_R.message == message["seq"])
    known = {row["n"]: dict(row) for row in connection.execute(query).mappings()}
    recipients = [(row, recipient_of(known[row["n"]])) for row in rows]
    return QueuedReport(
        seq=message["seq"],
        message=message_of(message, tuple(recipient for _, recipient in recipients)),
        action=DsnAction(rows[0]["action"]),
        route=known[rows[0]["n"]]["route"],
        report_id=report_id,
        at=min(row["at"] for row in rows),
        attempts=rows[0]["attempts"] + 1,
        due=due,
        recipients=recipients,
    )


class ReportResult(NamedTuple):
    """The result of an attempt to send a report."""

    #: SENT, FAILED, or QUEUED: it is tried again.
    state: str
    #: The reply, the host that gave it, and what that means.
    answer: str
    via: str
    reason: str


_RULES = {SENT: "report-sent", FAILED: "report-failed", QUEUED: "report-deferred"}


def ended(
    connection: sa.Connection,
    stamp: WriteStamp,
    queued: QueuedReport,
    ending: ReportResult,
) -> None:
    """Record the result of an attempt, and end the claim on the message."""
    values: dict[str, Any] = {
        "state": ending.state,
        "answer": storable(ending.answer[:MAX_REPLY]),
        "due": queued.due if ending.state == QUEUED else None,
    }
    connection.execute(
        sa.update(schema.reports)
        .where(
            _N.message == queued.seq,
            _N.report == queued.report_id,
            _N.state == QUEUED,
        )
        .values(**values)
    )
    decisions = (
        _decision(queued, row, ending, stamp.now) for row, _ in queued.recipients
    )
    record_decisions(connection, stamp.run, decisions)
    connection.execute(
        sa.update(schema.messages)
        .where(_M.seq == queued.seq, _M.owner == stamp.owner)
        .values(owner=None)
    )


def _decision(
    queued: QueuedReport, row: Mapping[str, Any], ending: ReportResult, now: int
) -> Decision:
    return Decision(
        at=from_micros(now),
        kind=DecisionKind.BOUNCE,
        rule=_RULES[ending.state],
        verdict=ending.state,
        reply=ending.answer[:MAX_REPLY],
        evidence={
            "reason": ending.reason,
            "via": ending.via,
            "report": queued.report_id,
            "action": queued.action.value,
            "attempts": queued.attempts,
        },
        message=queued.seq,
        n=row["n"],
    )
