"""The limits of reports, checked where a report is written: in that transaction.

Processes that write to a ledger take turns (drainer.ledger.engine). So all drains and
commands together keep to the limits. If two of them decide about the same failure at
once, the second one sends no report. Runs inside such a transaction.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace

from drainer.ledger import schema
from drainer.ledger.codec import sender_of
from drainer.ledger.records import (
    MANY,
    AttemptEnd,
    Row,
    WriterIdentity,
    from_micros,
    to_micros,
)
from drainer.ledger.reports.evidence import FAILED, QUEUED, SENT
from drainer.ledger.writer.batch import (
    AttemptEndRows,
    WriteBatch,
    WriterCall,
    closing_rows,
)
from drainer.mail.dsn.model import DsnAction
from drainer.policy.bounce.limits import DAY, KEEP_KEYS, ReportedRecipient, ReportTally
from drainer.policy.recipient.judge import BouncePermit
from drainer.policy.recipient.settle import Settlement, apply_permit, is_reported

_N = schema.reports.c
MICROSECOND = timedelta(microseconds=1)


class LimitCheck:
    """What was reported by now, and what is permitted in addition."""

    def __init__(self, tally: ReportTally, run: str, now: int) -> None:
        """Start with what was reported."""
        self._tally = tally
        self._run = run
        self._now = now

    def apply(
        self, permit: BouncePermit, sender: str, message: int, action: DsnAction
    ) -> BouncePermit:
        """Return what the bounce rules say now; what it permits counts."""
        reported = ReportedRecipient(
            at=from_micros(self._now),
            sender=sender,
            key=permit.key,
            report=(message, action.value, sender, ""),
            run=self._run,
            organisation=permit.organisation,
        )
        permit = permit.limit(self._tally, reported)
        if permit.sends:
            self._tally.add(reported)
        return permit


def make_limits(
    connection: sa.Connection,
    permits: Iterable[BouncePermit | None],
    run: str,
    now: int,
) -> LimitCheck:
    """Return the limits for what is to be reported in this transaction."""
    keys = [permit.key for permit in permits if permit]
    some = _of_day(now) | _of_days(now) & _N.key.in_(keys) | (_N.run == run)
    query = lately(now) if len(keys) > MANY else _select_counted(some)
    rows = connection.execute(query).mappings()
    return LimitCheck(ReportTally(map(reported_of, rows)), run, now)


def lately(now: int) -> sa.Select[Any]:
    """Return a query for all reports that count, for any new report."""
    return _select_counted(_of_days(now))


def _of_day(now: int) -> sa.ColumnElement[bool]:
    return _N.at > now - DAY // MICROSECOND


def _of_days(now: int) -> sa.ColumnElement[bool]:
    return _N.at > now - KEEP_KEYS // MICROSECOND


def _select_counted(which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    names = (
        "at", "sender", "organisation", "key", "message", "action", "report", "run",
    )  # fmt: skip
    query = sa.select(*(_N[name] for name in names))
    return query.where(_N.state.in_((QUEUED, SENT, FAILED)), which)


def reported_of(row: Row | sa.RowMapping) -> ReportedRecipient:
    """Return a row of ``reports``; those of one report have the same ``report``."""
    return ReportedRecipient(
        at=from_micros(row["at"]),
        sender=row["sender"],
        key=row["key"],
        report=(row["message"], row["action"], row["sender"], row["report"]),
        run=row["run"],
        organisation=row["organisation"],
    )


def make_ending(
    closed: AttemptEnd, identity: WriterIdentity
) -> AttemptEndRows | WriterCall:
    """Return what writes an attempt's outcome; check the limits if one is reported."""
    if not any(map(is_reported, closed.settlements)):
        return closing_rows(closed, identity)
    delivery = replace(
        closed.delivery, spooled=None
    )  # the content stays in this process
    reported = replace(closed, delivery=delivery)
    return WriterCall(_close, (reported, identity), {})


def _close(
    connection: sa.Connection, closed: AttemptEnd, identity: WriterIdentity
) -> None:
    """Settle an attempt that a sender gets a report of, as far as the limits permit."""
    now = to_micros(closed.ended)
    permits = [each.permit for each in closed.settlements]
    limits = make_limits(connection, permits, identity.run, now)

    def limit(each: Settlement) -> Settlement:
        if each.permit is None:
            return each
        sender = sender_of(closed.delivery.message.envelope, each.claimed.recipient)
        permit = limits.apply(
            each.permit, sender, closed.delivery.seq, DsnAction.FAILED
        )
        return apply_permit(each, permit)

    settlements = tuple(map(limit, closed.settlements))
    WriteBatch()(
        connection, [closing_rows(replace(closed, settlements=settlements), identity)]
    )
