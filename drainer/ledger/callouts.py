"""What the primary said about recipients in callouts, for as long as it counts."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import URL

from drainer.ledger import engine, schema
from drainer.ledger.columns import storable
from drainer.ledger.records import MANY, Row, to_micros
from drainer.mail.mailbox import mailbox_key
from drainer.policy.census.existence import Existence, ExistenceAnswer

_C = schema.callouts.c
LASTS = {Existence.KNOWN: timedelta(days=1), Existence.UNKNOWN: timedelta(hours=1)}
"""How long an answer counts. Others are not kept."""


def recall(
    url: URL, route: str, mailboxes: Iterable[str]
) -> dict[str, ExistenceAnswer]:
    """Return what the primary of a route said lately about these; raise LedgerError."""
    keys = {_key(route, mailbox): mailbox for mailbox in mailboxes}
    names, now, found = list(keys), datetime.now(UTC), {}
    with engine.open_reader(url) as connection:
        for start in range(0, len(names), MANY):
            some = names[start : start + MANY]
            query = sa.select(schema.callouts).where(_C.key.in_(some))
            for row in connection.execute(query):
                existence = Existence(row.existence)
                if row.at > to_micros(now - LASTS[existence]):
                    answer = ExistenceAnswer(existence, row.reason, row.reply)
                    found[keys[row.key]] = answer
    return found


def keep(url: URL, route: str, answers: Mapping[str, ExistenceAnswer]) -> None:
    """Keep clear answers, and forget those that count no more; raise LedgerError.

    It makes the ledger if there is none.
    """
    now = datetime.now(UTC)
    made = (
        _row(route, mailbox, answer, to_micros(now))
        for mailbox, answer in answers.items()
        if answer.existence in LASTS
    )
    rows = list({row["key"]: row for row in made}.values())
    old = to_micros(now - max(LASTS.values()))
    with engine.open_transaction(url, create=True) as connection:
        connection.execute(sa.delete(schema.callouts).where(_C.at < old))
        for start in range(0, len(rows), MANY):
            some = rows[start : start + MANY]
            keys = [row["key"] for row in some]
            connection.execute(sa.delete(schema.callouts).where(_C.key.in_(keys)))
            connection.execute(sa.insert(schema.callouts), some)


def _row(route: str, mailbox: str, answer: ExistenceAnswer, at: int) -> Row:
    return {
        "key": _key(route, mailbox),
        "at": at,
        "existence": answer.existence.value,
        "reason": answer.reason,
        "reply": storable(answer.by),
    }


def _key(route: str, mailbox: str) -> str:
    """Return what distinguishes a mailbox on a route: short enough for an index."""
    text = f"{route} {mailbox_key(mailbox)}"
    return hashlib.sha256(text.encode()).hexdigest()
