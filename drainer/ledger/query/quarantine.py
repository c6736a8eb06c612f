"""Which copies of messages are still needed, and what is in the quarantine."""

from collections.abc import Iterator, Sequence
from itertools import islice

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.filters import Filters
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import MANY, DecisionKind, Row
from drainer.ledger.reports.evidence import ASKED, QUEUED, SENT
from drainer.mail.dsn.model import DsnAction
from drainer.policy.recipient.state import FINAL, State

_R, _M, _D = schema.recipients.c, schema.messages.c, schema.decisions.c
_N = schema.reports.c
_DONE = [s.value for s in FINAL - {State.QUARANTINED, State.BOUNCED}]


def select_needless(ids: Sequence[str]) -> sa.Select[tuple[str]]:
    """Return a query for those messages of which no copy is needed any more.

    A recipient that is quarantined or not final needs the copy, since the source may
    have dropped the message. A bounced recipient needs it until the report was sent,
    and so does any report that may still be made of it. A message that the ledger does
    not know is another ledger's, and never among them.
    """
    has_left = sa.exists().where(
        _N.message == _R.message,
        _N.n == _R.n,
        _N.action == DsnAction.FAILED.value,
        _N.state == SENT,
    )
    to_come = sa.exists().where(_N.message == _M.seq, _N.state.in_((ASKED, QUEUED)))
    is_done = _R.state.in_(_DONE) | ((_R.state == State.BOUNCED.value) & has_left)
    needs = sa.exists().where(_R.message == _M.seq, ~is_done)
    return sa.select(_M.id).where(_M.id.in_(list(ids)), ~needs, ~to_come)


def find_needless(connection: sa.Connection, ids: Sequence[str]) -> list[str]:
    """Return those messages; runs inside a transaction of the writer."""
    return list(connection.scalars(select_needless(ids)))


def find_quarantined(report: LedgerReader, filters: Filters) -> Iterator[Row]:
    """Yield recipients as ``LedgerReader.recipients`` does, with the bounce decision.

    ``decision`` is the last decision of the bounce rules about it, as a row; or None.
    """
    rows = report.recipients(filters)
    while page := list(islice(rows, MANY)):
        answers = _answers(report, {row["message"] for row in page})
        for row in page:
            yield row | {"decision": answers.get((row["message"], row["n"]))}


def _answers(report: LedgerReader, seqs: set[int]) -> dict[tuple[int, int], Row]:
    query = (
        sa.select(_D.message, _D.n, _D.rule, _D.verdict, _D.evidence)
        .where(_D.message.in_(list(seqs)), _D.kind == DecisionKind.BOUNCE.value)
        .where(_D.n.is_not(None), _D.verdict != "")
        .order_by(_D.id)
    )
    return {(row["message"], row["n"]): row for row in report.rows(query)}
