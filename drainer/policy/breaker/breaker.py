"""The circuit breaker of a scope: closed (mail flows), open (the primary refuses us).

A scope is a route, or one recipient domain on it. Pure: every function takes the
breaker and returns the next one. docs/refusals.md shows the states as a picture.

closed   mail flows
paused   nothing is tried for a while, then one session probes
probing  the canary (no DATA), or one real message at a time
open     nothing is tried until a doubling timer or an operator lets it probe

A refusal that is meant for us never judges a message (promise P4).
"""

import enum
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from drainer.policy.classify.verdict import Classification

MESSAGES_TO_TRY = 3
"""Real messages that probe, one at a time, before a breaker opens."""
STOPS_TO_OPEN = 8
STOPS_TO_PAUSE = 5
"""The same limit for messages that were refused as if it were us, or put off.

It is higher, and the order does not matter, because a stranger may have sent many such
messages.
"""
FIRST_PROBE = timedelta(minutes=1)
LAST_PROBE = timedelta(hours=1)
"""An open breaker probes again after FIRST_PROBE, doubled up to LAST_PROBE."""


class BreakerState(enum.StrEnum):
    """Closed: mail flows. Paused, open: nothing is tried. Half-open: little is."""

    CLOSED = "closed"
    PAUSED = "paused"
    HALF_OPEN = "half-open"
    OPEN = "open"


class Phase(enum.StrEnum):
    """What probes: the canary, or real messages."""

    CANARY = "canary"
    MESSAGES = "messages"


class CanaryOutcome(enum.StrEnum):
    """How the primary answered the canary."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNCLEAR = "unclear"


class Cause(Struct, frozen=True, kw_only=True):
    """Why a breaker moved."""

    #: early, stop, run, ratio, storm, contradiction (of a known-good address), learnt
    trigger: str
    classification: Classification
    #: The primary's reply, or the system's error text.
    reply: str
    sender_domain: str = ""
    fingerprint: str = ""
    #: The canary cannot see it: it sends no content and has another sender.
    blind: bool = False
    #: It is about contents: strangers' spam alone never opens the breaker.
    content: bool = False
    #: The same message has met it before, so it adds nothing new.
    again: bool = False

    @property
    def is_brief(self) -> bool:
        """Return whether the primary wants a pause, and no operator is needed."""
        return self.classification.short or self.trigger == "storm"

    @property
    def is_of_xforward(self) -> bool:
        """Return whether one of our commands was refused, not one of a message."""
        return self.classification.rule.startswith("forward-")

    @property
    def messages(self) -> int:
        """Return how many messages must be refused one at a time to confirm it."""
        if self.is_brief:
            return STOPS_TO_PAUSE
        return STOPS_TO_OPEN if self.trigger == "stop" else MESSAGES_TO_TRY


class CircuitBreaker(Struct, frozen=True, kw_only=True):
    """The state of one scope's breaker, and how it got there."""

    pauses: tuple[timedelta, ...]
    #: A recipient domain; '' is the route as a whole.
    scope: str = ""
    state: BreakerState = BreakerState.CLOSED
    phase: Phase = Phase.MESSAGES
    #: When a pause ends, or an open breaker may probe.
    until: datetime | None = None
    #: Pauses, or probes that failed, without a success between them.
    failures: int = 0
    #: Messages that probed and were refused.
    tried: int = 0
    #: Whether it was open when it started to probe: then a message must be delivered.
    reopening: bool = False
    cause: Cause | None = None

    @property
    def is_closed(self) -> bool:
        """Return whether mail flows."""
        return self.state is BreakerState.CLOSED

    @property
    def is_probed(self) -> bool:
        """Return whether real messages probe, one at a time."""
        return self.state is BreakerState.HALF_OPEN and self.phase is Phase.MESSAGES

    @property
    def is_suspected(self) -> bool:
        """Return whether it probes because of refusals, and was not open before."""
        is_new = self.state is BreakerState.HALF_OPEN and not self.reopening
        return is_new and self.cause is not None and self.cause.trigger != "early"

    @property
    def waits_for_storm(self) -> bool:
        """Return whether it is paused because the primary puts everything off."""
        storm = self.cause is not None and self.cause.trigger == "storm"
        return self.state is BreakerState.PAUSED and storm


def on_early_refusal(
    breaker: CircuitBreaker, cause: Cause, now: datetime
) -> CircuitBreaker:
    """Return the breaker after a refusal or a loss before MAIL."""
    if cause.classification.short:
        return pause(breaker, cause, now)
    return _open(breaker, now, cause)


def trip_suspicion(
    breaker: CircuitBreaker, cause: Cause, now: datetime
) -> CircuitBreaker:
    """Return the breaker when refusals look as if they were meant for us."""
    if cause.trigger == "contradiction":
        return _open(breaker, now, cause)
    if not breaker.is_closed:
        return breaker
    phase = Phase.MESSAGES if cause.blind else Phase.CANARY
    return replace(
        breaker,
        state=BreakerState.HALF_OPEN,
        phase=phase,
        tried=0,
        until=None,
        cause=cause,
    )


def on_refusal(
    breaker: CircuitBreaker, now: datetime, cause: Cause | None = None
) -> CircuitBreaker:
    """Return the breaker after a message that probed was refused, or put off.

    ``cause`` is the reason, if that is a refusal of us. A message that met one before
    adds nothing new.
    """
    if not breaker.is_probed or (cause is not None and cause.again):
        return breaker
    breaker = replace(breaker, tried=breaker.tried + 1)
    why = cause or breaker.cause
    if breaker.tried < (why.messages if why else MESSAGES_TO_TRY):
        return breaker
    if cause is not None and cause.is_brief:
        return pause(breaker, cause, now)
    content = why is not None and why.content
    return _close(breaker) if content else _open(breaker, now, cause)


def on_reply(breaker: CircuitBreaker) -> CircuitBreaker:
    """Return the breaker after a message got any reply of its own.

    That ends a pause that a missing answer caused: the primary answers again. After an
    open breaker that is not enough.
    """
    waited = breaker.cause is not None and breaker.cause.classification.short
    if breaker.is_probed and waited and not breaker.reopening:
        return _close(breaker)
    return breaker


def on_delivery(breaker: CircuitBreaker) -> CircuitBreaker:
    """Return the breaker after a message was accepted.

    An open breaker stays open: that message was under way before it opened. A breaker
    whose canary is out also stays as it is, because the suspicion is not answered yet.
    """
    idle = breaker.is_closed and not breaker.failures
    asked = breaker.state is BreakerState.HALF_OPEN and breaker.phase is Phase.CANARY
    if idle or asked or breaker.state is BreakerState.OPEN:
        return breaker
    return _close(breaker)


def on_canary(
    breaker: CircuitBreaker, outcome: CanaryOutcome, reply: str, now: datetime
) -> CircuitBreaker:
    """Return the breaker after the canary came back.

    If the breaker was only suspected and the canary is accepted, the refusals were
    individual. If it was open, or no address is known to exist, real messages continue
    to probe. A breaker never opens because of something that canaries cannot see.
    """
    if breaker.state is not BreakerState.HALF_OPEN or breaker.phase is not Phase.CANARY:
        return breaker
    if outcome is CanaryOutcome.REFUSED:
        cause = replace(breaker.cause, reply=reply) if breaker.cause else None
        return _open(breaker, now, cause)
    if outcome is CanaryOutcome.ACCEPTED and not breaker.reopening:
        return _close(breaker)
    return replace(breaker, phase=Phase.MESSAGES, tried=0)


def probe(breaker: CircuitBreaker, now: datetime) -> CircuitBreaker:
    """Return the breaker when a message asks to pass: its time may have come."""
    if breaker.until is None or now < breaker.until:
        return breaker
    if breaker.state is BreakerState.PAUSED:
        return end_pause(breaker)
    return recheck(breaker)


def end_pause(breaker: CircuitBreaker) -> CircuitBreaker:
    """Return the breaker when something says that the primary is up again."""
    if breaker.state is not BreakerState.PAUSED:
        return breaker
    return replace(breaker, state=BreakerState.HALF_OPEN, phase=Phase.MESSAGES, tried=0)


def recheck(breaker: CircuitBreaker) -> CircuitBreaker:
    """Return the breaker when an operator makes an open one probe now."""
    if breaker.state is not BreakerState.OPEN:
        return breaker
    return replace(
        breaker,
        state=BreakerState.HALF_OPEN,
        phase=Phase.CANARY,
        until=None,
        tried=0,
        reopening=True,
    )


def give_up(breaker: CircuitBreaker, now: datetime) -> CircuitBreaker:
    """Return the breaker when a run waits no longer for the primary to accept mail."""
    is_brief = breaker.cause is not None and breaker.cause.is_brief
    if breaker.state is BreakerState.PAUSED or is_brief:
        return on_unproven_end(breaker, now)
    return on_run_end(breaker, now)


def on_run_end(breaker: CircuitBreaker, now: datetime) -> CircuitBreaker:
    """Return the breaker when a run ends: an unanswered suspicion opens it.

    A pause is not a suspicion; the next run tries at once. But if everybody was put
    off, and none was accepted since, that is a refusal.
    """
    if breaker.waits_for_storm:
        return _open(breaker, now)
    if breaker.state is not BreakerState.HALF_OPEN or breaker.cause is None:
        return breaker
    if breaker.cause.trigger == "storm":
        return _open(breaker, now)
    if breaker.cause.is_brief:
        return breaker
    return _close(breaker) if breaker.cause.content else _open(breaker, now)


def on_unproven_end(breaker: CircuitBreaker, now: datetime) -> CircuitBreaker:
    """Return the breaker when a run ends and nothing speaks for the primary."""
    is_suspected = not breaker.is_closed and breaker.cause is not None
    return _open(breaker, now) if is_suspected else breaker


def dismiss(breaker: CircuitBreaker, _now: datetime) -> CircuitBreaker:
    """Return the breaker when a suspicion is dropped."""
    return _close(breaker)


def pause(breaker: CircuitBreaker, cause: Cause, now: datetime) -> CircuitBreaker:
    """Return the breaker when the primary asks for a pause."""
    if breaker.state in (BreakerState.PAUSED, BreakerState.OPEN):
        return breaker  # the other sessions met the same refusal
    step = min(breaker.failures, len(breaker.pauses) - 1)
    return replace(
        breaker,
        state=BreakerState.PAUSED,
        until=now + breaker.pauses[step],
        failures=breaker.failures + 1,
        cause=cause,
    )


def _open(
    breaker: CircuitBreaker, now: datetime, cause: Cause | None = None
) -> CircuitBreaker:
    cause = cause or breaker.cause
    if breaker.state is BreakerState.OPEN:
        return breaker
    wait = min(FIRST_PROBE * 2 ** min(breaker.failures, 10), LAST_PROBE)
    return replace(
        breaker,
        state=BreakerState.OPEN,
        until=now + wait,
        failures=breaker.failures + 1,
        cause=cause,
    )


def _close(breaker: CircuitBreaker) -> CircuitBreaker:
    return CircuitBreaker(pauses=breaker.pauses, scope=breaker.scope)
