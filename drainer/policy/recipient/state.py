"""Every state of a recipient and every transition, as one table.

The ledger guards it with ``UPDATE ... WHERE state = old``. docs/states.md is generated
from it. A final state never changes, except that an operator may release or purge a
quarantined recipient, and requeue a delivered one that the primary has lost.
"""

import enum


class State(enum.StrEnum):
    """The state of one recipient of one message."""

    PENDING = "pending"
    IN_FLIGHT = "in-flight"
    DELIVERED = "delivered"
    DEFERRED = "deferred"
    UNKNOWN = "unknown"
    HELD = "held"
    BOUNCE_PENDING = "bounce-pending"
    BOUNCED = "bounced"
    QUARANTINED = "quarantined"
    DISCARDED = "discarded"


FINAL = frozenset((State.DELIVERED, State.BOUNCED, State.QUARANTINED, State.DISCARDED))
CLAIMABLE = (State.PENDING, State.DEFERRED, State.UNKNOWN)


class Event(enum.StrEnum):
    """What can happen to a recipient."""

    CLAIMED = "claimed while the circuit breaker is closed, or as its probe"
    DELIVER = "the primary accepted it"
    RETRY = "retry, retry-long, or lost before the final dot"
    STOP = "stop: the primary refuses us, not the message"
    DOUBT = "the connection was lost after the final dot, or its owner died"
    DOUBT_THRICE = "the connection was lost after the final dot for the third time"
    PROVEN = "the reserve of an ended run shows that the primary accepted it"
    HOLD = "hold: an operator must decide, or it cannot be sent unchanged"
    BOUNCE = "bounce, for the first time"
    BOUNCE_PERMITTED = "bounce confirmed, and the bounce rules permit the report"
    BOUNCE_REFUSED = "bounce confirmed, and the bounce rules refuse the report"
    BOUNCE_UNPROVEN = "bounce, without proof for the whole lifetime"
    BREAKER_OPENED = "the circuit breaker opened"
    REFUSED_BY_NODE = "only one host of the primary refuses it"
    GROUP_REFUSED = "the primary refuses all mail of its group"
    GROUP_PROBED = "a new drain tries one message of its group"
    GROUP_DELIVERED = "mail of its group was delivered"
    REROUTED = "its domain has another route now"
    CONFIRMATION_DUE = "due, and the breaker closed: the confirming attempt"
    APPROVED = "an operator approves, and the bounce rules permit the report"
    APPROVED_REFUSED = "an operator approves, and the bounce rules refuse the report"
    CANCELLED = "an operator cancels the bounce"
    SCAN_HELD = "a scan cannot distinguish it from another message"
    CENSUS_HELD = "a census finds that a list, or the primary, does not have it"
    PROBLEM_GONE = "a scan finds that its problem is gone"
    OPERATOR_HOLD = "an operator holds it"
    OPERATOR_REQUEUE = "an operator requeues it"
    OPERATOR_REPLAY = "an operator requeues it: the primary has lost it"
    OPERATOR_DISCARD = "an operator discards it"
    OPERATOR_RELEASE = "an operator releases it"
    OPERATOR_PURGE = "an operator purges it from the quarantine"


_S, _E = State, Event

TRANSITIONS: dict[tuple[State, Event], State] = {
    **{(state, _E.CLAIMED): _S.IN_FLIGHT for state in CLAIMABLE},
    (_S.IN_FLIGHT, _E.DELIVER): _S.DELIVERED,
    (_S.IN_FLIGHT, _E.RETRY): _S.DEFERRED,
    (_S.IN_FLIGHT, _E.STOP): _S.DEFERRED,
    (_S.IN_FLIGHT, _E.DOUBT): _S.UNKNOWN,
    (_S.IN_FLIGHT, _E.DOUBT_THRICE): _S.HELD,
    (_S.UNKNOWN, _E.PROVEN): _S.DELIVERED,
    (_S.HELD, _E.PROVEN): _S.DELIVERED,
    (_S.IN_FLIGHT, _E.PROVEN): _S.DELIVERED,
    (_S.IN_FLIGHT, _E.HOLD): _S.HELD,
    (_S.IN_FLIGHT, _E.BOUNCE): _S.BOUNCE_PENDING,
    (_S.IN_FLIGHT, _E.BOUNCE_PERMITTED): _S.BOUNCED,
    (_S.IN_FLIGHT, _E.BOUNCE_REFUSED): _S.QUARANTINED,
    (_S.IN_FLIGHT, _E.BOUNCE_UNPROVEN): _S.QUARANTINED,
    (_S.BOUNCE_PENDING, _E.BREAKER_OPENED): _S.DEFERRED,
    (_S.HELD, _E.BREAKER_OPENED): _S.DEFERRED,
    (_S.BOUNCE_PENDING, _E.REFUSED_BY_NODE): _S.DEFERRED,
    (_S.BOUNCE_PENDING, _E.GROUP_REFUSED): _S.HELD,
    (_S.HELD, _E.GROUP_PROBED): _S.PENDING,
    (_S.HELD, _E.GROUP_DELIVERED): _S.PENDING,
    (_S.BOUNCE_PENDING, _E.REROUTED): _S.DEFERRED,
    (_S.BOUNCE_PENDING, _E.CONFIRMATION_DUE): _S.DEFERRED,
    (_S.BOUNCE_PENDING, _E.APPROVED): _S.BOUNCED,
    (_S.BOUNCE_PENDING, _E.APPROVED_REFUSED): _S.QUARANTINED,
    (_S.BOUNCE_PENDING, _E.CANCELLED): _S.QUARANTINED,
    **{(state, _E.SCAN_HELD): _S.HELD for state in (_S.PENDING, _S.DEFERRED, _S.HELD)},
    **{(state, _E.CENSUS_HELD): _S.HELD for state in (_S.PENDING, _S.DEFERRED)},
    (_S.HELD, _E.PROBLEM_GONE): _S.PENDING,
    **{
        (state, event): to
        for state in (_S.PENDING, _S.DEFERRED, _S.UNKNOWN, _S.HELD, _S.BOUNCE_PENDING)
        for event, to in (
            (_E.OPERATOR_HOLD, _S.HELD),
            (_E.OPERATOR_REQUEUE, _S.PENDING),
            (_E.OPERATOR_DISCARD, _S.DISCARDED),
        )
        if state is not to
    },
    (_S.DELIVERED, _E.OPERATOR_REPLAY): _S.PENDING,
    (_S.HELD, _E.OPERATOR_RELEASE): _S.PENDING,
    (_S.QUARANTINED, _E.OPERATOR_RELEASE): _S.PENDING,
    (_S.QUARANTINED, _E.OPERATOR_PURGE): _S.DISCARDED,
}


def follow(state: State, event: Event) -> State:
    """Return the state that an event leads to; raise KeyError for an illegal one."""
    return TRANSITIONS[state, event]


def origins(event: Event) -> tuple[State, ...]:
    """Return the states in which an event is legal."""
    return tuple(state for state, known in TRANSITIONS if known is event)
