"""Evidence about senders, and the reports that they get; in the ledger.

Each function runs inside a transaction of the writer, but for those that read.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.records import Decision, DecisionKind, Row, WriteStamp, from_micros
from drainer.mail.dsn.model import DsnAction
from drainer.policy.recipient.delivery import StoredEvidence
from drainer.policy.recipient.judge import BouncePermit
from drainer.policy.recipient.state import State

_R, _M = schema.recipients.c, schema.messages.c
_E, _N = schema.evidence.c, schema.reports.c
ASKED, REFUSED = "asked", "refused"
"""States of a report of a delivery: before the bounce decision, and if refused."""
QUEUED, SENT, FAILED = "queued", "sent", "failed"
LOOK_AGAIN = timedelta(hours=1)
"""The delay until DNS is asked again when it did not answer; it doubles each time."""


def find_unproven(
    connection: sa.Connection,
    stamp: WriteStamp,
    sources: Sequence[str],
    limit: int,
    but: Sequence[int] = (),
) -> list[Row]:
    """Return messages whose sender's evidence the bounce rules lack, ``but`` these.

    They have a refusal to confirm, or a report of another kind to be decided. Those
    whose DNS was slow before come last.
    """
    again = stamp.now - LOOK_AGAIN // timedelta(microseconds=1)
    doubled = _E.looked + (_E.looked - _E.asked)
    unconfirmed = sa.select(_R.message).where(_R.state == State.BOUNCE_PENDING.value)
    asked = sa.select(_N.message).where(_N.state == ASKED)
    wanted = unconfirmed.union(asked).subquery()
    rows = connection.execute(
        sa.select(schema.messages)
        .join(wanted, wanted.c.message == _M.seq)
        .outerjoin(schema.evidence, _E.message == _M.seq)
        .where(
            _M.source.in_(list(sources)),
            _M.seq.not_in(list(but)),
            sa.or_(
                _E.message.is_(None),
                (_E.later == 1) & (_E.looked < again) & (doubled <= stamp.now),
            ),
        )
        .order_by(sa.func.coalesce(_E.looked, 0), _M.seq)
        .limit(limit)
    ).mappings()
    return [dict(row) for row in rows]


def keep_evidence(
    connection: sa.Connection, stamp: WriteStamp, seq: int, found: Row
) -> None:
    """Record what was found about a sender (bounce.evidence.codec)."""
    mine = _E.message == seq
    asked = connection.scalar(sa.select(_E.asked).where(mine))
    connection.execute(sa.delete(schema.evidence).where(mine))
    whole = {"message": seq, "asked": asked or stamp.now, "looked": stamp.now}
    connection.execute(sa.insert(schema.evidence), [whole | found])


def evidence_of(
    connection: sa.Connection, seqs: Sequence[int]
) -> dict[int, StoredEvidence]:
    """Return what is known about the senders of messages, by seq."""
    rows = connection.execute(
        sa.select(schema.evidence).where(_E.message.in_(list(seqs)))
    ).mappings()
    return {row["message"]: stored_evidence_of(dict(row)) for row in rows}


def stored_evidence_of(row: Mapping[str, Any]) -> StoredEvidence:
    """Return what a row of ``evidence`` says."""
    return StoredEvidence(asked=row["asked"], facts=row["facts"], marks=row["marks"])


def report_row(
    about: Row, action: DsnAction, run: str, at: int, permit: BouncePermit | None = None
) -> Row:
    """Return a row of ``reports``; only a failure is queued at once.

    ``about`` is the recipient and what is reported: message, n, sender, reply, rule,
    refused.
    """
    return about | {
        "action": action.value,
        "run": run,
        "at": at,
        "key": permit.key if permit else "",
        "status": permit.status if permit else "",
        "organisation": permit.organisation if permit else "",
        "may_return": int(permit is not None and permit.decision.may_return),
        "report": "",
        "state": QUEUED if action is DsnAction.FAILED else ASKED,
        "due": at,
        "attempts": 0,
        "answer": "",
    }


def bounce_decision(
    permit: BouncePermit,
    about: Row,
    now: int,
    more: Mapping[str, object] | None = None,
    attempt: int | None = None,
) -> Decision:
    """Return the record of what the bounce rules said about a recipient."""
    asked = permit.decision
    return Decision(
        at=from_micros(now),
        kind=DecisionKind.BOUNCE,
        rule=asked.rule,
        verdict=asked.answer.value,
        evidence={"reason": asked.reason, **(more or {}), **asked.evidence},
        message=about["message"],
        n=about["n"],
        attempt=attempt,
    )
