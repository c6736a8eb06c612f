"""The operator's verbs, on recipients that no drain has in flight.

Each change is guarded by the state it starts from and recorded as a decision.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import URL

from drainer.ledger import engine, schema
from drainer.ledger.filters import ASKED, Filters
from drainer.ledger.records import MANY, DecisionKind, Row, to_micros
from drainer.ledger.transitions import Transition, transition
from drainer.policy.recipient.judge import REFUSED_IN_DOUBT
from drainer.policy.recipient.state import CLAIMABLE, Event, State, follow, origins

_R, _M = schema.recipients.c, schema.messages.c


class OperatorAction(Struct, frozen=True, kw_only=True):
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

REPLAY = OperatorAction(name="requeue", event=Event.OPERATOR_REPLAY, done="requeued")
"""A requeue of what was delivered: the primary has lost it."""

PURGE = OperatorAction(name="purge", event=Event.OPERATOR_PURGE, done="purged")


def apply_verb(url: URL, verb: OperatorAction, filters: Filters, reason: str) -> int:
    """Apply a verb to every recipient it may touch; return how many it changed."""
    now, count = to_micros(datetime.now(UTC)), 0
    with engine.open_transaction(url) as connection:
        for rows in _touched(connection, verb, filters):
            for same in _alike(rows, verb):
                change = Transition(
                    event=verb.event,
                    kind=DecisionKind.OPERATOR,
                    rule=f"operator-{verb.name}",
                    values=_values(same[0], verb),
                    evidence={"reason": reason, **_marks(verb)},
                )
                count += len(transition(connection, same, change, now))
    return count


def _marks(verb: OperatorAction) -> dict[str, object]:
    """Return what the record says besides the reason."""
    return {"replay": True} if verb is REPLAY else {}


def _touched(
    connection: sa.Connection, verb: OperatorAction, filters: Filters
) -> Iterator[list[Row]]:
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
        yield [dict(row) for row in page if filters.takes(dict(row))]
        last = page[-1]
        behind = (_R.message > last["message"]) | (
            (_R.message == last["message"]) & (_R.n > last["n"])
        )
        page = connection.execute(query.where(behind)).mappings().all()


def touchable(verb: OperatorAction, states: Sequence[str]) -> list[str]:
    """Return those of the states that a verb may start from."""
    legal = {state.value for state in origins(verb.event)}
    return [state for state in states if state in legal]


_FORGOTTEN = {
    "drops": 0,
    "solo": 0,
    "spent": 0,
    "refusal": "",
    "refused": None,
    "waits": "",
}
"""What a recipient forgets of its attempts when an operator makes it pending again."""


def _alike(rows: list[Row], verb: OperatorAction) -> Iterable[list[Row]]:
    """Return the rows in groups whose columns change in the same way."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(repr(_values(row, verb)), []).append(row)
    return groups.values()


def _values(row: Row, verb: OperatorAction) -> Row:
    """Return what changes besides the state."""
    state = follow(State(row["state"]), verb.event)
    values: Row = {
        "due": 0 if state in CLAIMABLE else None,
        "rule": f"operator-{verb.name}",
    }
    if verb.event is Event.OPERATOR_RELEASE:
        values["released"] = 1
        if row["rule"] == REFUSED_IN_DOUBT:  # the operator says that it did not arrive
            values["doubts"] = 0
    if state is State.PENDING:
        values |= _FORGOTTEN
    return values
