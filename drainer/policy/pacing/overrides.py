"""What people and health hooks ask of whoever works on a route, and what is in force.

A control is written into the ledger by a command or a hook, and read there by the
drains and the watch of its route: no other channel reaches them.
"""

import enum
from collections.abc import Iterable
from datetime import datetime

from drainer.runtime.values import dataclass


class OverrideKind(enum.StrEnum):
    """The closed list of controls."""

    UP = "up"  #: a hook believes that the primary is back: look, then decide
    DOWN = "down"  #: a hook believes that it is down: begin nothing new
    PAUSE = "pause"
    RESUME = "resume"
    THROTTLE = "throttle"


_DONE = {
    OverrideKind.UP: "said to be up",
    OverrideKind.DOWN: "said to be down",
    OverrideKind.PAUSE: "paused",
    OverrideKind.RESUME: "resumed",
    OverrideKind.THROTTLE: "set",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One of them, as it was given."""

    at: datetime
    ask: OverrideKind
    #: Messages per second, of THROTTLE; None gives the configured rate back.
    per_second: float | None = None
    #: When it ends by itself; None = never.
    until: datetime | None = None
    reason: str = ""
    #: Who gave it: ``cli NAME``, ``http ADDRESS``.
    by: str = ""
    #: Grows with every control of a ledger; 0 before it is written.
    id: int = 0

    def __str__(self) -> str:
        """Return who asked for what, why, and until when."""
        words = [f"{_DONE[self.ask]} by {self.by or 'somebody'}"]
        if self.per_second is not None:
            words[0] = f"{self.per_second:g}/s {words[0]}"
        if self.reason:
            words.append(f"because {self.reason}")
        if self.until is not None:
            words.append(f"until {self.until:%Y-%m-%d %H:%M:%S}Z")
        return " ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveOverrides:
    """What a drain of a route has to go by."""

    #: The pause that holds, and the limit that holds.
    pause: Override | None = None
    throttle: Override | None = None

    @property
    def per_second(self) -> float | None:
        """The rate that was set; None = the configured one. A pause is no rate."""
        return self.throttle.per_second if self.throttle else None


def in_force(controls: Iterable[Override], now: datetime) -> ActiveOverrides:
    """Return what holds, of all controls in the order of their ids.

    The last of a kind counts; one that has ended by itself gives back what was
    configured, not an older one.
    """
    pause: Override | None = None
    throttle: Override | None = None
    for control in controls:
        match control.ask:
            case OverrideKind.PAUSE:
                pause = control
            case OverrideKind.RESUME:
                pause = None
            case OverrideKind.THROTTLE:
                throttle = control if control.per_second is not None else None
            case OverrideKind.UP | OverrideKind.DOWN:
                pass
    return ActiveOverrides(pause=_still(pause, now), throttle=_still(throttle, now))


def _still(control: Override | None, now: datetime) -> Override | None:
    if control is None or control.until is None or control.until > now:
        return control
    return None
