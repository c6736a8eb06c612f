"""What waits for a breaker, and what waits to be confirmed.

Each function runs inside a transaction of the writer. Opening a breaker takes back
every pending bounce behind it. Closing it makes everything that waited due at once. A
pending bounce is due for confirmation when its confirmation delay is over.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.records import (
    DecisionKind,
    Row,
    WriteStamp,
    from_micros,
    to_micros,
)
from drainer.ledger.route_mail import RouteMail
from drainer.ledger.transitions import Transition, transition
from drainer.mail.envelope import domain_of
from drainer.policy.breaker.brake import is_counted
from drainer.policy.breaker.breaker import CircuitBreaker
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.judge import CONTRADICTED
from drainer.policy.recipient.settle import FAR, ROUTE_WAITS
from drainer.policy.recipient.state import Event, State

_R, _M = schema.recipients.c, schema.messages.c
_FAR = FAR // timedelta(microseconds=1)
"""When what waits is due if no run closes the breaker."""
_DEFERRED, _PENDING = State.DEFERRED.value, State.BOUNCE_PENDING.value


class WaitingScope(NamedTuple):
    """A route's mail behind the breaker of a scope; '' = that of the route itself."""

    mail: RouteMail
    scope: str

    def clauses(self, connection: sa.Connection) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on recipients joined with messages."""
        return [*self.mail.clauses(), *self._paths(connection)]

    def recipients(self, connection: sa.Connection) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on recipients alone."""
        return [*self.mail.recipients(), *self._paths(connection)]

    def _paths(self, connection: sa.Connection) -> list[sa.ColumnElement[bool]]:
        if not self.scope:
            return []
        path = sa.func.lower(_R.forward_path)
        endings = ("@" + self.scope, "@" + self.scope + ".")  # as domain_of
        found = [path.endswith(each, autoescape=True) for each in endings]
        if "xn--" in self.scope:
            found += [
                _R.forward_path.endswith(each, autoescape=True)
                for each in self._other_endings(connection)
            ]
        return [sa.or_(*found)]

    def _other_endings(self, connection: sa.Connection) -> set[str]:
        """Return how waiting recipients of the scope end that are not in ASCII.

        No database knows that a U-label and an A-label are one (RFC 5890 2.3.2.1).
        """
        query = sa.select(_R.forward_path).where(_R.state.in_([_DEFERRED, _PENDING]))
        return {
            "@" + path.rpartition("@")[2]
            for path in connection.scalars(query)
            if not path.isascii() and domain_of(path) == self.scope
        }


def take_back_waiting(
    connection: sa.Connection,
    stamp: WriteStamp,
    mail: RouteMail,
    breaker: CircuitBreaker,
) -> int:
    """Take back what waits for confirmation behind a breaker that opened.

    So is what was held for the same reason: the primary says it to everybody.
    Returns the number of recipients.
    """
    behind, due = WaitingScope(mail, breaker.scope), stamp.now + _FAR
    waits = behind.scope or ROUTE_WAITS
    change = Transition(
        event=Event.BREAKER_OPENED,
        kind=DecisionKind.BREAKER,
        rule="breaker-open",
        run=stamp.run,
        values={"due": due, "waits": waits, "refusal": "", "refused": None},
        evidence={
            "reason": breaker.cause.classification.reason if breaker.cause else ""
        },
    )
    rows = _waiting(connection, behind) + _held(connection, behind, breaker)
    changed = transition(connection, rows, change, stamp.now)
    _forget_stops(connection, behind)
    detain(connection, stamp, mail, breaker)
    return len(changed)


def detain(
    connection: sa.Connection,
    stamp: WriteStamp,
    mail: RouteMail,
    breaker: CircuitBreaker,
) -> None:
    """Let deferred mail wait for a breaker; it is due when that closes.

    Whatever put it off, the primary was not healthy. So its own retry delay does not
    count.
    """
    behind, due = WaitingScope(mail, breaker.scope), stamp.now + _FAR
    connection.execute(
        sa.update(schema.recipients)
        .where(_R.state == _DEFERRED, _R.waits == "", *behind.recipients(connection))
        .values(due=due, waits=behind.scope or ROUTE_WAITS)
    )


def _forget_stops(connection: sa.Connection, behind: WaitingScope) -> None:
    """Forget that messages met a refusal of us: all of them did.

    Otherwise, if the primary refuses everything once more after some deliveries, each
    of them would be held as the only one refused.
    """
    waits = (_R.waits == (behind.scope or ROUTE_WAITS)) | (_R.waits == "")
    connection.execute(
        sa.update(schema.recipients)
        .where(_R.state == _DEFERRED, waits, *behind.recipients(connection))
        .where(_R.refusal == Verdict.STOP.value)
        .values(refusal="", refused=None)
    )


def make_waiting_due(
    connection: sa.Connection, stamp: WriteStamp, mail: RouteMail, scope: str
) -> None:
    """Make due what waited for a breaker that closed."""
    connection.execute(
        sa.update(schema.recipients)
        .where(_R.state == _DEFERRED, _R.waits == (scope or ROUTE_WAITS))
        .where(*mail.recipients())
        .values(due=stamp.now, waits="")
    )


def wake_one(
    connection: sa.Connection, mail: RouteMail, scope: str, since: datetime
) -> bool:
    """Make the oldest that waits for a breaker due, as its probe; return False if none.

    One that was tried ``since`` then proves nothing new. Its due time is long past, so
    that it is before the end of any drain's patience.
    """
    row = connection.execute(
        sa.select(_R.message, _R.n)
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state == _DEFERRED, _R.waits == (scope or ROUTE_WAITS))
        .where(*mail.clauses(), _M.owner.is_(None))
        .where(_R.since < to_micros(since))
        .order_by(_R.due, _R.message)
        .limit(1)
    ).first()
    if row is None:
        return False
    connection.execute(
        sa.update(schema.recipients)
        .where(_R.message == row.message, _R.n == row.n, _R.state == _DEFERRED)
        .values(due=0)
    )
    return True


# --- confirmation


class DueConfirmations(NamedTuple):
    """The result of looking for pending bounces to confirm."""

    #: Pending bounces whose confirmation delay is over.
    due: int
    #: Refusals that wait for confirmation, contents not counted, and all recipients.
    pending: int
    handled: int
    #: Recipient domains of those that are due for confirmation.
    domains: list[str]


def find_due_bounces(
    connection: sa.Connection,
    stamp: WriteStamp,
    mail: RouteMail,
    *,
    due: datetime | None = None,
    looked: bool = False,
) -> DueConfirmations:
    """Count the pending bounces whose confirmation delay was over by ``due``, or is.

    ``looked``: only those about whose sender evidence was gathered.
    """
    pending, handled = _pending(connection, mail)
    rows = _due_bounces(connection, mail, due or from_micros(stamp.now), looked=looked)
    domains = sorted({domain_of(row["forward_path"]) for row in rows})
    return DueConfirmations(len(rows), pending, handled, domains)


def retry_due_bounces(
    connection: sa.Connection,
    stamp: WriteStamp,
    mail: RouteMail,
    *,
    due: datetime | None = None,
    looked: bool = False,
) -> int:
    """Retry these, for confirmation; return how many.

    While the brake is on they are retried too, because the primary may be healthy
    again; the bounce decision checks the brake.
    """
    rows = _due_bounces(connection, mail, due or from_micros(stamp.now), looked=looked)
    # Due since its confirmation delay was over, also for a drain that never waits.
    change = Transition(
        event=Event.CONFIRMATION_DUE,
        kind=DecisionKind.BREAKER,
        rule="confirmation-due",
        run=stamp.run,
    )
    transition(connection, rows, change, stamp.now)
    return len(rows)


def _due_bounces(
    connection: sa.Connection, mail: RouteMail, due: datetime, *, looked: bool
) -> list[Row]:
    clauses = [_R.due <= to_micros(due)]
    if looked:  # else the decision could not be made: another time
        clauses.append(_R.message.in_(sa.select(schema.evidence.c.message)))
    return _waiting(connection, WaitingScope(mail, ""), *clauses)


def _pending(connection: sa.Connection, mail: RouteMail) -> tuple[int, int]:
    """Return refusals that wait, contents not counted; and the recipients handled.

    One whose confirming attempt an earlier run has left undone waits, too.
    """
    rows = connection.execute(
        sa.select(_R.state, _R.refusal, sa.func.count().label("count"))
        .join(schema.messages, _R.message == _M.seq)
        .where(*mail.clauses(), _R.state != State.PENDING.value)
        .group_by(_R.state, _R.refusal)
    ).all()
    handled = sum(row[2] for row in rows)
    waiting = [
        row[2]
        for row in rows
        if row[0] in (_PENDING, _DEFERRED, State.IN_FLIGHT.value) and is_counted(row[1])
    ]
    return sum(waiting), handled


# --- plumbing


def _waiting(
    connection: sa.Connection, behind: WaitingScope, *more: sa.ColumnElement[bool]
) -> list[Row]:
    """Return the refusals that wait for confirmation."""
    return _rows(connection, behind, _R.state == _PENDING, *more)


def _held(
    connection: sa.Connection, behind: WaitingScope, breaker: CircuitBreaker
) -> list[Row]:
    """Return what a reply has held that opened the breaker, or one of its kind."""
    if breaker.cause is None:
        return []
    rules = (breaker.cause.classification.rule, CONTRADICTED)
    return _rows(connection, behind, _R.state == State.HELD.value, _R.rule.in_(rules))


def _rows(
    connection: sa.Connection, behind: WaitingScope, *clauses: sa.ColumnElement[bool]
) -> list[Row]:
    query: sa.Select[Any] = (
        sa.select(_R.message, _R.n, _R.state, _R.forward_path)
        .join(schema.messages, _R.message == _M.seq)
        .where(*behind.clauses(connection), *clauses)
    )
    return [dict(row) for row in connection.execute(query).mappings()]
