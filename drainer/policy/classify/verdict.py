"""What a result can mean, for whom, and by which rule."""

import enum

from msgspec import Struct


class Verdict(enum.StrEnum):
    """What one result means for one recipient."""

    DELIVER = "deliver"
    RETRY = "retry"
    RETRY_LONG = "retry-long"
    BOUNCE = "bounce"
    HOLD = "hold"
    STOP = "stop"
    UNKNOWN = "unknown"


class Scope(enum.StrEnum):
    """What a verdict is about."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    DOMAIN = "domain"
    ROUTE = "route"


class Classification(Struct, frozen=True, kw_only=True):
    """A verdict with its scope, its rule, and the reason as text."""

    verdict: Verdict
    scope: Scope
    rule: str
    reason: str
    #: A `stop` that is tried again by itself within the run.
    short: bool = False
    #: Whether this uses up one of the recipient's attempts.
    counts: bool = True
    #: What else the record of the decision says: names and values.
    evidence: tuple[tuple[str, object], ...] = ()


LETTERS: dict[str, tuple[Verdict, Scope]] = {
    "R": (Verdict.RETRY, Scope.RECIPIENT),
    "L": (Verdict.RETRY_LONG, Scope.RECIPIENT),
    "B": (Verdict.BOUNCE, Scope.RECIPIENT),
    "M": (Verdict.BOUNCE, Scope.MESSAGE),
    "H": (Verdict.HOLD, Scope.RECIPIENT),
    "S": (Verdict.STOP, Scope.ROUTE),
    "s": (Verdict.STOP, Scope.ROUTE),
    "D": (Verdict.STOP, Scope.DOMAIN),
}
"""The letters of the tables: verdict and usual scope."""
