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


class Action(enum.StrEnum):
    """What a row of a table, or a rule, says: a verdict, and how far it reaches."""

    RETRY = "retry"
    #: For hours.
    RETRY_LONG = "retry-long"
    #: Provisional, for the recipient.
    BOUNCE = "bounce"
    #: Provisional, for the whole message.
    BOUNCE_MESSAGE = "bounce message"
    HOLD = "hold"
    #: The primary refuses us.
    STOP = "stop"
    STOP_BRIEFLY = "stop briefly"
    #: The primary refuses this recipient domain.
    STOP_DOMAIN = "stop domain"


BOUNCES = frozenset((Action.BOUNCE, Action.BOUNCE_MESSAGE))
STOPS = frozenset((Action.STOP, Action.STOP_BRIEFLY, Action.STOP_DOMAIN))

VERDICTS: dict[Action, tuple[Verdict, Scope]] = {
    Action.RETRY: (Verdict.RETRY, Scope.RECIPIENT),
    Action.RETRY_LONG: (Verdict.RETRY_LONG, Scope.RECIPIENT),
    Action.BOUNCE: (Verdict.BOUNCE, Scope.RECIPIENT),
    Action.BOUNCE_MESSAGE: (Verdict.BOUNCE, Scope.MESSAGE),
    Action.HOLD: (Verdict.HOLD, Scope.RECIPIENT),
    Action.STOP: (Verdict.STOP, Scope.ROUTE),
    Action.STOP_BRIEFLY: (Verdict.STOP, Scope.ROUTE),
    Action.STOP_DOMAIN: (Verdict.STOP, Scope.DOMAIN),
}
"""The verdict of each action, and its usual scope."""
