"""Forgetting old mail: which messages of a ledger may be removed, and their removal.

The ledger is what keeps drainer from sending a message twice. So a message may go only
when no source can list it again, as far as the ledger and its markers know.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import URL

from drainer.ledger import engine, schema
from drainer.ledger.decisions import record_decisions
from drainer.ledger.records import MANY, Decision, DecisionKind, to_micros
from drainer.ledger.reports.evidence import ASKED, QUEUED
from drainer.policy.recipient.state import State

_M, _R = schema.messages.c, schema.recipients.c
_N, _D = schema.reports.c, schema.decisions.c
_OVER = [s.value for s in (State.DELIVERED, State.BOUNCED, State.DISCARDED)]
"""States that nothing follows; a quarantined recipient may still be released."""
RULE = "operator-prune"
"""The rule of the decision that records a removal."""


class PruneRequest(Struct, frozen=True, kw_only=True):
    """Which messages an operator wants to remove."""

    #: Only those that nothing happened to since.
    before: datetime
    #: Sources of which every copy is gone, says the operator.
    gone: Sequence[str] = ()
    #: Keep what the exporters of traces have not read.
    exports: bool = False
    reason: str = ""


class PruneCount(Struct, frozen=True, kw_only=True):
    """Old messages: how many may be removed, and why the others may not."""

    messages: int
    recipients: int
    #: Messages by the first reason that keeps them.
    kept: dict[str, int]


def find_sources(url: URL) -> list[str]:
    """Return the URLs of all sources that a ledger knows."""
    query = sa.union(sa.select(schema.sources.c.url), sa.select(_M.source))
    with engine.open_reader(url) as connection:
        return sorted(connection.scalars(query))


def count_prunable(url: URL, request: PruneRequest) -> PruneCount:
    """Count the messages that ``prune`` would remove; nothing is changed."""
    with engine.open_reader(url) as connection:
        return _count(connection, request)


def prune(url: URL, request: PruneRequest) -> int:
    """Remove all that is known of the messages that may go; return how many.

    Drains may run meanwhile: each transaction removes some, and records that it did.
    Raises LedgerError as ``engine.connect``, LedgerLost when it fails later.
    """
    removed, last = 0, -1
    opened = engine.connect(url, create=False)
    writer = opened.execution_options(writes=True)
    try:
        while True:
            with engine.in_use(url), writer.begin() as connection:
                seqs = _prunable(connection, request, last)
                if not seqs:
                    return removed
                _remove(connection, request, seqs)
            removed, last = removed + len(seqs), seqs[-1]
    finally:
        opened.dispose()


def _prunable(
    connection: sa.Connection, request: PruneRequest, behind: int
) -> list[int]:
    """Return the next messages that may be removed, by seq."""
    obstacles = [clause for _, clause in _obstacles(connection, request)]
    query = (
        sa.select(_M.seq)
        .where(_M.seq > behind, _is_old(request), ~sa.or_(*obstacles))
        .order_by(_M.seq)
        .limit(MANY)
    )
    return list(connection.scalars(query))


def _count(connection: sa.Connection, request: PruneRequest) -> PruneCount:
    left = _is_old(request)
    kept: dict[str, int] = {}
    for reason, clause in _obstacles(connection, request):
        count = sa.select(sa.func.count()).select_from(schema.messages)
        if found := connection.scalar(count.where(left, clause)):
            kept[reason] = found
        left = left & ~clause
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_M.recipients), 0))
    messages, recipients = connection.execute(query.where(left)).one()
    return PruneCount(messages=messages, recipients=int(recipients), kept=kept)


def _is_old(request: PruneRequest) -> sa.ColumnElement[bool]:
    return _M.scanned < to_micros(request.before)


def _obstacles(
    connection: sa.Connection, request: PruneRequest
) -> Iterator[tuple[str, sa.ColumnElement[bool]]]:
    """Yield what keeps an old message, in words and as a condition."""
    before = to_micros(request.before)
    other = schema.messages.alias()
    yield (
        "have a recipient that is not final, or is quarantined",
        _of(schema.recipients, _R.state.not_in(_OVER)),
    )
    yield (
        "changed more recently",
        _of(schema.recipients, _R.since >= before)
        | (sa.func.coalesce(_M.acknowledged, 0) >= before)
        | _M.owner.is_not(None),
    )
    yield (
        "may still be in their source: drainer did not see the source drop them",
        _M.acknowledged.is_(None) & _M.source.not_in(list(request.gone)),
    )
    yield (
        "have a report to the sender that is due, or counts against its limits",
        _of(schema.reports, _N.state.in_((ASKED, QUEUED)) | (_N.at >= before)),
    )
    yield (
        "share their identity with another message",
        sa.exists().where(
            other.c.identity == _M.identity, other.c.seq != _M.seq
        ),
    )  # fmt: skip
    read = connection.scalar(sa.select(sa.func.min(schema.cursors.c.position)))
    if request.exports:
        yield "are not in the traces yet", _of(schema.decisions, _D.id > (read or 0))
    # SQLite gives the highest number again once its row is removed.
    newest = connection.scalar(sa.select(sa.func.max(_M.seq)))
    yield "are the newest", _M.seq == newest


def _of(table: sa.Table, clause: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return sa.exists().where(table.c.message == _M.seq, clause)


def _remove(
    connection: sa.Connection, request: PruneRequest, seqs: Sequence[int]
) -> None:
    """Record the removal first: so the highest number of a decision stays in use."""
    before = request.before.isoformat(timespec="seconds")
    evidence = {"reason": request.reason, "messages": len(seqs), "before": before}
    decision = Decision(
        at=datetime.now(UTC), kind=DecisionKind.OPERATOR, rule=RULE, evidence=evidence
    )
    record_decisions(connection, "", [decision])
    contents = sa.select(_M.sha256).where(_M.seq.in_(seqs))
    answers = schema.scan_answers
    connection.execute(sa.delete(answers).where(answers.c.sha256.in_(contents)))
    for table in schema.ABOUT_MESSAGES:
        connection.execute(sa.delete(table).where(table.c.message.in_(seqs)))
    connection.execute(sa.delete(schema.messages).where(_M.seq.in_(seqs)))
