"""Reports of a delivery that the primary does not report itself (action "relayed").

Each function runs inside a transaction of the writer. Such a report is *asked* first:
drainer gathers evidence about its sender, then the bounce rules decide, once.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from drainer.ledger import schema
from drainer.ledger.decisions import record_decisions
from drainer.ledger.records import Row, WriteStamp
from drainer.ledger.reports.evidence import (
    ASKED,
    LOOK_AGAIN,
    QUEUED,
    REFUSED,
    bounce_decision,
    evidence_of,
)
from drainer.ledger.reports.limits import make_limits
from drainer.mail.dsn.model import DsnAction
from drainer.policy.bounce.decision import BounceAnswer
from drainer.policy.recipient.delivery import StoredEvidence
from drainer.policy.recipient.judge import BouncePermit

_R, _M, _N = schema.recipients.c, schema.messages.c, schema.reports.c
MANY = 200
"""Reports that are decided in one transaction."""


class SuccessReportRequest(Struct, frozen=True, kw_only=True):
    """A report that the bounce rules are asked about."""

    #: The recipient joined with its message; its report; what its sender proved.
    row: Row
    report: Row
    found: StoredEvidence | None


def find_requested(
    connection: sa.Connection, stamp: WriteStamp, sources: Sequence[str]
) -> list[SuccessReportRequest]:
    """Return reports of which the bounce rules may be asked now: there is evidence."""
    mine = (_N.message == _R.message) & (_N.n == _R.n)
    query: sa.Select[Any] = (
        sa.select(schema.recipients, schema.messages)
        .join(schema.messages, _R.message == _M.seq)
        .join(schema.reports, mine)
        .add_columns(*(column.label(f"told_{column.name}") for column in _N))
        .where(_N.state == ASKED, _N.due <= stamp.now, _M.source.in_(list(sources)))
        .where(_N.message.in_(sa.select(schema.evidence.c.message)))
        .order_by(_N.at, _N.message, _N.n)
        .limit(MANY)
    )
    rows = [dict(row) for row in connection.execute(query).mappings()]
    found = evidence_of(connection, sorted({row["message"] for row in rows}))
    return [
        SuccessReportRequest(
            row=row,
            report={column.name: row[f"told_{column.name}"] for column in _N},
            found=found.get(row["message"]),
        )
        for row in rows
    ]


_STATES = {
    BounceAnswer.SEND: QUEUED,
    BounceAnswer.NO: REFUSED,
    BounceAnswer.NEVER: REFUSED,
}


def answered(
    connection: sa.Connection,
    stamp: WriteStamp,
    answers: Sequence[tuple[SuccessReportRequest, BouncePermit]],
) -> None:
    """Record the bounce decisions; ask again about what is undecided."""
    run, now = stamp.run, stamp.now
    limits = make_limits(connection, [permit for _, permit in answers], run, now)
    for each, asked_ in answers:
        about = each.report
        permit = limits.apply(
            asked_, about["sender"], about["message"], DsnAction(about["action"])
        )
        state = _STATES.get(permit.decision.answer, ASKED)
        again = now + LOOK_AGAIN // timedelta(microseconds=1)
        due = {QUEUED: now, REFUSED: None, ASKED: again}[state]
        mine = [_N[name] == each.report[name] for name in ("message", "n", "action")]
        connection.execute(
            sa.update(schema.reports)
            .where(*mine, _N.state == ASKED)
            .values(
                state=state,
                due=due,
                at=now,
                run=run,
                key=permit.key,
                organisation=permit.organisation,
                status=permit.status,
            )
        )
        more = {"action": each.report["action"]}
        decided = bounce_decision(permit, each.report, now, more)
        record_decisions(connection, run, [decided])
