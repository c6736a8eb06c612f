"""How long a drain takes at least, with its slow start; pure."""

from datetime import timedelta

from drainer.policy.pacing.aimd import FLOOR, FLOOR_RATE, LEAST_TICK, TICKS

_DOUBLES_TO = 0.5


def least_seconds(
    messages: int, per_second: float | None, ramp: timedelta, level: float = FLOOR
) -> float:
    """Return the seconds for so many messages, if the primary is never overloaded.

    ``per_second`` is the full rate, None = unlimited. A ramp of zero starts with it,
    any other at ``level``, a share of that rate.
    """
    if per_second is None or messages <= 0:
        return 0.0
    left, seconds = float(messages), 0.0
    tick = max(LEAST_TICK, ramp.total_seconds() / TICKS)
    level = level if ramp else 1.0
    while level < 1.0:
        rate = max(min(FLOOR_RATE, per_second), level * per_second)
        if left <= rate * tick:
            return seconds + left / rate
        left -= rate * tick
        seconds += tick
        level = 2 * level if level < _DOUBLES_TO else level + FLOOR
    return seconds + left / per_second
