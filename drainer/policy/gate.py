"""The way to the primary: closed while mail flows, open when it refuses us.

Pure: every function takes the gate and returns the next one. A refusal that is
meant for us never judges a message (promise P4); it pauses the route, and opens
the gate when waiting does not help or when it is said to several senders.
"""

import enum
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from drainer.policy.verdict import Judgement, Verdict

STOPS_TO_OPEN = 3
"""Refusals of us in a row, whoever the senders are; two when they differ."""


class GateState(enum.StrEnum):
    """Closed: mail flows. Paused: nothing is tried. Probing: one session is."""

    CLOSED = "closed"
    PAUSED = "paused"
    PROBING = "probing"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The state of the route's gate and how it came to it."""

    pauses: tuple[timedelta, ...]
    state: GateState = GateState.CLOSED
    #: End of the pause.
    until: datetime | None = None
    #: Pauses without a success between them.
    failures: int = 0
    #: Sender domains of the messages that met a refusal of us, in a row.
    stopped: tuple[str, ...] = ()
    judgement: Judgement | None = None
    reply: str = ""


def refused_early(gate: Gate, judgement: Judgement, reply: str, now: datetime) -> Gate:
    """Return the gate after a refusal or a loss before MAIL."""
    if judgement.short:
        return _pause(gate, judgement, reply, now)
    return replace(gate, state=GateState.OPEN, judgement=judgement, reply=reply)


def stopped(
    gate: Gate, judgement: Judgement, reply: str, *, sender_domain: str, now: datetime
) -> Gate:
    """Return the gate after a message met a `stop` from MAIL on.

    One message alone never opens it, or a spammer could.
    """
    if judgement.short:
        return _pause(gate, judgement, reply, now)
    met = (*gate.stopped, sender_domain)
    gate = replace(gate, stopped=met, judgement=judgement, reply=reply)
    if len(met) >= STOPS_TO_OPEN or len(set(met)) > 1:
        return replace(gate, state=GateState.OPEN)
    return gate


def succeeded(gate: Gate) -> Gate:
    """Return the gate after a message was accepted.

    One that is open stays so: that message was under way before it opened.
    """
    idle = gate.state is GateState.CLOSED and not (gate.failures or gate.stopped)
    if idle or gate.state is GateState.OPEN:
        return gate
    return Gate(pauses=gate.pauses)


def probe(gate: Gate, now: datetime) -> Gate:
    """Return the gate when a session asks to pass: a pause may be over."""
    over = gate.until is not None and now >= gate.until
    if gate.state is GateState.PAUSED and over:
        return replace(gate, state=GateState.PROBING)
    return gate


def give_up(gate: Gate) -> Gate:
    """Return the gate when waiting has lasted too long."""
    return replace(gate, state=GateState.OPEN)


def _pause(gate: Gate, judgement: Judgement, reply: str, now: datetime) -> Gate:
    if gate.state in (GateState.PAUSED, GateState.OPEN):
        return gate  # the other sessions met the same
    step = min(gate.failures, len(gate.pauses) - 1)
    return replace(
        gate,
        state=GateState.PAUSED,
        until=now + gate.pauses[step],
        failures=gate.failures + 1,
        judgement=judgement,
        reply=reply,
    )


def is_stop(judgement: Judgement) -> bool:
    """Whether a judgement concerns the gate."""
    return judgement.verdict is Verdict.STOP
