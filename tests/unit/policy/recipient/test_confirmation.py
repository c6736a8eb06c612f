"""A refusal is final when the same comes again, later, from a well primary; never else.

And what a recipient takes along from one attempt to the next.
"""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from drainer.mail.reply import Stage
from drainer.policy.bounce.decision import BounceAnswer, BounceDecision
from drainer.policy.breaker.brake import USUAL_BRAKE
from drainer.policy.breaker.breaker import BreakerState, CircuitBreaker
from drainer.policy.breaker.history import ROUTE
from drainer.policy.breaker.registry import BreakerRegistry
from drainer.policy.recipient.delivery import ClaimedRecipient, Delivery
from drainer.policy.recipient.judge import BouncePermit, ClassifiedResult
from drainer.policy.recipient.settle import Settlement
from drainer.policy.recipient.state import State
from tests.support.scenarios.settlements import (
    BOB,
    NOW,
    PAUSES,
    SCHEDULE,
    result,
    scopes,
    settled,
)

UNKNOWN, RULE = "550 5.1.1 User unknown", "enhanced-5.1.1"
CONFIRM_AFTER, SECOND = SCHEDULE.confirm_after, timedelta(seconds=1)
ORG = "example.org"
REFUSED = ClaimedRecipient(
    n=0, recipient=BOB, state=State.DEFERRED, attempts=1, refusal=RULE, refused=NOW
)
LATER = NOW + CONFIRM_AFTER


def well(since: datetime = NOW + SECOND) -> BreakerRegistry:
    """Return breakers of a primary that accepted other mail at that time."""
    found = scopes()
    found.recall(ORG, "other.example", since)
    return found


def braked() -> BreakerRegistry:
    """Return breakers with the brake on."""
    found = well()
    found.pending.start(USUAL_BRAKE, pending=6, handled=12)
    return found


def gated(state: BreakerState, scope: str) -> BreakerRegistry:
    """Return breakers of which one is in this state."""
    found = well()
    found.restore(CircuitBreaker(pauses=PAUSES, scope=scope, state=state))
    return found


def again(
    text: str = UNKNOWN, claimed: ClaimedRecipient = REFUSED, **circumstances: Any
) -> Settlement:
    """Settle the confirming attempt, by default with all that it needs."""
    usual: dict[str, Any] = {"now": LATER, "breakers": well(), "kept": True}
    one = result(text, claimed=claimed)
    (found,) = settled([one], **(usual | circumstances))
    return found


def test_a_refusal_that_is_confirmed_is_final() -> None:
    """It is quarantined: nobody is told until somebody proves who sent it."""
    found = again()
    assert (found.state, found.due, found.attempts) == (State.QUARANTINED, None, 2)


NEEDS: dict[str, dict[str, Any]] = {
    "a first refusal": {"claimed": replace(REFUSED, refusal="", refused=None)},
    "the same rule": {"text": "550 5.2.1 Disabled"},
    "the same rule, not its words alone": {"text": "550 User unknown"},
    "a time of the first": {"claimed": replace(REFUSED, refused=None)},
    "the confirmation delay": {"now": LATER - SECOND},
    "a copy": {"kept": False},
    "no brake": {"breakers": braked()},
    "others": {"breakers": scopes()},
    "others since then": {"breakers": well(NOW)},
    "a route that flows": {"breakers": gated(BreakerState.PAUSED, ROUTE)},
    "a domain that flows": {"breakers": gated(BreakerState.PAUSED, ORG)},
}


@pytest.mark.parametrize("missing", NEEDS.values(), ids=list(NEEDS))
def test_without_one_of_its_needs_it_rests_again(missing: dict[str, Any]) -> None:
    """For another delay."""
    found = again(**missing)
    assert found.state is State.BOUNCE_PENDING
    now = missing.get("now", LATER)
    assert found.due == now + CONFIRM_AFTER


@pytest.mark.parametrize("scope", [ROUTE, ORG])
def test_a_suspicion_costs_a_refusal_no_second_delay(scope: str) -> None:
    """It is ripe at once, for the next drain; what has not rested yet rests."""
    probing = gated(BreakerState.HALF_OPEN, scope)
    found = again(breakers=probing)
    assert (found.state, found.due) == (State.BOUNCE_PENDING, LATER)
    soon = again(breakers=probing, now=LATER - SECOND)
    assert soon.due == LATER - SECOND + CONFIRM_AFTER
    other = again("550 5.2.1 Disabled", breakers=probing)
    assert other.due == LATER + CONFIRM_AFTER


def test_a_listed_recipient_is_never_absent_by_the_primary_alone() -> None:
    """A list has it: the refusal stays pending, and is never proven."""
    listed = {BOB.forward_path: "/etc/users"}.get
    found = again(listed=lambda path: listed(path, ""))
    assert found.state is State.BOUNCE_PENDING
    assert "/etc/users" in found.classification.reason
    assert found.classification.rule == RULE
    vouched = again(listed=lambda _path: "/etc/users", vouched=(ORG,))
    assert vouched.state is State.BOUNCE_PENDING
    late = replace(REFUSED, spent=timedelta(days=9))
    spent = again(claimed=late, listed=lambda _path: "/etc/users")
    assert spent.state is State.QUARANTINED
    assert spent.permit is None
    assert again(listed=lambda _path: "").state is State.QUARANTINED


def test_a_recipient_that_was_accepted_before_is_never_absent() -> None:
    """It was delivered to within 30 days; nothing proves the refusal."""
    breakers = well()
    breakers.known.load([BOB.forward_path])
    breakers.known.forget(BOB.forward_path)
    found = again(breakers=breakers, vouched=(ORG,))
    assert found.state is State.BOUNCE_PENDING
    assert "within 30 days" in found.classification.reason
    breakers.known.learn(BOB.forward_path, ORG)
    assert again(breakers=breakers).state is State.QUARANTINED


def test_a_list_says_nothing_about_other_refusals() -> None:
    """The recipient exists, and takes no mail from this sender."""
    claimed = replace(REFUSED, refusal="enhanced-5.7.2")
    text = "550 5.7.2 the list is closed"
    found = again(text, claimed, listed=lambda _path: "/etc/users")
    assert found.state is again(text, claimed).state


def test_the_clock_of_the_same_refusal_runs_on() -> None:
    """Another refusal starts its own."""
    same = again(kept=False)
    assert (same.refusal, same.refused) == (RULE, NOW)
    other = again("550 5.2.1 Disabled")
    assert (other.refusal, other.refused) == ("enhanced-5.2.1", LATER)


@pytest.mark.parametrize("text", ["450 4.2.0 busy", "421 bye", "452 4.2.2 full"])
def test_a_delay_keeps_what_was_refused(text: str) -> None:
    """The next attempt may confirm it: nothing else was said since."""
    found = again(text)
    assert found.state is State.DEFERRED
    assert (found.refusal, found.refused) == (RULE, NOW)


def test_a_refusal_of_us_takes_its_place() -> None:
    """Then the message's own is not known any more."""
    found = again("530 5.7.0 log in")
    assert (found.refusal, found.refused) == ("stop", LATER)
    twice = replace(REFUSED, refusal="stop")
    assert again("530 5.7.0 log in", twice, breakers=scopes()).refused == NOW


@pytest.mark.parametrize("scope", [ROUTE, ORG])
def test_a_refusal_that_everybody_meets_is_nobodys(scope: str) -> None:
    """Once the breaker is open, this message has met nothing of its own."""
    found = again("530 5.7.0 log in", breakers=gated(BreakerState.OPEN, scope))
    assert (found.refusal, found.refused) == ("", None)


def test_a_brief_stop_while_mail_flows_is_this_messages() -> None:
    """After 421 it goes alone, and makes no breaker suspicious any more."""
    fresh = ClaimedRecipient(n=0, recipient=BOB)
    found = again("421 bye", fresh)
    assert (found.refusal, found.refused, found.attempts) == ("stop", LATER, 1)


def test_a_delivery_ends_it_all() -> None:
    """The recipient had been refused by mistake."""
    one = result("250 ok", Stage.DOT, claimed=REFUSED)
    (found,) = settled([one], now=LATER)
    assert (found.state, found.refusal, found.attempts) == (State.DELIVERED, "", 2)


def test_delays_add_up_while_the_primary_answers() -> None:
    """Retries and confirmation delays count: no stop, no hold, no delivery."""
    waited = ClaimedRecipient(n=0, recipient=BOB, attempts=1, spent=timedelta(hours=2))
    assert again("450 x", waited).spent == waited.spent + timedelta(minutes=2)
    assert again("452 4.2.2 full", waited).spent == waited.spent + 2 * CONFIRM_AFTER
    assert again(UNKNOWN, waited).spent == waited.spent + CONFIRM_AFTER
    for text in ("530 x", "550 5.4.6 loop"):
        assert again(text, waited).spent == waited.spent


@pytest.mark.parametrize(
    ("refusal", "confirms"), [(RULE, True), ("", False), ("stop", False)]
)
def test_a_copy_is_made_for_what_may_become_final(
    refusal: str, *, confirms: bool
) -> None:
    """A refusal of us never does."""
    claimed = (
        ClaimedRecipient(n=0, recipient=BOB),
        replace(REFUSED, n=1, refusal=refusal),
    )
    message: Any = None  # it plays no part
    assert Delivery(message=message, seq=1, claimed=claimed).confirms is confirms


TEXTS = st.sampled_from(
    [UNKNOWN, "550 no", "554 5.7.1 spam", "450 x", "421 x", "530 x", "550 5.4.6 loop"]
)


@given(
    TEXTS,
    st.sampled_from([Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT]),
    st.sampled_from(
        [BreakerState.PAUSED, BreakerState.HALF_OPEN, BreakerState.OPEN]
    ).flatmap(lambda state: st.sampled_from([gated(state, ROUTE), gated(state, ORG)])),
    st.sampled_from(["", RULE, "stop", "basic-550", "text-content"]),
    st.integers(0, 10**6),
)
def test_nothing_is_final_behind_a_breaker(
    text: str, stage: Stage, breakers: BreakerRegistry, refusal: str, late: int
) -> None:
    """Whatever was said before, and however long ago."""
    claimed = replace(REFUSED, refusal=refusal, refused=NOW if refusal else None)
    now = NOW + timedelta(seconds=late)
    one = result(text, stage, claimed=claimed)
    (found,) = settled([one], now=now, breakers=breakers, kept=True)
    assert found.state in (State.DEFERRED, State.BOUNCE_PENDING, State.HELD)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (BounceAnswer.SEND, State.BOUNCED),
        (BounceAnswer.NO, State.QUARANTINED),
        (BounceAnswer.NEVER, State.QUARANTINED),
        (BounceAnswer.LATER, State.BOUNCE_PENDING),
    ],
)
def test_the_bounce_rules_decide_who_is_notified(
    answer: BounceAnswer, state: State
) -> None:
    """It is asked only about what is confirmed, and what it says is kept."""
    decision = BounceDecision(answer=answer, rule="G0", reason="x", evidence={})
    asked: list[str] = []

    def permit(each: ClassifiedResult) -> BouncePermit:
        asked.append(each.classification.rule)
        return BouncePermit(decision=decision)

    assert again(kept=False, permit=permit).permit is None
    assert asked == []
    found = again(permit=permit)
    assert (found.state, found.permit) == (state, BouncePermit(decision=decision))
    assert asked == [RULE]
