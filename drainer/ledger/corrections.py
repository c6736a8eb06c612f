"""Corrections of earlier settlements, after later ones showed what they meant.

Each function runs inside a transaction of the writer. One host of the primary refused
what the others accept; or the primary refuses, and later accepts, mail of one kind.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.records import DecisionKind, Row, WriteStamp
from drainer.ledger.route_mail import RouteMail
from drainer.ledger.transitions import Transition, transition
from drainer.mail.envelope import domain_of
from drainer.policy.breaker.groups import MailGroup
from drainer.policy.recipient.judge import BY_NODE
from drainer.policy.recipient.state import Event, State

_R, _M = schema.recipients.c, schema.messages.c
_COLUMNS = (_R.message, _R.n, _R.state, _R.forward_path, _M.reverse_path)

Keys = Sequence[tuple[int, int]]
"""Recipients, by the number of their message and their own."""


def retry_refused(connection: sa.Connection, stamp: WriteStamp, keys: Keys) -> None:
    """Try recipients again that only one host of the primary has refused.

    The time of the refusal stays: then the next session is asked for a known-good
    recipient first, also in another run, and a further refusal counts.
    """
    change = Transition(
        event=Event.REFUSED_BY_NODE,
        kind=DecisionKind.BREAKER,
        rule=BY_NODE,
        run=stamp.run,
        values={"due": stamp.now, "refusal": ""},
    )
    transition(connection, _pending(connection, keys), change, stamp.now)


def hold_group(
    connection: sa.Connection, stamp: WriteStamp, group: MailGroup, keys: Keys
) -> None:
    """Hold pending bounces that turn out to be refused as one kind of mail."""
    change = Transition(
        event=Event.GROUP_REFUSED,
        kind=DecisionKind.BREAKER,
        rule=group.rule,
        verdict="hold",
        run=stamp.run,
        values={"due": None, "rule": group.rule, "refusal": "", "refused": None},
        evidence={"reason": f"the primary refuses all {group.words}"},
    )
    transition(connection, _pending(connection, keys), change, stamp.now)


def find_held_groups(connection: sa.Connection, mail: RouteMail) -> list[MailGroup]:
    """Return the groups of which mail is held."""
    rows = connection.execute(
        _joined(mail, _R.rule.startswith("group-", autoescape=True))
        .with_only_columns(_R.rule, _M.reverse_path)
        .distinct()
    )
    found = {
        MailGroup(
            kind=(kind := row.rule.removeprefix("group-")),
            value=domain_of(row.reverse_path) if kind == "sender" else "",
        )
        for row in rows
    }
    return sorted(found, key=lambda group: (group.kind, group.value))


def release_group(
    connection: sa.Connection, stamp: WriteStamp, mail: RouteMail, group: MailGroup
) -> None:
    """Make what is held with a group pending: mail of that group was delivered."""
    reason = f"the primary accepts {group.words} again"
    change = _retry(Event.GROUP_DELIVERED, "group-delivered", reason, stamp)
    transition(connection, _held(connection, mail, group), change, stamp.now)


def probe_group(
    connection: sa.Connection, stamp: WriteStamp, mail: RouteMail, group: MailGroup
) -> None:
    """Make one message of a group that is held pending, to try it again."""
    reason = f"a new drain asks whether {group.words} is accepted now"
    change = _retry(Event.GROUP_PROBED, "group-probed", reason, stamp)
    rows = _held(connection, mail, group)
    first = [row for row in rows if row["message"] == rows[0]["message"]]
    transition(connection, first, change, stamp.now)


def _retry(event: Event, rule: str, reason: str, stamp: WriteStamp) -> Transition:
    """Return the change that makes what is held with a group due now."""
    return Transition(
        event=event,
        kind=DecisionKind.BREAKER,
        rule=rule,
        run=stamp.run,
        values={"due": stamp.now},
        evidence={"reason": reason},
    )


def _held(connection: sa.Connection, mail: RouteMail, group: MailGroup) -> list[Row]:
    """Return the recipients that are held with a group, the oldest first."""
    query = _joined(mail, _R.rule == group.rule).with_only_columns(*_COLUMNS)
    rows = map(dict, connection.execute(query.order_by(_R.message, _R.n)).mappings())
    return [
        row
        for row in rows
        if group.kind != "sender" or domain_of(row["reverse_path"]) == group.value
    ]


def _joined(mail: RouteMail, *clauses: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return (
        sa.select(schema.recipients)
        .join(schema.messages, _R.message == _M.seq)
        .where(_R.state == State.HELD.value, *mail.clauses(), *clauses)
    )


def _pending(connection: sa.Connection, keys: Keys) -> list[Row]:
    """Return those of some recipients that are bounce-pending."""
    wanted = sa.select(*_COLUMNS).join(schema.messages, _R.message == _M.seq)
    return [
        dict(row)
        for message, n in keys
        for row in connection.execute(
            wanted.where(
                _R.message == message,
                _R.n == n,
                _R.state == State.BOUNCE_PENDING.value,
            )
        ).mappings()
    ]
