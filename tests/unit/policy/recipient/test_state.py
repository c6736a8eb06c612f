"""The table of states: every pair of state and event, and what is final."""

import pytest

from drainer.policy.recipient.state import (
    CLAIMABLE,
    FINAL,
    TRANSITIONS,
    Event,
    State,
    follow,
    origins,
)
from tests.support.rows import every_row

P, F, D, L = State.PENDING, State.IN_FLIGHT, State.DELIVERED, State.DEFERRED
U, H, B = State.UNKNOWN, State.HELD, State.BOUNCE_PENDING
X, Q, G = State.BOUNCED, State.QUARANTINED, State.DISCARDED

#: For each event, where it leads from which state: all that is legal.
TABLE: dict[Event, dict[State, State]] = {
    Event.CLAIMED: {P: F, L: F, U: F},
    Event.DELIVER: {F: D},
    Event.RETRY: {F: L},
    Event.STOP: {F: L},
    Event.DOUBT: {F: U},
    Event.DOUBT_THRICE: {F: H},
    Event.PROVEN: {F: D, U: D, H: D},
    Event.HOLD: {F: H},
    Event.BOUNCE: {F: B},
    Event.BOUNCE_PERMITTED: {F: X},
    Event.BOUNCE_REFUSED: {F: Q},
    Event.BOUNCE_UNPROVEN: {F: Q},
    Event.BREAKER_OPENED: {B: L, H: L},
    Event.REFUSED_BY_NODE: {B: L},
    Event.REROUTED: {B: L},
    Event.GROUP_REFUSED: {B: H},
    Event.GROUP_PROBED: {H: P},
    Event.GROUP_DELIVERED: {H: P},
    Event.CONFIRMATION_DUE: {B: L},
    Event.APPROVED: {B: X},
    Event.APPROVED_REFUSED: {B: Q},
    Event.CANCELLED: {B: Q},
    Event.SCAN_HELD: {P: H, L: H, H: H},
    Event.CENSUS_HELD: {P: H, L: H},
    Event.PROBLEM_GONE: {H: P},
    Event.OPERATOR_HOLD: {P: H, L: H, U: H, B: H},
    Event.OPERATOR_REQUEUE: {L: P, U: P, H: P, B: P},
    Event.OPERATOR_REPLAY: {D: P},
    Event.OPERATOR_DISCARD: {P: G, L: G, U: G, H: G, B: G},
    Event.OPERATOR_RELEASE: {H: P, Q: P},
    Event.OPERATOR_PURGE: {Q: G},
}


def test_the_table_of_this_test_has_every_event() -> None:
    """A new event must be decided on here as well."""
    assert set(TABLE) == set(Event)


@every_row((state, event) for state in State for event in Event)
def test_a_pair_of_state_and_event(state: State, event: Event) -> None:
    """It leads where the table says; any other pair is an error of ours."""
    if state in TABLE[event]:
        assert follow(state, event) is TABLE[event][state]
    else:
        with pytest.raises(KeyError):
            follow(state, event)


@every_row(Event)
def test_origins_are_the_states_that_an_event_may_meet(event: Event) -> None:
    """What the operator's verbs may touch is the same table."""
    assert set(origins(event)) == set(TABLE[event])


def test_four_states_are_final() -> None:
    """Delivered, bounced, quarantined, discarded: only then may a spool let go."""
    assert {D, X, Q, G} == FINAL


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_state_is_left_only_by_an_operator(state: State) -> None:
    """From the quarantine, or to replay what was delivered; nothing else goes on."""
    left = {event for known, event in TRANSITIONS if known is state}
    allowed = {
        Q: {Event.OPERATOR_RELEASE, Event.OPERATOR_PURGE},
        D: {Event.OPERATOR_REPLAY},
    }
    assert left == allowed.get(state, set())


def test_every_state_can_be_reached_and_every_other_one_can_end() -> None:
    """Nothing is stuck: from every state that is not final a final one can be reached."""  # noqa: E501
    reached, ends = {P, H}, set(FINAL)
    for _ in State:
        reached |= {to for (state, _), to in TRANSITIONS.items() if state in reached}
        ends |= {state for (state, _), to in TRANSITIONS.items() if to in ends}
    assert reached == set(State)
    assert ends == set(State)


def test_only_what_waits_for_an_attempt_is_claimable() -> None:
    """Pending, deferred and unknown; never held, bounce-pending, final or in flight."""
    assert set(CLAIMABLE) == {P, L, U}
    assert set(CLAIMABLE) == set(TABLE[Event.CLAIMED])


def test_unknown_never_leads_to_a_bounce() -> None:
    """It may have been delivered: no event takes it towards a report."""
    towards = {to for (state, _), to in TRANSITIONS.items() if state is U}
    assert not towards & {B, X, Q}
