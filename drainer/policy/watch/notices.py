"""When a person is notified: once for each change, and not too often; pure.

Conditions are what holds now, by kind. What was reported of each kind is in the
ledger, so that a drain that starts every minute repeats nothing.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from msgspec import Struct, field

STICKY: Final = frozenset(("done", "defect", "ended"))
"""Kinds that are over at once: that they are absent changes nothing."""


class Notice(Struct, frozen=True, kw_only=True):
    """Something that holds, or is over, and that a person wants to know."""

    #: stopped, resumed, done, stalled, expires, defect, disk, ended; or test.
    event: str
    #: While it is the same, it is the same thing.
    key: str = ""
    subject: str
    cause: str = ""
    #: What to run.
    command: str = ""
    numbers: dict[str, int | float | str] = field(default_factory=dict)


class NoticeRecord(Struct, frozen=True):
    """What was reported of a kind last: its key ('' for: it is over), and when."""

    key: str
    #: Microseconds since 1970.
    at: int


RESUMED: Final = Notice(
    event="resumed",
    subject="delivery has resumed",
    cause="the circuit breaker is closed: mail flows",
    command="drainer status",
)


def changes(
    conditions: Mapping[str, Notice],
    reported: Mapping[str, NoticeRecord],
    now: int,
    interval: timedelta,
) -> tuple[list[Notice], dict[str, NoticeRecord]]:
    """Return what to report now, and what has been reported then.

    A change that comes too early after the last one of its kind waits; if it is over by
    then, it is never reported.
    """
    after = dict(reported)
    notices = []
    for kind in dict.fromkeys((*conditions, *reported)):
        notice = conditions.get(kind)
        if notice is None and kind in STICKY:
            continue
        key = notice.key if notice else ""
        before = reported.get(kind, NoticeRecord("", 0))
        early = before.at and now - before.at < interval // timedelta(microseconds=1)
        if key == before.key or early:
            continue
        after[kind] = NoticeRecord(key, now)
        if notice is not None:
            notices.append(notice)
        elif kind == "stopped":
            notices.append(RESUMED)
    return notices, after
