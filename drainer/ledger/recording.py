"""Scan results in: recording messages, meeting them again, letting go of them.

Each function runs inside a transaction of the writer. What is new is claimed for
whoever records it.
"""

import itertools
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from drainer.ledger import (
    Decision,
    Kind,
    Listing,
    Row,
    from_micros,
    schema,
)
from drainer.ledger.prepared import Prepared, inserting
from drainer.ledger.rows import (
    decision_row,
    message_of,
    recipient_of,
)
from drainer.ledger.statements import Identity
from drainer.mail.content import Held
from drainer.mail.message import PROBLEMS, Message, Spooled
from drainer.policy.job import Claimed, Job
from drainer.policy.state import FINAL, State
from drainer.values import dataclass

_R, _M, _A = schema.recipients.c, schema.messages.c, schema.attempts.c
_MESSAGE = Prepared(inserting(schema.messages, without="seq"))
_RECIPIENT = Prepared(inserting(schema.recipients))
_FINAL = [state.value for state in FINAL]
PASSING = [  # what may be otherwise the next time that the spool is looked at
    f"local-{code}"
    for code in (
        "vanished",
        "incomplete",
        "locked",
        "marked-corrupt",
        "unreadable",
        "taken-elsewhere",
        "in-doubt",
    )
]
_FOREIGN = "local-not-for-this-primary"
MANY = 500
"""Values in one condition; databases have limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What recording a part of a scan gave."""

    #: New messages with something to send, claimed for us: seq and id.
    fresh: list[tuple[int, str]]
    #: Known messages whose recipients are all final, not yet acknowledged.
    finished: list[Message]


def record(
    connection: sa.Connection,
    listings: Sequence[tuple[Row, list[Row]]],
    identity: Identity,
    now: int,
    most: int | None = None,
) -> Recorded:
    """Write down what a scan saw: messages, each with its recipients.

    A message that is known keeps its history. At most so many new ones are claimed;
    the others wait for whoever claims them.
    """
    unique = {message["id"]: (message, those) for message, those in listings}
    known = _known(connection, unique)
    fresh = [listing for i, listing in unique.items() if i not in known]
    owners = itertools.repeat(identity.owner, len(fresh) if most is None else most)
    for message, those in fresh:
        owner = next(owners, None) if any(map(_is_pending, those)) else None
        message.update(scanned=now, owner=owner, acknowledged=None)
    claimed = _insert(connection, fresh, identity.run, now) if fresh else []
    finished = _revisit(connection, known, unique, now)
    return Recorded(fresh=claimed, finished=finished)


def _insert(
    connection: sa.Connection,
    fresh: list[tuple[Row, list[Row]]],
    run: str,
    now: int,
) -> list[tuple[int, str]]:
    _MESSAGE(connection, [message for message, _ in fresh])
    seqs = _seqs(connection, [message["id"] for message, _ in fresh])
    recipients: list[Row] = []
    for message, those in fresh:
        for row in those:
            row.update(message=seqs[message["id"]], since=now)
        recipients += those
    if recipients:
        _RECIPIENT(connection, recipients)
    _note_problems(connection, recipients, run)
    return [(seqs[m["id"]], m["id"]) for m, _ in fresh if m["owner"]]


def _is_pending(row: Row) -> bool:
    return bool(row["state"] == State.PENDING)


def fresh_job(seq: int, listing: Listing) -> Job:
    """Return the job of a message that was just recorded and claimed for us."""
    pending = [row for row in listing.recipients if _is_pending(row)]
    claimed = tuple(Claimed(n=row["n"], recipient=recipient_of(row)) for row in pending)
    message = message_of(listing.message, tuple(c.recipient for c in claimed))
    spooled = None
    if listing.content is not None:
        spooled = Spooled(message=message, content=Held(listing.content))
    return Job(
        message=message,
        seq=seq,
        claimed=claimed,
        spooled=spooled,
        facts=listing.facts,
        whole=len(pending) == len(listing.recipients),
    )


def _seqs(connection: sa.Connection, ids: list[str]) -> dict[str, int]:
    rows = connection.execute(sa.select(_M.id, _M.seq).where(_M.id.in_(ids)))
    return {row.id: row.seq for row in rows}


def _known(connection: sa.Connection, ids: Iterable[str]) -> dict[str, sa.RowMapping]:
    rows = connection.execute(
        sa.select(schema.messages).where(_M.id.in_(list(ids)))
    ).mappings()
    return {row["id"]: row for row in rows}


def _note_problems(connection: sa.Connection, rows: list[Row], run: str) -> None:
    held = [
        decision_row(
            Decision(
                at=from_micros(row["since"]),
                kind=Kind.SCANNED,
                rule=row["rule"],
                verdict="hold",
                reply=row["reply"],
                evidence={"reason": _meaning(row["rule"])},
                message=row["message"],
                n=row["n"],
            ),
            run,
        )
        for row in rows
        if row["state"] == State.HELD.value
    ]
    if held:
        connection.execute(sa.insert(schema.decisions), held)


def _meaning(rule: str) -> str:
    """Say what holds a message, in words."""
    return PROBLEMS[rule.removeprefix("local-")][0]


def _revisit(
    connection: sa.Connection,
    known: dict[str, sa.RowMapping],
    listings: dict[str, tuple[Row, list[Row]]],
    now: int,
) -> list[Message]:
    """Follow renamed files, wake what had vanished, find what is finished."""
    for id_, row in known.items():
        seen, _ = listings[id_]
        where = {key: seen[key] for key in ("source", "locator", "queue")}
        if any(row[key] != value for key, value in where.items()):
            connection.execute(
                sa.update(schema.messages).where(_M.seq == row["seq"]).values(**where)
            )
        if not seen["problem"]:
            sendable = [r["forward_path"] for r in listings[id_][1] if _is_pending(r)]
            _lift_passing_problems(connection, row["seq"], sendable, now)
    # Also what was acknowledged before: this may be another copy of it.
    unfinished = _unfinished(connection, list(known))
    return [message_of(listings[i][0]) for i in known if i not in unfinished]


def _lift_passing_problems(
    connection: sa.Connection, seq: int, sendable: list[str], now: int
) -> None:
    """Let go what was absent, unfinished or unreadable, and is sound now.

    So too ``sendable`` addresses that were another primary's, when the domains
    have been named or mapped since.
    """
    for start in range(0, max(1, len(sendable)), MANY):
        paths = sendable[start : start + MANY]
        mended = sa.or_(
            _R.rule.in_(PASSING), (_R.rule == _FOREIGN) & _R.forward_path.in_(paths)
        )
        connection.execute(
            sa.update(schema.recipients)
            .where(
                _R.message == seq,
                _R.state == State.HELD.value,
                _R.forward_path != "",
                mended,
            )
            .values(state=State.PENDING.value, due=0, since=now, rule="reappeared")
        )


def finished(connection: sa.Connection, ids: Sequence[str]) -> set[str]:
    """Return those of the messages whose recipients are all final."""
    return set(ids) - _unfinished(connection, list(ids))


def _unfinished(connection: sa.Connection, ids: list[str]) -> set[str]:
    rows = connection.scalars(
        sa.select(_M.id)
        .join(schema.recipients, _R.message == _M.seq)
        .where(_M.id.in_(ids), _R.state.not_in(_FINAL))
        .distinct()
    )
    return set(rows)


def acknowledged(
    connection: sa.Connection, ids: Sequence[str], run: str, now: int
) -> None:
    """Remember that the source has let go of these messages."""
    connection.execute(
        sa.update(schema.messages).where(_M.id.in_(list(ids))).values(acknowledged=now)
    )
    seqs = _seqs(connection, list(ids))
    at = from_micros(now)
    rows = [
        decision_row(
            Decision(at=at, kind=Kind.ACKNOWLEDGED, rule="acknowledged", message=seq),
            run,
        )
        for seq in seqs.values()
    ]
    if rows:
        connection.execute(sa.insert(schema.decisions), rows)
