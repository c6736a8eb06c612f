"""What operators and health hooks order for a route, and what is in force.

A command or a hook writes an override into the ledger. The drains and the watch of its
route read it there: no other channel reaches them.
"""

import enum
from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct


class OverrideKind(enum.StrEnum):
    """The closed list of overrides."""

    UP = "up"  #: a hook reports that the primary is back: check, then decide
    DOWN = "down"  #: a hook reports that it is down: start nothing new
    PAUSE = "pause"
    RESUME = "resume"
    THROTTLE = "throttle"


_DONE = {
    OverrideKind.UP: "reported up",
    OverrideKind.DOWN: "reported down",
    OverrideKind.PAUSE: "paused",
    OverrideKind.RESUME: "resumed",
    OverrideKind.THROTTLE: "set",
}


class Override(Struct, frozen=True, kw_only=True):
    """One override, as it was given."""

    at: datetime
    ask: OverrideKind
    #: Messages per second, of THROTTLE; None restores the configured rate.
    per_second: float | None = None
    #: When it ends by itself; None: never.
    until: datetime | None = None
    reason: str = ""
    #: Who gave it: ``cli NAME``, ``http ADDRESS``.
    by: str = ""
    #: Increases with every override of a ledger; 0 before it is written.
    id: int = 0

    def __str__(self) -> str:
        """Return who ordered what, why, and until when."""
        words = [f"{_DONE[self.ask]} by {self.by or 'an unknown operator'}"]
        if self.per_second is not None:
            words[0] = f"{self.per_second:g}/s {words[0]}"
        if self.reason:
            words.append(f"because {self.reason}")
        if self.until is not None:
            words.append(f"until {self.until:%Y-%m-%d %H:%M:%S}Z")
        return " ".join(words)


class ActiveOverrides(Struct, frozen=True, kw_only=True):
    """The overrides that a drain of a route follows."""

    #: The pause and the limit that are in force.
    pause: Override | None = None
    throttle: Override | None = None

    @property
    def per_second(self) -> float | None:
        """Return the rate that was set; None: as configured. A pause is not a rate."""
        return self.throttle.per_second if self.throttle else None


def active(controls: Iterable[Override], now: datetime) -> ActiveOverrides:
    """Return what is in force, given all overrides in the order of their ids.

    The last one of a kind counts. When it ends by itself, the configured value is in
    force again, not an older override.
    """
    pause: Override | None = None
    throttle: Override | None = None
    for control in controls:
        if control.ask in (OverrideKind.PAUSE, OverrideKind.RESUME):
            pause = control if control.ask is OverrideKind.PAUSE else None
        elif control.ask is OverrideKind.THROTTLE:
            throttle = control if control.per_second is not None else None
    return ActiveOverrides(pause=_still(pause, now), throttle=_still(throttle, now))


def _still(control: Override | None, now: datetime) -> Override | None:
    if control is None or control.until is None or control.until > now:
        return control
    return None
