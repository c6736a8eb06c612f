"""The way to a scope: closed while mail flows, open when the primary refuses us.

A scope is a route, or one recipient domain on it. Pure: every function takes the
gate and returns the next one; docs/refusals.md shows the states as a picture.

closed   mail flows
paused   nothing is tried for a while, then one session probes
probing  the canary asks (no DATA), or one real message at a time goes
open     nothing is tried before a timer that doubles, or a person, lets it probe

A refusal that is meant for us never judges a message (promise P4).
"""

import enum
from dataclasses import replace
from datetime import datetime, timedelta

from drainer.policy.classify.verdict import Judgement
from drainer.runtime.values import dataclass

MESSAGES_TO_TRY = 3
"""Real messages that probe, one at a time, before a gate opens."""
STOPS_TO_OPEN = 8
STOPS_TO_PAUSE = 5
"""The same after a message that was refused as if it were us, or put off.

More of them, in no order, because a stranger may have sent many such messages."""
FIRST_PROBE = timedelta(minutes=1)
LAST_PROBE = timedelta(hours=1)
"""An open gate probes again after FIRST_PROBE, doubled up to LAST_PROBE."""


class GateState(enum.StrEnum):
    """Closed: mail flows. Paused, open: nothing is tried. Probing: little is."""

    CLOSED = "closed"
    PAUSED = "paused"
    PROBING = "probing"
    OPEN = "open"


class Phase(enum.StrEnum):
    """What probes: the canary, or real messages."""

    CANARY = "canary"
    MESSAGES = "messages"


class Outcome(enum.StrEnum):
    """What the canary was told."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a gate moved."""

    #: early, stop, run, ratio, storm, contradiction (of an address known good), learnt
    trigger: str
    judgement: Judgement
    #: The primary's words, or the system's.
    reply: str
    sender_domain: str = ""
    fingerprint: str = ""
    #: The canary cannot see it, as it sends no content and is from another sender.
    blind: bool = False
    #: It is about contents: strangers' spam alone never opens the gate.
    content: bool = False
    #: The same message has met it before: it tells nothing new.
    again: bool = False

    @property
    def is_brief(self) -> bool:
        """Whether the primary wants a rest, and no person is needed."""
        return self.judgement.short or self.trigger == "storm"

    @property
    def is_of_xforward(self) -> bool:
        """Whether a command of ours was refused, and no command of a message."""
        return self.judgement.rule.startswith("forward-")

    @property
    def messages(self) -> int:
        """How many messages must be refused one at a time to confirm it."""
        if self.is_brief:
            return STOPS_TO_PAUSE
        return STOPS_TO_OPEN if self.trigger == "stop" else MESSAGES_TO_TRY


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The state of one scope's gate and how it came to it."""

    pauses: tuple[timedelta, ...]
    #: A recipient domain; '' is the route as a whole.
    scope: str = ""
    state: GateState = GateState.CLOSED
    phase: Phase = Phase.MESSAGES
    #: When a pause ends, or an open gate may probe.
    until: datetime | None = None
    #: Pauses, or probes that failed, without a success between them.
    failures: int = 0
    #: Messages that probed and were refused.
    tried: int = 0
    #: Whether it was open when it began to probe: then a message must be delivered.
    reopening: bool = False
    cause: Cause | None = None

    @property
    def flows(self) -> bool:
        """Whether mail flows."""
        return self.state is GateState.CLOSED


def refused_early(gate: Gate, cause: Cause, now: datetime) -> Gate:
    """Return the gate after a refusal or a loss before MAIL."""
    if cause.judgement.short:
        return pause(gate, cause, now)
    return _open(gate, now, cause)


def suspect(gate: Gate, cause: Cause, now: datetime) -> Gate:
    """Return the gate when refusals look as if they were meant for us."""
    if cause.trigger == "contradiction":
        return _open(gate, now, cause)
    if not gate.flows:
        return gate
    phase = Phase.MESSAGES if cause.blind else Phase.CANARY
    return replace(
        gate, state=GateState.PROBING, phase=phase, tried=0, until=None, cause=cause
    )


def refused(gate: Gate, now: datetime, cause: Cause | None = None) -> Gate:
    """Return the gate after a message that probed was refused, or put off.

    ``cause`` is why, if that is a refusal of us. A message that met one before says
    nothing new.
    """
    by_message = gate.state is GateState.PROBING and gate.phase is Phase.MESSAGES
    if not by_message or (cause is not None and cause.again):
        return gate
    gate = replace(gate, tried=gate.tried + 1)
    why = cause or gate.cause
    if gate.tried < (why.messages if why else MESSAGES_TO_TRY):
        return gate
    if cause is not None and cause.is_brief:
        return pause(gate, cause, now)
    content = why is not None and why.content
    return _close(gate) if content else _open(gate, now, cause)


def heard(gate: Gate) -> Gate:
    """Return the gate after a message got any reply of its own.

    That ends a pause for want of an answer: the primary answers again. After an
    open gate that is not enough.
    """
    waited = gate.cause is not None and gate.cause.judgement.short
    by_message = gate.state is GateState.PROBING and gate.phase is Phase.MESSAGES
    if by_message and waited and not gate.reopening:
        return _close(gate)
    return gate


def succeeded(gate: Gate) -> Gate:
    """Return the gate after a message was accepted.

    One that is open stays so: that message was under way before it opened. While
    the canary is out it stays, too: what it was suspected for is not answered yet.
    """
    idle = gate.flows and not gate.failures
    asked = gate.state is GateState.PROBING and gate.phase is Phase.CANARY
    if idle or asked or gate.state is GateState.OPEN:
        return gate
    return _close(gate)


def answered(gate: Gate, outcome: Outcome, reply: str, now: datetime) -> Gate:
    """Return the gate after the canary came back.

    When it was suspected and the canary is welcome, the refusals were individual.
    When it was open, or nobody knows an address that must exist, real messages go
    on probing; what canaries cannot see never opens a gate.
    """
    if gate.state is not GateState.PROBING or gate.phase is not Phase.CANARY:
        return gate
    if outcome is Outcome.REFUSED:
        cause = replace(gate.cause, reply=reply) if gate.cause else None
        return _open(gate, now, cause)
    if outcome is Outcome.ACCEPTED and not gate.reopening:
        return _close(gate)
    return replace(gate, phase=Phase.MESSAGES, tried=0)


def probe(gate: Gate, now: datetime) -> Gate:
    """Return the gate when somebody asks to pass: its time may have come."""
    if gate.until is None or now < gate.until:
        return gate
    if gate.state is GateState.PAUSED:
        return replace(gate, state=GateState.PROBING, phase=Phase.MESSAGES, tried=0)
    return recheck(gate)


def recheck(gate: Gate) -> Gate:
    """Return the gate when an open one is to probe now: a person says so."""
    if gate.state is not GateState.OPEN:
        return gate
    return replace(
        gate,
        state=GateState.PROBING,
        phase=Phase.CANARY,
        until=None,
        tried=0,
        reopening=True,
    )


def give_up(gate: Gate, now: datetime) -> Gate:
    """Return the gate when waiting for its pause would last too long."""
    return _open(gate, now) if gate.state is GateState.PAUSED else leave(gate, now)


def leave(gate: Gate, now: datetime) -> Gate:
    """Return the gate when a run ends: a suspicion that nobody answered opens it.

    A pause is no suspicion; the next run tries at once.
    """
    if gate.state is not GateState.PROBING or gate.cause is None:
        return gate
    if gate.cause.is_brief:
        return gate
    return _close(gate) if gate.cause.content else _open(gate, now)


def unanswered(gate: Gate, now: datetime) -> Gate:
    """Return the gate when a run ends, and the primary has accepted nothing ever."""
    is_suspected = gate.state is GateState.PROBING and gate.cause is not None
    return _open(gate, now) if is_suspected else gate


def dismiss(gate: Gate, _now: datetime) -> Gate:
    """Return the gate when a suspicion is dropped."""
    return _close(gate)


def pause(gate: Gate, cause: Cause, now: datetime) -> Gate:
    """Return the gate when the primary asks for a rest."""
    if gate.state in (GateState.PAUSED, GateState.OPEN):
        return gate  # the other sessions met the same
    step = min(gate.failures, len(gate.pauses) - 1)
    return replace(
        gate,
        state=GateState.PAUSED,
        until=now + gate.pauses[step],
        failures=gate.failures + 1,
        cause=cause,
    )


def _open(gate: Gate, now: datetime, cause: Cause | None = None) -> Gate:
    cause = cause or gate.cause
    if gate.state is GateState.OPEN:
        return gate
    wait = min(FIRST_PROBE * 2 ** min(gate.failures, 10), LAST_PROBE)
    return replace(
        gate,
        state=GateState.OPEN,
        until=now + wait,
        failures=gate.failures + 1,
        cause=cause,
    )


def _close(gate: Gate) -> Gate:
    return Gate(pauses=gate.pauses, scope=gate.scope)
