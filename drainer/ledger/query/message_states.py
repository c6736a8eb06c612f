"""What the ledger knows of messages that a spool still has: states, and attempts.

A source that settles its spool asks for it (drainer.delivery.holds).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.codec import message_of
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import MANY, Row
from drainer.mail.message import Message
from drainer.policy.recipient.state import FINAL, State

_R, _M, _A = schema.recipients.c, schema.messages.c, schema.attempts.c
_FINAL = [state.value for state in FINAL]
_LATER = ~_R.state.in_(_FINAL)
LOCAL = "local-"
"""How the rules start that hold a message for a problem of its file."""


class RecordedStates(NamedTuple):
    """A recorded message, the rows of its recipients, and whether any was tried."""

    message: Message
    #: Each with forward_path, state and rule.
    recipients: Sequence[Row]
    was_attempted: bool


def find_recorded(
    report: LedgerReader, identities: Sequence[str]
) -> Iterator[RecordedStates]:
    """Yield every recorded message of these identities, which it may share."""
    unique = list(dict.fromkeys(identities))
    for start in range(0, len(unique), MANY):
        part = unique[start : start + MANY]
        query = sa.select(schema.messages).where(_M.identity.in_(part))
        rows = {row["seq"]: row for row in report.rows(query)}
        yield from _with_recipients(report, rows)


def _with_recipients(
    report: LedgerReader, rows: dict[int, Row]
) -> Iterator[RecordedStates]:
    found: dict[int, list[Row]] = {seq: [] for seq in rows}
    for chosen in _parts(list(rows)):
        query = sa.select(_R.message, _R.forward_path, _R.state, _R.rule)
        for row in report.rows(query.where(_R.message.in_(chosen))):
            found[row["message"]].append(row)
    tried = {
        row["message"]
        for chosen in _parts(list(rows))
        for row in report.rows(sa.select(_A.message).where(_A.message.in_(chosen)))
    }
    for seq, row in rows.items():
        yield RecordedStates(message_of(row), found[seq], seq in tried)


def find_attempted(report: LedgerReader, source: str) -> Iterator[Message]:
    """Yield the messages of a source that its server must not send, nor bounce.

    They were tried and have a recipient that is not final; or a recipient is set aside.
    """
    mine = _R.message == _M.seq
    tried = sa.select(_A.message).where(_A.message == _M.seq).exists()
    open_ = sa.select(_R.message).where(mine, _LATER).exists()
    held = (mine, _R.state == State.HELD.value, ~_R.rule.startswith(LOCAL))
    aside = sa.select(_R.message).where(*held).exists()
    chosen = (
        _M.source == source,
        _M.acknowledged.is_(None),
        aside | (tried & open_),
    )
    for row in report.rows(sa.select(schema.messages).where(*chosen)):
        yield message_of(row)


def find_final_ids(report: LedgerReader, source: str) -> Iterator[str]:
    """Yield the backup's ids of messages of a source that have a final recipient."""
    final = sa.select(_R.message).where(_R.message == _M.seq, _R.state.in_(_FINAL))
    query = sa.select(_M.native_id).where(_M.source == source, final.exists())
    for row in report.rows(query):
        yield str(row["native_id"])


def _parts(seqs: Sequence[int]) -> Iterator[Sequence[Any]]:
    return (seqs[start : start + MANY] for start in range(0, len(seqs), MANY))
