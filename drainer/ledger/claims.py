"""Work out: claiming what is due, and releasing claims.

Each function runs inside a transaction of the writer. A claim is the owner on the
message; what one attempt then does is guarded recipient by recipient.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.codec import claimed_of, message_of
from drainer.ledger.records import WriteStamp, to_micros
from drainer.ledger.reports import evidence
from drainer.ledger.route_mail import RouteMail
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.delivery import ClaimedRecipient, Delivery
from drainer.policy.recipient.state import CLAIMABLE, State

_R, _M, _A = schema.recipients.c, schema.messages.c, schema.attempts.c
_CLAIMABLE = [state.value for state in CLAIMABLE]
AT_ONCE = 200
"""Messages of one state that are claimed together."""


class ClaimRequest(NamedTuple):
    """What a worker wants to claim: what is due now, and was due by ``until``."""

    mail: RouteMail
    until: datetime
    #: Only what was tried before: there is no room for all.
    tried: bool = False
    #: Also messages that only their locators identify: a scan must have listed them
    #: first.
    twins: bool = True


def claim(
    connection: sa.Connection, stamp: WriteStamp, wanted: ClaimRequest
) -> list[Delivery]:
    """Claim messages, those that are due longest first."""
    by, seqs = min(stamp.now, to_micros(wanted.until)), dict[int, None]()
    for state in CLAIMABLE:
        if wanted.tried and state is State.PENDING:
            continue
        due = _unclaimed(wanted.mail, state).where(_R.due <= by)
        if not wanted.twins:
            due = due.where(_M.has_twin == 0)
        # One index, read in order: the cost does not grow with the queue.
        query = due.order_by(_R.due, _R.message).limit(AT_ONCE)
        seqs |= dict.fromkeys(row.message for row in connection.execute(query))
    claimed = [seq for seq in seqs if _own(connection, seq, stamp.owner)]
    return _jobs(connection, claimed, by, wanted.mail.route)


def claim_these(
    connection: sa.Connection,
    stamp: WriteStamp,
    seqs: Sequence[int],
    until: datetime,
    route: str,
) -> list[Delivery]:
    """Claim what a route has due of these messages in the same way, in this order.

    Messages of other owners are left out.
    """
    due = min(stamp.now, to_micros(until))
    ready = set(
        connection.scalars(
            sa.select(_R.message).where(
                _R.message.in_(seqs),
                _R.state.in_(_CLAIMABLE),
                _R.route == route,
                _R.due <= due,
            )
        )
    )
    claimed = [
        seq for seq in seqs if seq in ready and _own(connection, seq, stamp.owner)
    ]
    return _jobs(connection, claimed, due, route)


def _unclaimed(
    mail: RouteMail, state: State, owner: str | None = None
) -> sa.Select[tuple[int, int | None]]:
    """Return the recipients in a state whose message only ``owner`` has."""
    return (
        sa.select(_R.message, _R.due)
        .join(schema.messages, _R.message == _M.seq)
        .where(
            _R.state == state.value,
            _M.owner.is_(None) if owner is None else _free_for(owner),
            *mail.clauses(),
        )
    )


def _free_for(owner: str) -> sa.ColumnElement[bool]:
    return sa.or_(_M.owner.is_(None), _M.owner == owner)


def _own(connection: sa.Connection, seq: int, owner: str) -> bool:
    result = connection.execute(
        sa.update(schema.messages)
        .where(_M.seq == seq, _M.owner.is_(None))
        .values(owner=owner)
    )
    return result.rowcount == 1


def _jobs(
    connection: sa.Connection, seqs: list[int], now: int, route: str
) -> list[Delivery]:
    if not seqs:
        return []
    rows = connection.execute(
        sa.select(schema.recipients)
        .where(_R.message.in_(seqs), _R.state.in_(_CLAIMABLE), _R.due <= now)
        .where(_R.route == route)
        .order_by(_R.message, _R.n)
    ).mappings()
    claims: dict[int, list[ClaimedRecipient]] = {}
    for row in rows:
        claims.setdefault(row["message"], []).append(claimed_of(dict(row)))
    known = connection.execute(
        sa.select(schema.messages).where(_M.seq.in_(seqs))
    ).mappings()
    messages = {row["seq"]: row for row in known}
    doubted = [s for s in seqs if any(c.refusal for c in claims.get(s, []))]
    found = evidence.evidence_of(connection, doubted) if doubted else {}
    deliveries = []
    for seq in seqs:
        for part in _apart(claims.get(seq, [])):
            recipients = tuple(claimed.recipient for claimed in part)
            message = message_of(dict(messages[seq]), recipients)
            alone = part[0].state is State.UNKNOWN or _was_alone(part[0])
            deliveries.append(
                Delivery(
                    message=message,
                    seq=seq,
                    claimed=part,
                    route=route,
                    alone=alone,
                    found=found.get(seq),
                )
            )
    return deliveries


def _apart(claims: list[ClaimedRecipient]) -> list[tuple[ClaimedRecipient, ...]]:
    """Separate those that go alone from the others.

    A recipient gets a connection of its own if it is in doubt, was dropped, or was
    refused as if the refusal were of us. One that was refused with others gets a
    transaction of its own.
    """
    parts: dict[object, list[ClaimedRecipient]] = {}
    for claimed in claims:
        doubtful = claimed.state is State.UNKNOWN
        key = claimed.n if claimed.solo else (doubtful, _was_alone(claimed))
        parts.setdefault(key, []).append(claimed)
    return [tuple(part) for part in parts.values()]


def _was_alone(claimed: ClaimedRecipient) -> bool:
    """Whether an earlier attempt says that it needs a connection of its own."""
    return claimed.drops > 0 or claimed.refusal == Verdict.STOP


def next_due(
    connection: sa.Connection, stamp: WriteStamp, mail: RouteMail, *, own: bool
) -> int | None:
    """Return when a pending or deferred recipient is due, in microseconds.

    Those of claimed messages do not count, but with ``own`` for those that this drain
    has claimed: another of its routes has the message now.
    """
    owner, found = stamp.owner if own else None, []
    for state in (State.PENDING, State.DEFERRED):
        query = _unclaimed(mail, state, owner).order_by(_R.due, _R.message).limit(1)
        found += [row.due for row in connection.execute(query)]
    return min((due for due in found if due is not None), default=None)


def count_unfinished(connection: sa.Connection, sources: Sequence[str]) -> int:
    """Return how many messages of these sources have recipients to try."""
    found = connection.scalar(
        sa.select(sa.func.count(_R.message.distinct()))
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state.in_(_CLAIMABLE), _M.source.in_(list(sources)))
    )
    return int(found or 0)


def stopped_states(
    connection: sa.Connection, sources: Sequence[str]
) -> dict[State, int]:
    """Return the recipients of these sources that were tried or held, by state."""
    states = (State.DEFERRED, State.UNKNOWN, State.HELD, State.BOUNCE_PENDING)
    found = connection.execute(
        sa.select(_R.state, sa.func.count())
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state.in_(states), _M.source.in_(list(sources)))
        .group_by(_R.state)
    )
    return {State(state): int(count) for state, count in found}


def count_owned_elsewhere(
    connection: sa.Connection, stamp: WriteStamp, sources: Sequence[str]
) -> int:
    """Return how many messages of these sources another owner holds."""
    found = connection.scalar(
        sa.select(sa.func.count())
        .select_from(schema.messages)
        .where(_M.source.in_(list(sources)), _M.owner.is_not(None))
        .where(_M.owner != stamp.owner)
    )
    return int(found or 0)


def free(connection: sa.Connection, stamp: WriteStamp, seq: int) -> None:
    """End the claim on a message of which nothing is under way any more."""
    connection.execute(
        sa.update(schema.messages)
        .where(_M.seq == seq, _M.owner == stamp.owner)
        .values(owner=None)
    )
