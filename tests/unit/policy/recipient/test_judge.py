"""What an ending means in the light of everything else: each reconsideration."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from drainer.mail.envelope import Recipient
from drainer.mail.message import BEHIND_BREAKER, Problem
from drainer.mail.reply import Lost, Stage, parse_reply
from drainer.policy.breaker.breaker import BreakerState, CircuitBreaker
from drainer.policy.breaker.history import ROUTE, TRIED_ELSEWHERE
from drainer.policy.breaker.registry import BreakerRegistry
from drainer.policy.classify.classifier import Answer
from drainer.policy.classify.rules import rules_of
from drainer.policy.classify.verdict import Scope, Verdict
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.policy.recipient.judge import (
    BY_NODE,
    CONTRADICTED,
    MAX_DROPS,
    MAX_SOLO,
)
from drainer.policy.recipient.settle import FAR, ROUTE_WAITS, SECOND_LOOK, Settlement
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

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
LATER = NOW + 2 * HOUR
GONE = Lost(reason="closed")
LISTED = "554 5.7.1 Client host [192.0.2.7] blocked using bl.example"
ORG = "example.org"


def claim(**facts: Any) -> ClaimedRecipient:
    """Return Bob with a history."""
    return replace(ClaimedRecipient(n=0, recipient=BOB), **facts)


def alone(
    answer: Answer | str,
    stage: Stage = Stage.RCPT,
    claimed: ClaimedRecipient | None = None,
    **circumstances: Any,
) -> Settlement:
    """Settle one recipient."""
    (found,) = settled([result(answer, stage, claimed=claimed)], **circumstances)
    return found


def behind(
    state: BreakerState, scope: str = ROUTE, until: datetime | None = None
) -> Any:
    """Return breakers of which one is in this state."""
    found = scopes()
    found.restore(CircuitBreaker(pauses=PAUSES, scope=scope, state=state, until=until))
    return found


# ---- in doubt


def test_what_may_have_arrived_before_is_held_rather_than_refused() -> None:
    """The refusal may mean just that: "duplicate"."""
    found = alone("554 5.6.0 duplicate", Stage.DOT, claim(doubts=1))
    assert (found.state, found.classification.rule) == (State.HELD, "refused-in-doubt")
    assert alone("554 5.6.0 duplicate", Stage.DOT).state is State.BOUNCE_PENDING


# ---- poison


@pytest.mark.parametrize(
    ("answer", "stage", "drops"),
    [
        (GONE, Stage.BODY, 1),
        (Lost(reason="timeout"), Stage.BODY, 1),
        ("421 4.3.0 bye", Stage.DOT, 1),
        ("451 4.3.0 later", Stage.DOT, 0),
        (GONE, Stage.DOT, 0),  # in doubt: that is counted as such
        (GONE, Stage.DATA, 0),
        (GONE, Stage.RCPT, 0),
        ("421 4.3.0 bye", Stage.RCPT, 0),
        ("554 5.7.1 early", Stage.BODY, 0),
    ],
)
def test_a_session_that_ends_right_after_the_content_is_a_drop(
    answer: Answer | str, stage: Stage, drops: int
) -> None:
    """It is counted, and the third one holds the message."""
    first = alone(answer, stage)
    assert first.drops == drops
    third = alone(answer, stage, claim(drops=MAX_DROPS - 1))
    assert (third.classification.rule == "poison") is bool(drops)
    assert (third.state is State.HELD) is bool(drops)
    assert MAX_DROPS == 3


# ---- refused together


def refused_at_dot(count: int, text: str = "554 5.7.1 no", **facts: Any) -> list[Any]:
    """Return the endings of a message whose recipients share a refusal."""
    those = [Recipient(forward_path=f"u{n}@{ORG}") for n in range(count)]
    return [
        result(text, Stage.DOT, claimed=ClaimedRecipient(n=n, recipient=to, **facts))
        for n, to in enumerate(those)
    ]


def test_who_is_refused_together_is_tried_alone_at_once() -> None:
    """One's filter may have refused for all; it costs no attempt."""
    found = settled(refused_at_dot(3))
    assert {each.classification.rule for each in found} == {"dot-shared"}
    assert {each.state for each in found} == {State.DEFERRED}
    assert all(each.solo and each.due == NOW and not each.attempts for each in found)
    assert {each.refusal for each in found} == {""}


@pytest.mark.parametrize(
    "text", ["554 Too many recipients", "552 5.5.3 no", "452 4.5.3 Too many recipients"]
)
def test_too_many_recipients_at_the_dot_are_tried_alone(text: str) -> None:
    """Fewer in one transaction are no failure; one alone waits for its time."""
    found = settled(refused_at_dot(3, text))
    assert {each.classification.rule for each in found} == {"dot-shared"}
    assert all(each.solo and each.due == NOW and not each.attempts for each in found)
    (alone,) = settled(refused_at_dot(1, text, solo=True))
    assert (alone.state, alone.attempts) == (State.DEFERRED, 1)


def test_who_was_tried_alone_is_judged() -> None:
    """Once is enough."""
    (found,) = settled(refused_at_dot(1, solo=True))
    assert (found.state, found.solo) == (State.BOUNCE_PENDING, True)
    both = settled(refused_at_dot(2, solo=True))
    assert {each.state for each in both} == {State.BOUNCE_PENDING}


def test_only_twenty_are_tried_alone() -> None:
    """A list of thousands does not become thousands of transactions."""
    found = settled(refused_at_dot(MAX_SOLO + 5))
    assert [each.solo for each in found] == [True] * 20 + [False] * 5
    assert {each.state for each in found[20:]} == {State.BOUNCE_PENDING}


def test_one_that_was_refused_at_rcpt_has_no_share_in_the_dot() -> None:
    """It alone was accepted, so that the refusal is its own."""
    own = result("550 5.1.1 no", claimed=ClaimedRecipient(n=0, recipient=BOB))
    found = settled([own, *refused_at_dot(1)])
    assert [each.solo for each in found] == [False, False]
    assert {each.state for each in found} == {State.BOUNCE_PENDING}


def test_what_is_not_refused_for_good_is_not_parted() -> None:
    """They stay together in one transaction."""
    found = settled(refused_at_dot(3, "451 4.7.1 later"))
    assert [each.solo for each in found] == [False] * 3


# ---- expired


@pytest.mark.parametrize(
    ("text", "spent", "expired"),
    [
        ("450 4.2.0 busy", SCHEDULE.lifetime, True),
        ("450 4.2.0 busy", SCHEDULE.lifetime - timedelta(minutes=1), False),
        ("452 4.2.2 full", SCHEDULE.quota, True),
        ("452 4.2.2 full", SCHEDULE.quota - HOUR, False),
        ("530 5.7.0 log in", 10 * SCHEDULE.lifetime, False),
    ],
)
def test_what_has_waited_its_time_is_refused(
    text: str, spent: timedelta, *, expired: bool
) -> None:
    """The delays count while the primary answers us, not the days of an outage."""
    found = alone(text, claimed=claim(spent=spent))
    assert (found.classification.rule == "lifetime-spent") is expired
    state = State.BOUNCE_PENDING if expired else State.DEFERRED
    assert found.state is state
    if expired:
        assert found.classification.reason.startswith("4.4.7 ")
        assert found.refusal == "lifetime-spent"


def test_too_many_recipients_never_expires() -> None:
    """It is our own transaction that was too large."""
    one = result("452 x", accepted=1, claimed=claim(spent=10 * SCHEDULE.lifetime))
    assert settled([one])[0].classification.rule == "rcpt-too-many"


def test_what_expired_and_is_busy_still_is_confirmed() -> None:
    """By the same rule, though the words may differ."""
    claimed = claim(
        spent=SCHEDULE.lifetime, refusal="lifetime-spent", refused=NOW - HOUR
    )
    breakers = scopes()
    breakers.recall(ORG, "other.example", NOW)
    found = alone("450 4.2.1 again", claimed=claimed, breakers=breakers, kept=True)
    assert found.state is State.QUARANTINED


# ---- behind a breaker


@pytest.mark.parametrize(
    ("scope", "waits", "said"),
    [(ROUTE, ROUTE_WAITS, Scope.ROUTE), (ORG, ORG, Scope.DOMAIN)],
)
def test_while_everybody_is_refused_nobody_is_judged(
    scope: str, waits: str, said: Scope
) -> None:
    """It waits for that breaker, and has met no refusal."""
    before = claim(refusal="enhanced-5.1.1", refused=NOW - HOUR)
    breakers = behind(BreakerState.OPEN, scope)
    found = alone("550 5.1.1 no", claimed=before, breakers=breakers, kept=True)
    assert (found.state, found.classification.rule) == (State.DEFERRED, "breaker-open")
    assert (found.waits, found.classification.scope) == (waits, said)
    assert found.due == NOW + FAR
    assert (found.refusal, found.refused, found.attempts) == ("", None, 0)


@pytest.mark.parametrize("state", [BreakerState.HALF_OPEN, BreakerState.PAUSED])
def test_a_breaker_that_is_only_suspected_holds_no_judgement_back(
    state: BreakerState,
) -> None:
    """It waits for confirmation; should the breaker open, that is taken back."""
    found = alone("550 5.1.1 no", breakers=behind(state))
    assert (found.state, found.refusal) == (State.BOUNCE_PENDING, "enhanced-5.1.1")


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (parse_reply(b"550 5.7.23 SPF fail"), State.DEFERRED),
        (Problem(code="unreadable", detail="gone"), State.HELD),
    ],
)
def test_no_reply_holds_a_message_behind_an_open_breaker(
    answer: Answer, state: State
) -> None:
    """The primary says it to everybody; a problem of the message stays one."""
    assert alone(answer, breakers=behind(BreakerState.OPEN)).state is state


def test_a_message_that_was_not_tried_waits_for_its_breaker() -> None:
    """The primary was not asked about it."""
    problem = Problem(code=BEHIND_BREAKER, detail=LISTED)
    found = alone(problem, breakers=behind(BreakerState.OPEN, ORG))
    assert (found.state, found.waits, found.attempts) == (State.DEFERRED, ORG, 0)
    assert found.reply == LISTED


@pytest.mark.parametrize(
    ("until", "due"), [(None, NOW + SCHEDULE.first), (NOW + HOUR, NOW + HOUR)]
)
def test_what_meets_a_breaker_that_probes_waits_for_it(
    until: datetime | None, due: datetime
) -> None:
    """Until it may probe, or for the first delay."""
    breakers = behind(BreakerState.PAUSED, ORG, until)
    found = alone("530 5.7.0 log in", breakers=breakers)
    assert (found.waits, found.due) == (ORG, due)


# ---- alone among others


def stopped_before(since: datetime = NOW) -> ClaimedRecipient:
    """Return Bob, whose message was refused as if it were us."""
    return claim(refusal=Verdict.STOP.value, refused=since)


def welcoming(at: datetime) -> BreakerRegistry:
    """Return breakers that know of an accepted canary."""
    found = scopes()
    found.on_accepted(ROUTE, at)
    found.on_accepted(ORG, at)
    return found


def test_the_one_that_is_refused_as_if_it_were_us_is_held() -> None:
    """Others were welcome since; the spammer's words stop nothing.

    Before that, three more connections may reach another host.
    """
    breakers = welcoming(NOW + SECOND)
    for n in range(TRIED_ELSEWHERE):
        now = NOW + (n + 2) * SECOND
        for claimed in [stopped_before()] * 2:  # those of one attempt count once
            found = alone(LISTED, claimed=claimed, breakers=breakers, now=now)
            assert (found.state, found.due) == (State.DEFERRED, now)
            assert (found.classification.rule, found.attempts) == (BY_NODE, 0)
            assert (found.refusal, found.refused) == (Verdict.STOP.value, NOW)
    now = NOW + (TRIED_ELSEWHERE + 2) * SECOND
    found = alone(LISTED, claimed=stopped_before(), breakers=breakers, now=now)
    assert (found.state, found.classification.rule) == (State.HELD, CONTRADICTED)
    found = alone(LISTED, claimed=stopped_before(), breakers=welcoming(now), now=LATER)
    assert found.state is State.HELD  # long after the first refusal


def test_a_message_that_a_breaker_kept_is_not_held_as_the_only_one_refused() -> None:
    """It was not sent, so nothing contradicts its earlier refusal."""
    breakers = welcoming(NOW + SECOND)
    problem = Problem(code=BEHIND_BREAKER, detail=LISTED)
    found = alone(problem, claimed=stopped_before(), breakers=breakers, now=LATER)
    assert found.state is State.DEFERRED


@pytest.mark.parametrize(
    ("claimed", "welcome"),
    [
        (claim(), LATER),  # for the first time
        (stopped_before(LATER), NOW),  # nobody since
        (claim(refusal="stop"), LATER),
        (claim(refusal="enhanced-5.1.1", refused=NOW), LATER),
    ],
)
def test_it_is_not_held_before_others_were_welcome(
    claimed: ClaimedRecipient, welcome: datetime
) -> None:
    """Until then it may well be us."""
    found = alone(LISTED, claimed=claimed, breakers=welcoming(welcome), now=LATER)
    assert found.state is State.DEFERRED
    assert found.refusal == "stop"


def test_a_brief_stop_holds_nothing() -> None:
    """421 may come at any moment (RFC 5321 3.8); it is an attempt like others."""
    breakers = welcoming(NOW + SECOND)
    found = alone("421 bye", claimed=stopped_before(), breakers=breakers, now=LATER)
    assert found.state is State.DEFERRED
    assert (found.classification.verdict, found.attempts) == (Verdict.RETRY, 1)


@pytest.mark.parametrize("text", ["421 bye", "450 4.7.1 Too many connections"])
def test_a_brief_stop_that_makes_the_breaker_suspicious_is_no_attempt(
    text: str,
) -> None:
    """It may be meant for us, so the message waits for the breaker."""
    found = alone(text, breakers=behind(BreakerState.HALF_OPEN, ORG))
    assert (found.classification.verdict, found.attempts) == (Verdict.STOP, 0)
    assert found.waits == ORG


@pytest.mark.parametrize("stage", [Stage.DATA, Stage.BODY, Stage.DOT])
def test_a_canary_contradicts_no_stop_behind_rcpt(stage: Stage) -> None:
    """It sends no content; a delivery speaks for every stage."""
    breakers = welcoming(NOW + SECOND)
    first = result(LISTED, stage, claimed=stopped_before())
    (found,) = settled([first], breakers=breakers, now=LATER)
    assert found.state is State.DEFERRED
    breakers.recall(ORG, "any.example", NOW + SECOND)
    for n in range(TRIED_ELSEWHERE + 1):
        (found,) = settled([first], breakers=breakers, now=LATER + n * SECOND)
    assert (found.state, found.classification.rule) == (State.HELD, CONTRADICTED)
    assert "drainer release" in found.classification.reason


def test_a_message_that_is_refused_as_if_it_were_us_comes_back_soon() -> None:
    """The second attempt decides, and the drain waits for it."""
    found = alone(LISTED)
    assert found.due is not None
    assert found.due <= NOW + SECOND_LOOK


def test_the_operators_rules_judge_first() -> None:
    """This server says 550 for later."""
    row = {"id": "theirs", "when": ["not today"], "permanent": "retry"}
    (found,) = settled([result("550 5.1.1 Not today")], rules_of([row]))
    assert (found.state, found.classification.rule) == (State.DEFERRED, "text-theirs")
