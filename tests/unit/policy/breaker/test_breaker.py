"""The breaker of a route: what pauses it, what opens it, and that nothing else does."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from drainer.mail.reply import Lost, Stage, parse_reply
from drainer.policy.breaker import breaker as breakers
from drainer.policy.breaker.breaker import (
    BreakerState,
    CanaryOutcome,
    Cause,
    CircuitBreaker,
    Phase,
)
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.verdict import Classification

NOW = datetime(2026, 11, 23, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CLOSED = CircuitBreaker(pauses=(MINUTE, 2 * MINUTE, 5 * MINUTE))
SHORT = classify(Lost(reason="closed"), Stage.CONNECT)
ALERT = classify(parse_reply(b"554 no"), Stage.BANNER)
STOP = classify(parse_reply(b"530 5.7.0 log in"), Stage.MAIL)
CLOSING = classify(parse_reply(b"421 bye"), Stage.MAIL)


def cause(
    classification: Classification, domain: str = "", *, content: bool = False
) -> Cause:
    """Return why a breaker moves."""
    return Cause(
        trigger="run" if content else "stop",
        classification=classification,
        reply="x",
        sender_domain=domain,
        content=content,
    )


def early(
    breaker: CircuitBreaker, classification: Classification, now: datetime = NOW
) -> CircuitBreaker:
    """Meet a refusal before MAIL."""
    return breakers.on_early_refusal(breaker, cause(classification), now)


def stop(
    breaker: CircuitBreaker, domain: str, classification: Classification = STOP
) -> CircuitBreaker:
    """Meet a refusal of us with a message of this sender domain."""
    why = cause(classification, domain)
    return breakers.trip_suspicion(breakers.on_refusal(breaker, NOW, why), why, NOW)


def asked(breaker: CircuitBreaker, outcome: CanaryOutcome) -> CircuitBreaker:
    """Let the canary come back."""
    return breakers.on_canary(breaker, outcome, "y", NOW)


def test_an_alert_before_mail_opens_at_once() -> None:
    """554 as a banner needs a person, not patience."""
    assert early(CLOSED, ALERT).state is BreakerState.OPEN


@pytest.mark.parametrize("failures", range(6))
def test_pauses_grow_and_the_last_one_stays(failures: int) -> None:
    """Each failure without a success between takes the next pause."""
    breaker, now = CLOSED, NOW
    for _ in range(failures):
        breaker = early(breaker, SHORT, now)
        assert breaker.until is not None
        now = breaker.until
        breaker = breakers.probe(breaker, now)
    breaker = early(breaker, SHORT, now)
    expected = CLOSED.pauses[min(failures, 2)]
    assert breaker.state is BreakerState.PAUSED
    assert breaker.until == now + expected
    assert breaker.failures == failures + 1


def test_sessions_that_meet_the_same_do_not_lengthen_a_pause() -> None:
    """Twenty connections that break together are one failure."""
    breaker = early(CLOSED, SHORT)
    assert early(breaker, SHORT, NOW + timedelta(seconds=1)) == breaker
    assert stop(breaker, "example.com", CLOSING) == breaker


def test_a_pause_ends_in_a_probe() -> None:
    """Not before its time."""
    breaker = early(CLOSED, SHORT)
    assert breakers.probe(breaker, NOW + MINUTE / 2).state is BreakerState.PAUSED
    assert breakers.probe(breaker, NOW + MINUTE).state is BreakerState.HALF_OPEN


def test_a_hook_ends_a_pause_and_nothing_else() -> None:
    """A message probes at once; an open breaker still asks its canary first."""
    paused = early(CLOSED, SHORT)
    assert breakers.end_pause(paused).is_probed
    opened = early(CLOSED, ALERT)
    assert breakers.end_pause(opened) is opened


@pytest.mark.parametrize(
    "state", [BreakerState.CLOSED, BreakerState.PAUSED, BreakerState.HALF_OPEN]
)
def test_a_success_closes_the_breaker_and_forgets(state: BreakerState) -> None:
    """Mail flows again: the next failure starts with the shortest pause."""
    breaker = replace(CLOSED, state=state, failures=3)
    assert breakers.on_delivery(breaker) == CLOSED


def test_an_open_breaker_stays_open() -> None:
    """Whatever was under way in other sessions when it opened."""
    breaker = early(CLOSED, ALERT)
    assert breakers.on_delivery(breaker).state is BreakerState.OPEN
    assert early(breaker, SHORT).state is BreakerState.OPEN
    assert stop(breaker, "example.com", CLOSING).state is BreakerState.OPEN
    assert asked(breaker, CanaryOutcome.ACCEPTED).state is BreakerState.OPEN
    assert breakers.on_reply(breaker).state is BreakerState.OPEN


def test_an_open_breaker_asks_the_canary_when_its_timer_ends_or_a_person_says_so() -> (
    None
):
    """Doubled from probe to probe, up to an hour."""
    breaker, waits = early(CLOSED, ALERT), []
    for _ in range(9):
        assert breaker.until is not None
        now = breaker.until
        assert breakers.probe(breaker, now - MINUTE / 60).state is BreakerState.OPEN
        breaker = breakers.probe(breaker, now)
        assert (breaker.state, breaker.phase) == (BreakerState.HALF_OPEN, Phase.CANARY)
        breaker = breakers.on_canary(breaker, CanaryOutcome.REFUSED, "y", now)
        assert breaker.state is BreakerState.OPEN
        assert breaker.until is not None
        waits.append((breaker.until - now) / MINUTE)
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert breakers.recheck(breaker).phase is Phase.CANARY


def test_one_message_alone_never_opens_it() -> None:
    """A spammer could otherwise stop the drain with one message."""
    breaker = stop(CLOSED, "evil.example")
    assert (breaker.state, breaker.phase) == (BreakerState.HALF_OPEN, Phase.CANARY)
    welcome = asked(breaker, CanaryOutcome.ACCEPTED)
    assert welcome.is_closed
    assert breakers.on_delivery(welcome) == CLOSED
    assert (
        stop(breakers.on_delivery(welcome), "other.example").state
        is not BreakerState.OPEN
    )


def test_the_canary_that_is_refused_opens_it() -> None:
    """With the words that the canary was told."""
    breaker = asked(stop(CLOSED, "a.example"), CanaryOutcome.REFUSED)
    assert breaker.state is BreakerState.OPEN
    assert breaker.cause is not None
    assert breaker.cause.reply == "y"


def test_without_an_address_to_ask_for_real_messages_are_tried() -> None:
    """One after another; a delivery closes the breaker at any time."""
    breaker = asked(stop(CLOSED, "a.example"), CanaryOutcome.UNCLEAR)
    assert (breaker.state, breaker.phase) == (BreakerState.HALF_OPEN, Phase.MESSAGES)
    for n in range(breakers.STOPS_TO_OPEN - 1):
        breaker = breakers.on_refusal(breaker, NOW, cause(STOP, f"s{n}.example"))
    assert breakers.on_delivery(breaker) == CLOSED
    assert breakers.on_refusal(breaker, NOW).state is BreakerState.OPEN


def test_three_messages_answer_a_suspicion_that_is_none_of_a_stop() -> None:
    """The same refusal in a row: no stranger's words are in it."""
    why = replace(cause(STOP), trigger="run")
    breaker = asked(breakers.trip_suspicion(CLOSED, why, NOW), CanaryOutcome.UNCLEAR)
    twice = breakers.on_refusal(breakers.on_refusal(breaker, NOW), NOW)
    assert twice.state is BreakerState.HALF_OPEN
    assert breakers.on_refusal(twice, NOW).state is BreakerState.OPEN


def test_after_an_open_breaker_a_message_must_be_delivered() -> None:
    """The canary alone does not close it: it sends no content."""
    breaker = asked(breakers.recheck(early(CLOSED, ALERT)), CanaryOutcome.ACCEPTED)
    assert (breaker.state, breaker.phase) == (BreakerState.HALF_OPEN, Phase.MESSAGES)
    assert breakers.on_delivery(breaker) == CLOSED


def test_success_elsewhere_does_not_answer_for_the_canary() -> None:
    """What was under way when the suspicion arose proves nothing."""
    breaker = stop(CLOSED, "a.example")
    assert breakers.on_delivery(breaker) == breaker


def test_refused_contents_never_open_it() -> None:
    """Strangers aim their spam at backups."""
    about = breakers.trip_suspicion(CLOSED, cause(ALERT, content=True), NOW)
    breaker = asked(about, CanaryOutcome.UNCLEAR)
    for _ in range(3):
        breaker = breakers.on_refusal(breaker, NOW)
    assert breaker == CLOSED
    assert breakers.give_up(about, NOW) == CLOSED


def test_what_a_canary_cannot_see_is_asked_by_messages() -> None:
    """It has another sender than the mail that was refused."""
    breaker = breakers.trip_suspicion(CLOSED, replace(cause(ALERT), blind=True), NOW)
    assert breaker.phase is Phase.MESSAGES


def test_a_contradiction_opens_at_once() -> None:
    """The operator said that this address exists."""
    why = replace(cause(ALERT), trigger="contradiction")
    assert breakers.trip_suspicion(CLOSED, why, NOW).state is BreakerState.OPEN


def test_any_reply_ends_a_pause_for_want_of_one() -> None:
    """The primary answers again, whatever it says about this message."""
    breaker = breakers.probe(early(CLOSED, SHORT), NOW + MINUTE)
    assert breakers.on_reply(breaker) == CLOSED
    suspect = stop(CLOSED, "a.example")
    assert breakers.on_reply(suspect) == suspect


def test_after_an_open_breaker_a_mere_reply_closes_nothing() -> None:
    """Also when the primary closed with 421 while a message probed."""
    breaker = asked(breakers.recheck(early(CLOSED, ALERT)), CanaryOutcome.ACCEPTED)
    for _ in range(breakers.STOPS_TO_PAUSE):
        assert breaker.state is BreakerState.HALF_OPEN
        breaker = stop(breaker, "a.example", CLOSING)
    assert breaker.state is BreakerState.PAUSED
    assert breaker.until is not None
    breaker = breakers.probe(breaker, breaker.until)
    assert breakers.on_reply(breaker) == breaker
    assert breakers.on_delivery(breaker) == CLOSED


def test_one_message_again_and_again_is_one() -> None:
    """It answers nothing; the end of the run does."""
    again = replace(cause(STOP, "a.example"), again=True)
    breaker = asked(stop(CLOSED, "a.example"), CanaryOutcome.UNCLEAR)
    for _ in range(breakers.STOPS_TO_OPEN):
        breaker = breakers.on_refusal(breaker, NOW, again)
    assert (breaker.state, breaker.tried) == (BreakerState.HALF_OPEN, 0)
    assert breakers.on_run_end(breaker, NOW).state is BreakerState.OPEN


def test_what_was_under_way_when_it_opened_moves_it_no_more() -> None:
    """Twenty connections meet the same."""
    breaker = early(CLOSED, ALERT)
    assert stop(breaker, "a.example") == breaker


def test_however_many_messages_meet_it_the_canary_is_asked_first() -> None:
    """A stranger may have sent them, from as many domains as he likes."""
    breaker = CLOSED
    for n in range(40):
        breaker = stop(breaker, f"s{n}.example")
    assert (breaker.state, breaker.phase) == (BreakerState.HALF_OPEN, Phase.CANARY)
    assert asked(breaker, CanaryOutcome.ACCEPTED) == CLOSED


@pytest.mark.parametrize("trigger", ["stop", "storm"])
def test_a_brief_stop_with_messages_pauses_when_it_is_confirmed(trigger: str) -> None:
    """421 at MAIL, or 451 for everybody: nothing is judged, and the route rests."""
    why = replace(cause(CLOSING), trigger=trigger)
    breaker = asked(breakers.trip_suspicion(CLOSED, why, NOW), CanaryOutcome.UNCLEAR)
    for _ in range(breakers.STOPS_TO_PAUSE):
        assert breaker.state is BreakerState.HALF_OPEN
        breaker = breakers.on_refusal(breaker, NOW, why)
    assert (breaker.state, breaker.until) == (BreakerState.PAUSED, NOW + MINUTE)


@pytest.mark.parametrize("state", [BreakerState.HALF_OPEN, BreakerState.PAUSED])
@pytest.mark.parametrize("trigger", ["stop", "storm"])
def test_a_run_ends_with_a_refusal_if_everybody_was_put_off(
    trigger: str, state: BreakerState
) -> None:
    """One closed channel is no refusal; the same answer for everybody is."""
    why = replace(cause(CLOSING), trigger=trigger)
    breaker = replace(CLOSED, state=state, cause=why)
    ended = breakers.on_run_end(breaker, NOW)
    assert (ended.state is BreakerState.OPEN) is (trigger == "storm")


def test_waiting_too_long_opens_it() -> None:
    """A drain that gives up says so by its exit code."""
    assert breakers.give_up(early(CLOSED, SHORT), NOW).state is BreakerState.OPEN
    assert breakers.give_up(CLOSED, NOW) == CLOSED


def test_it_keeps_what_opened_it() -> None:
    """For the summary, the ledger and the trace."""
    breaker = early(CLOSED, ALERT)
    assert breaker.cause == cause(ALERT)
