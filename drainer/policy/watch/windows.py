"""When a watch may drain: ``[watch] windows``, in local time.

A window that goes past midnight belongs to the day on which it starts. Only local time
counts: in summer time an hour that comes twice is open twice, and one that is skipped
is not open that day.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60
_WINDOW = re.compile(
    r"(?:(?P<days>[a-z, -]+?)\s+)?(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)"
)
_MINUTE = timedelta(minutes=1)
_LOOK_AHEAD = 8 * _DAY
MAX_WRITTEN = 200

Local = Callable[[datetime], datetime]
"""From a moment to the local time that the clock shows then."""


class DrainWindow(Struct, frozen=True, kw_only=True):
    """Some hours on some days of the week, Monday being 0; minutes since midnight."""

    days: frozenset[int]
    start: int
    #: Exclusive; not after ``start`` if it is on the next day.
    end: int

    def holds(self, day: int, minute: int) -> bool:
        """Return whether it is open at a minute of a day."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        late = day in self.days and minute >= self.start
        return late or ((day - 1) % 7 in self.days and minute < self.end)


class DrainWindows(Struct, frozen=True, kw_only=True):
    """All windows together; without any, the watch may always drain."""

    windows: tuple[DrainWindow, ...] = ()

    def are_open(self, now: datetime, local: Local) -> bool:
        """Return whether a drain may run now."""
        wall = local(now)
        minute = wall.hour * 60 + wall.minute
        return not self.windows or any(
            window.holds(wall.weekday(), minute) for window in self.windows
        )

    def next_change(self, now: datetime, local: Local) -> datetime | None:
        """Return when they open or close next; None if they never do."""
        today = self.are_open(now, local)
        start = now.replace(second=0, microsecond=0)
        # By the minute: clock changes need no case of their own.
        moments = (start + n * _MINUTE for n in range(1, _LOOK_AHEAD))
        if not self.windows:
            return None
        return next((m for m in moments if self.are_open(m, local) != today), None)


def parse_hours(texts: Sequence[str]) -> DrainWindows:
    """Parse ``[watch] windows``; a ValueError says what is legal."""
    return DrainWindows(windows=tuple(map(_parse, texts)))


def parse_time(text: str) -> int:
    """Parse ``07:00`` to the minute of the day; raise ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,2}):(\d\d)", text.strip())
    minute = _minute(match[1], match[2]) if match else _DAY
    if minute >= _DAY:
        raise ValueError(f"{text[:60]!r} is not a time of day; write e.g. 07:00")
    return minute


def _parse(text: str) -> DrainWindow:
    match = _WINDOW.fullmatch(text.strip().lower()[:MAX_WRITTEN])
    days = _days(match["days"]) if match else frozenset()
    if match is None or not days:
        raise _illegal(text)
    start, end = _minute(match[2], match[3]), _minute(match[4], match[5])
    if start >= _DAY or end > _DAY or start == end:
        raise _illegal(text)
    return DrainWindow(days=days, start=start, end=end)


def _minute(hour: str, minute: str) -> int:
    return int(hour) * 60 + int(minute) if int(minute) < 60 else 2 * _DAY  # noqa: PLR2004


def _days(text: str | None) -> frozenset[int]:
    """Return the days of ``sat,sun`` or ``mon-fri``; none for any other text."""
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            return frozenset()
        start, end = DAYS.index(first), DAYS.index(last or first)
        found.update((start + n) % 7 for n in range((end - start) % 7 + 1))
    return frozenset(found)


def _illegal(text: str) -> ValueError:
    message = (
        f"{text[:60]!r} is not a window; write e.g. 22:00-06:00, sat,sun 00:00-24:00,"
        " mon-fri 18:00-08:00"
    )
    return ValueError(message)
