"""Scan results in, work out: recording, claiming, taking over, acknowledging.

Each function runs inside a transaction of the writer. A claim is the owner on
the message; what one attempt then does is guarded recipient by recipient.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from drainer.ledger import (
    Decision,
    Kind,
    Listing,
    Row,
    bounces,
    from_micros,
    schema,
)
from drainer.ledger.prepared import Prepared, inserting
from drainer.ledger.rows import (
    claimed_of,
    decision_row,
    message_of,
    recipient_of,
)
from drainer.ledger.statements import Identity
from drainer.mail.content import Held
from drainer.mail.message import PROBLEMS, Message, Spooled
from drainer.policy.job import Claimed, Job
from drainer.policy.state import CLAIMABLE, FINAL, State

_R, _M, _A = schema.recipients.c, schema.messages.c, schema.attempts.c
_MESSAGE = Prepared(inserting(schema.messages, without="seq"))
_RECIPIENT = Prepared(inserting(schema.recipients))
_CLAIMABLE = [state.value for state in CLAIMABLE]
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
    return bool(row["state"] == State.PENDING.value)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a worker would like to claim."""

    sources: Sequence[str]
    #: What fell due by then, in microseconds; never later than now.
    due: int
    #: Without those that were never tried when there is no room for all.
    states: Sequence[State] = tuple(CLAIMABLE)
    limit: int = 200


def claim(connection: sa.Connection, wanted: Wanted, owner: str) -> list[Job]:
    """Claim messages that have recipients due by then, the longest due first."""
    seqs: dict[int, None] = {}
    for state in wanted.states:
        due = _unclaimed(wanted.sources, state).where(_R.due <= wanted.due)
        # One index, read in order: the cost does not grow with the queue.
        query = due.order_by(_R.due, _R.message).limit(wanted.limit)
        seqs |= dict.fromkeys(row.message for row in connection.execute(query))
    claimed = [seq for seq in seqs if _own(connection, seq, owner)]
    return _jobs(connection, claimed, wanted.due)


def claim_these(
    connection: sa.Connection, seqs: Sequence[int], due: int, owner: str
) -> list[Job]:
    """Claim these messages, in this order, as far as they have recipients due by then.

    Those of other owners are left out.
    """
    ready = set(
        connection.scalars(
            sa.select(_R.message).where(
                _R.message.in_(seqs), _R.state.in_(_CLAIMABLE), _R.due <= due
            )
        )
    )
    claimed = [seq for seq in seqs if seq in ready and _own(connection, seq, owner)]
    return _jobs(connection, claimed, due)


def _unclaimed(
    sources: Sequence[str], state: State
) -> sa.Select[tuple[int, int | None]]:
    return (
        sa.select(_R.message, _R.due)
        .join(schema.messages, _R.message == _M.seq)
        .where(
            _R.state == state.value,
            _M.owner.is_(None),
            _M.source.in_(list(sources)),
        )
    )


def _own(connection: sa.Connection, seq: int, owner: str) -> bool:
    result = connection.execute(
        sa.update(schema.messages)
        .where(_M.seq == seq, _M.owner.is_(None))
        .values(owner=owner)
    )
    return result.rowcount == 1


def _jobs(connection: sa.Connection, seqs: list[int], now: int) -> list[Job]:
    if not seqs:
        return []
    rows = connection.execute(
        sa.select(schema.recipients)
        .where(_R.message.in_(seqs), _R.state.in_(_CLAIMABLE), _R.due <= now)
        .order_by(_R.message, _R.n)
    ).mappings()
    claims: dict[int, list[Claimed]] = {}
    for row in rows:
        claims.setdefault(row["message"], []).append(claimed_of(dict(row)))
    known = connection.execute(
        sa.select(schema.messages).where(_M.seq.in_(seqs))
    ).mappings()
    messages = {row["seq"]: row for row in known}
    doubted = [s for s in seqs if any(c.refusal for c in claims.get(s, []))]
    found = bounces.evidence_of(connection, doubted) if doubted else {}
    jobs = []
    for seq in seqs:
        for part in _apart(claims.get(seq, [])):
            recipients = tuple(claimed.recipient for claimed in part)
            message = message_of(dict(messages[seq]), recipients)
            alone = part[0].state is State.UNKNOWN or part[0].drops > 0
            jobs.append(
                Job(
                    message=message,
                    seq=seq,
                    claimed=part,
                    alone=alone,
                    found=found.get(seq),
                )
            )
    return jobs


def _apart(claims: list[Claimed]) -> list[tuple[Claimed, ...]]:
    """Part those that go alone from the others.

    Whoever is in doubt, or was dropped, gets a connection of its own; whoever was
    refused together with others a transaction of its own.
    """
    parts: dict[object, list[Claimed]] = {}
    for claimed in claims:
        doubtful = claimed.state is State.UNKNOWN
        key = claimed.n if claimed.solo else (doubtful, claimed.drops > 0)
        parts.setdefault(key, []).append(claimed)
    return [tuple(part) for part in parts.values()]


def next_due(
    connection: sa.Connection, sources: Sequence[str], states: Sequence[State]
) -> int | None:
    """Return when the next unclaimed recipient in these states is due."""
    found = []
    for state in states:
        query = _unclaimed(sources, state).order_by(_R.due, _R.message).limit(1)
        found += [row.due for row in connection.execute(query)]
    return min((due for due in found if due is not None), default=None)


def unfinished(connection: sa.Connection, sources: Sequence[str]) -> int:
    """Return how many messages of these sources have recipients to try."""
    found = connection.scalar(
        sa.select(sa.func.count(_R.message.distinct()))
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state.in_(_CLAIMABLE), _M.source.in_(list(sources)))
    )
    return int(found or 0)


def owned_elsewhere(
    connection: sa.Connection, sources: Sequence[str], owner: str
) -> int:
    """Return how many messages of these sources another owner holds."""
    found = connection.scalar(
        sa.select(sa.func.count())
        .select_from(schema.messages)
        .where(_M.source.in_(list(sources)), _M.owner.is_not(None), _M.owner != owner)
    )
    return int(found or 0)


def free(connection: sa.Connection, seq: int, owner: str) -> None:
    """End the claim on one message."""
    connection.execute(
        sa.update(schema.messages)
        .where(_M.seq == seq, _M.owner == owner)
        .values(owner=None)
    )


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
