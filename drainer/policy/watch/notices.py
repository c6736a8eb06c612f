"""When a person is notified: once for each change, and not too often; pure.

Conditions are what holds now, by kind. The ledger remembers the last notification of
each kind, so that a drain that starts every minute repeats nothing.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from msgspec import Struct, field

Numbers = Mapping[str, int | float | str]

STICKY: Final = frozenset(("done", "defect", "ended"))
"""Kinds that are over at once: that they are absent changes nothing."""


class Condition(Struct, frozen=True, kw_only=True):
    """Something that holds, and that a person wants to know."""

    #: While it is the same, it is the same thing.
    key: str
    subject: str
    cause: str = ""
    #: What to run.
    command: str = ""
    numbers: dict[str, int | float | str] = field(default_factory=dict)


class Notice(Struct, frozen=True, kw_only=True):
    """One notification."""

    #: stopped, resumed, done, stalled, expires, defect, disk, ended; or test.
    event: str
    subject: str
    cause: str
    command: str
    numbers: dict[str, int | float | str]


class NoticeRecord(Struct, frozen=True):
    """The last notification of a kind: its key ('' for: it is over), and when."""

    key: str
    #: Microseconds since 1970.
    at: int


RESUMED: Final = Condition(
    key="",
    subject="delivery has resumed",
    cause="the circuit breaker is closed: mail flows",
    command="drainer status",
)


def changes(
    conditions: Mapping[str, Condition],
    sent: Mapping[str, NoticeRecord],
    now: int,
    interval: timedelta,
) -> tuple[list[Notice], dict[str, NoticeRecord]]:
    """Return what to report now, and what has been reported then.

    A change that comes too early after the last one of its kind waits; if it is over by
    then, drainer sends no notification of it.
    """
    after = dict(sent)
    notices = []
    for kind in dict.fromkeys((*conditions, *sent)):
        condition = conditions.get(kind)
        if condition is None and kind in STICKY:
            continue
        key = condition.key if condition else ""
        before = sent.get(kind, NoticeRecord("", 0))
        early = before.at and now - before.at < interval // timedelta(microseconds=1)
        if key == before.key or early:
            continue
        after[kind] = NoticeRecord(key, now)
        notices += list(_notices(kind, condition))
    return notices, after


def _notices(kind: str, condition: Condition | None) -> Iterator[Notice]:
    if condition is not None:
        yield notice(kind, condition)
    elif kind == "stopped":
        yield notice("resumed", RESUMED)


def notice(event: str, condition: Condition) -> Notice:
    """Return the notification of a condition."""
    return Notice(
        event=event,
        subject=condition.subject,
        cause=condition.cause,
        command=condition.command,
        numbers=condition.numbers,
    )
