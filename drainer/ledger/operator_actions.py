"""The operator's verbs, on recipients that no drain has in hand.

Each change is guarded by the state it starts from and recorded as a decision.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import URL

from drainer.ledger import engine, schema
from drainer.ledger.codec import decision_row
from drainer.ledger.filters import ASKED, Filters
from drainer.ledger.reader import MANY
from drainer.ledger.records import Decision, DecisionKind, from_micros, to_micros
from drainer.policy.recipient.judge import REFUSED_IN_DOUBT
from drainer.policy.recipient.state import CLAIMABLE, Event, State, follow, origins
from drainer.runtime.values import dataclass

_R, _M = schema.recipients.c, schema.messages.c


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorAction:
    """One of the operator's verbs."""

    name: str
    event: Event
    done: str


VERBS = {
    verb.name: verb
    for verb in (
        OperatorAction(name="hold", event=Event.OPERATOR_HOLD, done="held"),
        OperatorAction(name="release", event=Event.OPERATOR_RELEASE, done="released"),
        OperatorAction(name="requeue", event=Event.OPERATOR_REQUEUE, done="requeued"),
        OperatorAction(name="discard", event=Event.OPERATOR_DISCARD, done="discarded"),
    )
}

PURGE = OperatorAction(name="purge", event=Event.OPERATOR_PURGE, done="purged")


def apply_verb(url: URL, verb: OperatorAction, filters: Filters, reason: str) -> int:
    """Apply a verb to every recipient it may touch; return how many it changed."""
    now, count = to_micros(datetime.now(UTC)), 0
    with engine.writing(url) as connection:
        for rows in _touched(connection, verb, filters):
            changed = [row for row in rows if _change(connection, row, verb, now)]
            decided = [_record(row, verb, reason, now) for row in changed]
            if decided:
                connection.execute(sa.insert(schema.decisions), decided)
            count += len(changed)
    return count


def _touched(
    connection: sa.Connection, verb: OperatorAction, filters: Filters
) -> Iterator[list[sa.RowMapping]]:
    """Yield the recipients that a verb is for, page by page."""
    states = [state.value for state in origins(verb.event)]
    query = (
        sa.select(_R.message, _R.n, _R.state, _R.rule, _R.forward_path, *ASKED)
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state.in_(states), *filters.clauses())
        .order_by(_R.message, _R.n)
        .limit(MANY)
    )
    page = connection.execute(query).mappings().all()
    while page:
        yield [row for row in page if filters.takes(dict(row))]
        last = page[-1]
        behind = (_R.message > last["message"]) | (
            (_R.message == last["message"]) & (_R.n > last["n"])
        )
        page = connection.execute(query.where(behind)).mappings().all()


def touchable(verb: OperatorAction, states: Sequence[str]) -> list[str]:
    """Return those of the states that a verb may start from."""
    legal = {state.value for state in origins(verb.event)}
    return [state for state in states if state in legal]


_AFRESH = {
    "drops": 0,
    "solo": 0,
    "spent": 0,
    "refusal": "",
    "refused": None,
    "waits": "",
}
"""What a recipient forgets of its attempts when a person lets it go again."""


def _change(
    connection: sa.Connection, row: sa.RowMapping, verb: OperatorAction, now: int
) -> bool:
    state = follow(State(row["state"]), verb.event)
    values: dict[str, object] = {
        "state": state.value,
        "since": now,
        "due": 0 if state in CLAIMABLE else None,
        "rule": f"operator-{verb.name}",
    }
    if verb.event is Event.OPERATOR_RELEASE:
        values["released"] = 1
        if row["rule"] == REFUSED_IN_DOUBT:  # a person says that it had not arrived
            values["doubts"] = 0
    if state is State.PENDING:
        values |= _AFRESH
    result = connection.execute(
        sa.update(schema.recipients)
        .where(_R.message == row["message"], _R.n == row["n"], _R.state == row["state"])
        .values(**values)
    )
    return result.rowcount == 1


def _record(
    row: sa.RowMapping, verb: OperatorAction, reason: str, now: int
) -> dict[str, object]:
    decision = Decision(
        at=from_micros(now),
        kind=DecisionKind.OPERATOR,
        rule=f"operator-{verb.name}",
        evidence={
            "reason": reason,
            "before": row["state"],
            "state": follow(State(row["state"]), verb.event).value,
        },
        message=row["message"],
        n=row["n"],
    )
    return decision_row(decision, "")
