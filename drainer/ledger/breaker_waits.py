"""What waits for a breaker, and what waits to be confirmed.

Each function runs inside a transaction of the writer. Opening a breaker takes back
every pending bounce behind it. Closing it makes everything that waited due at once. A
pending bounce is due for confirmation when its confirmation delay is over.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.records import DecisionKind, Row
from drainer.ledger.route_mail import RouteMail
from drainer.ledger.transitions import Transition, transition
from drainer.mail.envelope import domain_of
from drainer.policy.breaker.brake import Brake, is_counted
from drainer.policy.breaker.breaker import CircuitBreaker
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.judge import CONTRADICTED
from drainer.policy.recipient.settle import ROUTE_WAITS
from drainer.policy.recipient.state import Event, State

_R, _M = schema.recipients.c, schema.messages.c
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
    behind: WaitingScope,
    run: str,
    breaker: CircuitBreaker,
    times: tuple[int, int],
) -> int:
    """Take back what waits for confirmation behind a breaker that opened.

    So is what was held for the same reason: the primary says it to everybody.
    ``times`` are now, and when the recipients are due if no run closes the breaker.
    Returns the number of recipients.
    """
    now, due = times
    waits = behind.scope or ROUTE_WAITS
    change = Transition(
        event=Event.BREAKER_OPENED,
        kind=DecisionKind.BREAKER,
        rule="breaker-open",
        run=run,
        values={"due": due, "waits": waits, "refusal": "", "refused": None},
        evidence={
            "reason": breaker.cause.classification.reason if breaker.cause else ""
        },
    )
    rows = _waiting(connection, behind) + _held(connection, behind, breaker)
    changed = transition(connection, rows, change, now)
    _forget_stops(connection, behind)
    detain(connection, behind, due)
    return len(changed)


def detain(connection: sa.Connection, behind: WaitingScope, due: int) -> None:
    """Let all deferred mail of a scope wait for its breaker, at most until ``due``.

    Whatever put it off, the primary was not healthy. So it is due when the breaker
    closes, not when its own retry delay is over.
    """
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


def make_waiting_due(connection: sa.Connection, behind: WaitingScope, now: int) -> None:
    """Make due what waited for a breaker that closed."""
    connection.execute(
        sa.update(schema.recipients)
        .where(_R.state == _DEFERRED, _R.waits == (behind.scope or ROUTE_WAITS))
        .where(*behind.mail.recipients())
        .values(due=now, waits="")
    )


def wake_one(connection: sa.Connection, behind: WaitingScope, since: int) -> bool:
    """Make the oldest that waits for a breaker due, as its probe; return False if none.

    One that was tried ``since`` then proves nothing new. Its due time is long past, so
    that it is before the end of any drain's patience.
    """
    row = connection.execute(
        sa.select(_R.message, _R.n)
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state == _DEFERRED, _R.waits == (behind.scope or ROUTE_WAITS))
        .where(*behind.mail.clauses(), _M.owner.is_(None))
        .where(_R.since < since)
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
    ripe: int
    #: Refusals that wait for confirmation, contents not counted, and all recipients.
    pending: int
    handled: int
    braked: bool
    #: Recipient domains of those that are due for confirmation.
    domains: list[str]


class ConfirmationCheck(NamedTuple):
    """Which pending bounces to confirm."""

    brake: Brake
    #: Only where evidence about the sender was gathered.
    looked: bool = False
    #: Change nothing: only count.
    dry: bool = False
    #: Which were due by then; None: by now.
    due: int | None = None


def ripen(
    connection: sa.Connection,
    mail: RouteMail,
    how: ConfirmationCheck,
    identity: tuple[str, int],
) -> DueConfirmations:
    """Retry refusals whose confirmation delay is over, for confirmation.

    While the brake is on they are retried too, because the primary may be healthy
    again; the bounce decision checks the brake. ``identity`` is the run and now.
    """
    (run, now), brake = identity, how.brake
    pending, handled = _pending(connection, mail)
    braked = brake.is_on(pending, handled)
    ripe = [_R.due <= (now if how.due is None else how.due)]
    if how.looked:  # else the decision could not be made: another time
        ripe.append(_R.message.in_(sa.select(schema.evidence.c.message)))
    rows = _waiting(connection, WaitingScope(mail, ""), *ripe)
    domains = sorted({domain_of(row["forward_path"]) for row in rows})
    if rows and not how.dry:
        # Due since its confirmation delay was over, also for a drain that never waits.
        change = Transition(
            event=Event.CONFIRMATION_DUE,
            kind=DecisionKind.BREAKER,
            rule="confirmation-due",
            run=run,
        )
        transition(connection, rows, change, now)
    return DueConfirmations(
        ripe=len(rows), pending=pending, handled=handled, braked=braked, domains=domains
    )


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
