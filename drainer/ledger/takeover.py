"""Taking over from owners that have ended: what they had in flight is in doubt.

drainer first settles what the reserve of such an owner shows to be delivered.
"""

from collections.abc import Iterable
from datetime import timedelta

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.columns import to_json
from drainer.ledger.decisions import record_decisions
from drainer.ledger.owner import dead_owners
from drainer.ledger.records import (
    RUN_DIED,
    Decision,
    DecisionKind,
    WriteStamp,
    from_micros,
)
from drainer.ledger.reserve import DELIVERED, ReserveRecord
from drainer.ledger.transitions import Transition, transition
from drainer.policy.recipient.settle import MAX_DOUBTS
from drainer.policy.recipient.state import Event, State, follow

_OWNER_DIED, _RESERVED = "owner-died", "reserve-delivered"
_TAKEN_OVER = (State.UNKNOWN, State.HELD)
_R, _M, _A = schema.recipients.c, schema.messages.c, schema.attempts.c
_RUN, _D = schema.runs.c, schema.decisions.c


def settle_reserved(
    connection: sa.Connection, stamp: WriteStamp, records: Iterable[ReserveRecord]
) -> int:
    """Settle recipients that a reserve shows to be delivered; return how many.

    A record counts only if nothing has happened since. Its attempt is still the last
    one of the recipient, and is open or was taken over.
    """
    delivered = [each for each in records if each.outcome == DELIVERED]
    return sum(_settle_reserved(connection, stamp, each) for each in delivered)


def _settle_reserved(
    connection: sa.Connection, stamp: WriteStamp, record: ReserveRecord
) -> bool:
    mine = (
        _R.message == record.seq,
        _R.n == record.n,
        _R.attempt == record.attempt,
        _R.forward_path == record.forward_path,
    )
    found = connection.execute(
        sa.select(_R.state, _R.rule, _R.attempts)
        .join(schema.messages, _M.seq == _R.message)
        .where(*mine, _M.id == record.id)
    ).one_or_none()
    if found is None:
        return False
    before, is_open = State(found.state), found.state == State.IN_FLIGHT.value
    if not is_open and not (before in _TAKEN_OVER and found.rule == _OWNER_DIED):
        return False
    change = Transition(
        event=Event.PROVEN,
        kind=DecisionKind.TAKEOVER,
        rule=_RESERVED,
        run=stamp.run,
        verdict="deliver",
        reply=record.reply,
        attempt=record.attempt,
        values={
            "due": None,
            "attempts": found.attempts + is_open,
            "rule": _RESERVED,
            "reply": record.reply,
        },
        evidence={"source": "the reserve of a run that lost the ledger"},
    )
    row = {"message": record.seq, "n": record.n, "state": before.value}
    if not transition(connection, [row], change, stamp.now):
        return False
    _end_attempt(connection, record)
    return True


def _end_attempt(connection: sa.Connection, record: ReserveRecord) -> None:
    stages = to_json([("reserve", 0, record.reply)])
    connection.execute(
        sa.update(schema.attempts)
        .where(_A.id == record.attempt, _A.ended.is_(None))
        .values(ended=record.at, stages=stages)
    )


def take_over(connection: sa.Connection, stamp: WriteStamp, rest: timedelta) -> int:
    """Take over from dead owners: what they had in flight becomes unknown.

    Returns how many recipients are in doubt now; they wait for ``rest``.
    """
    dead = dead_owners(connection, stamp.now)
    return abandon(connection, stamp, dead, rest) if dead else 0


def abandon(
    connection: sa.Connection, stamp: WriteStamp, dead: list[str], rest: timedelta
) -> int:
    """Give up what these owners claimed, because they have ended.

    It is impossible to know afterwards whether an open attempt was past its final dot,
    so all of them count as past.
    """
    now, due = stamp.now, stamp.now + rest // timedelta(microseconds=1)
    rows = list(
        connection.execute(
            sa.select(schema.recipients)
            .join(schema.attempts, _A.id == _R.attempt)
            .where(_A.owner.in_(dead), _R.state == State.IN_FLIGHT.value)
        ).mappings()
    )
    doubted = {(row["message"], row["n"]): row for row in rows}
    for row in doubted.values():
        _doubt(connection, stamp, row, due)
    connection.execute(
        sa.update(schema.messages).where(_M.owner.in_(dead)).values(owner=None)
    )
    connection.execute(
        sa.update(schema.attempts)
        .where(_A.owner.in_(dead), _A.ended.is_(None))
        .values(ended=now, stages='[["died",0,"the process that made it ended"]]')
    )
    _end_runs(connection, stamp, dead)
    connection.execute(sa.delete(schema.owners).where(schema.owners.c.id.in_(dead)))
    return len(doubted)


def _end_runs(connection: sa.Connection, stamp: WriteStamp, dead: list[str]) -> None:
    """End the runs of these owners, and record that they died."""
    open_runs = sa.and_(_RUN.owner.in_(dead), _RUN.ended.is_(None))
    for row in connection.execute(sa.select(_RUN.id, _RUN.started).where(open_runs)):
        last = sa.select(sa.func.max(_D.at)).where(_D.run == row.id)
        evidence: dict[str, object] = {
            "last_seen": connection.scalar(last) or row.started,
            "ended_by": stamp.run,
            "reason": "the process ended without recording the end of the run",
        }
        decision = Decision(
            at=from_micros(stamp.now),
            kind=DecisionKind.RUN_ENDED,
            rule=DecisionKind.RUN_ENDED.value,
            verdict=RUN_DIED,
            evidence=evidence,
        )
        record_decisions(connection, row.id, [decision])
    connection.execute(sa.update(schema.runs).where(open_runs).values(ended=stamp.now))


def _doubt(
    connection: sa.Connection, stamp: WriteStamp, row: sa.RowMapping, due: int
) -> None:
    doubts = row["doubts"] + 1
    event = Event.DOUBT_THRICE if doubts >= MAX_DOUBTS else Event.DOUBT
    state = follow(State.IN_FLIGHT, event)
    reply = "drainer ended with this attempt open; the primary may have taken it"
    change = Transition(
        event=event,
        kind=DecisionKind.TAKEOVER,
        rule=_OWNER_DIED,
        run=stamp.run,
        verdict="unknown",
        reply=reply,
        attempt=row["attempt"],
        values={
            "due": due if state is State.UNKNOWN else None,
            "attempts": row["attempts"] + 1,
            "doubts": doubts,
            "rule": _OWNER_DIED,
            "reply": reply,
        },
        evidence={"doubts": doubts},
    )
    transition(connection, [dict(row)], change, stamp.now)
