"""What the ledger remembers of notifications: which of them were sent, and when."""

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from msgspec import json
from sqlalchemy.engine import URL

from drainer.ledger import engine, schema
from drainer.policy.watch.notices import NoticeRecord

T = TypeVar("T")
_NAME = "notices"
_META = schema.meta.c


def record_notices(
    url: URL,
    decide: Callable[[dict[str, NoticeRecord]], tuple[T, dict[str, NoticeRecord]]],
) -> T:
    """Let a function decide by what was reported; remember what it reports.

    Two processes never report the same: one transaction reads and writes. The function
    may be called twice. Raises LedgerError.
    """
    with engine.open_reader(url) as connection:
        before = _read(connection)
    result, after = decide(before)
    if after == before:
        return result
    with engine.open_transaction(url) as connection:
        result, after = decide(_read(connection))
        value = json.encode(after).decode()
        name = _META.name == _NAME
        statement = sa.update(schema.meta).where(name).values(value=value)
        if connection.execute(statement).rowcount == 0:
            row = {"name": _NAME, "value": value}
            connection.execute(sa.insert(schema.meta), [row])
    return result


def _read(connection: sa.Connection) -> dict[str, NoticeRecord]:
    query = sa.select(_META.value).where(_META.name == _NAME)
    value = connection.scalar(query)
    return json.decode(value, type=dict[str, NoticeRecord]) if value else {}
