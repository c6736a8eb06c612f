"""Read the delay that a temporary refusal states: "try again in 5 minutes". Pure."""

import re
from datetime import timedelta

LONGEST = timedelta(hours=6)
"""A longer delay is cut to this: it may be a mistake or a joke."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WORDS = re.compile(
    r"\b(?:in|after|for|wait|within|next|least)\s+(?:about\s+|another\s+|at least\s+)?"
    r"(\d{1,6})"
    # A number before other words, or within a code or a time, is not a delay.
    r"(?:\s*(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)\b(?![.:]\d)"
    r"|\b(?!\s*[a-z%])(?![.:]\d))",
)
_CLOCK = re.compile(
    r"\b(?:in|after|wait)\s+(\d{1,2}):([0-5]\d)(?::([0-5]\d))?(?!\S*\d)"
)
_MAX_TEXT = 500


def find_delay(text: str) -> timedelta | None:
    """Return the delay that a reply's text states, at most LONGEST; None without one.

    A number without a unit counts as seconds only behind "retry" or "again".
    """
    words = text[:_MAX_TEXT].lower()
    if match := _CLOCK.search(words):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        if match[3] is None:  # mm:ss
            hours, minutes, seconds = 0, hours, minutes
        return _cap(hours * 3600 + minutes * 60 + seconds)
    for match in _WORDS.finditer(words):
        unit = (match[2] or "")[:1]
        before = words[: match.start()]
        if unit or before.rstrip().endswith(("retry", "again")):
            return _cap(int(match[1]) * _SECONDS[unit or "s"])
    return None


def _cap(seconds: int) -> timedelta:
    return min(timedelta(seconds=seconds), LONGEST)
