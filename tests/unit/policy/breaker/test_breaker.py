"""The gate of a route: what pauses it, what opens it, and that nothing else does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from drainer.mail.reply import Lost, Stage, parse_reply
from drainer.policy.breaker import breaker as gates
from drainer.policy.breaker.breaker import Cause, Gate, GateState, Outcome, Phase
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.verdict import Judgement

NOW = datetime(2026, 11, 23, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CLOSED = Gate(pauses=(MINUTE, 2 * MINUTE, 5 * MINUTE))
SHORT = classify(Lost(reason="closed"), Stage.CONNECT)
ALERT = classify(parse_reply(b"554 no"), Stage.BANNER)
STOP = classify(parse_reply(b"530 5.7.0 log in"), Stage.MAIL)
CLOSING = classify(parse_reply(b"421 bye"), Stage.MAIL)


def cause(judgement: Judgement, domain: str = "", *, content: bool = False) -> Cause:
    """Return why a gate moves."""
    return Cause(
        trigger="run" if content else "stop",
        judgement=judgement,
        reply="x",
        sender_domain=domain,
        content=content,
    )


def early(gate: Gate, judgement: Judgement, now: datetime = NOW) -> Gate:
    """Meet a refusal before MAIL."""
    return gates.refused_early(gate, cause(judgement), now)


def stop(gate: Gate, domain: str, judgement: Judgement = STOP) -> Gate:
    """Meet a refusal of us with a message of this sender domain."""
    why = cause(judgement, domain)
    return gates.suspect(gates.refused(gate, NOW, why), why, NOW)


def asked(gate: Gate, outcome: Outcome) -> Gate:
    """Let the canary come back."""
    return gates.answered(gate, outcome, "y", NOW)


def test_an_alert_before_mail_opens_at_once() -> None:
    """554 as a banner needs a person, not patience."""
    assert early(CLOSED, ALERT).state is GateState.OPEN


@pytest.mark.parametrize("failures", range(6))
def test_pauses_grow_and_the_last_one_stays(failures: int) -> None:
    """Each failure without a success between takes the next pause."""
    gate, now = CLOSED, NOW
    for _ in range(failures):
        gate = early(gate, SHORT, now)
        assert gate.until is not None
        now = gate.until
        gate = gates.probe(gate, now)
    gate = early(gate, SHORT, now)
    expected = CLOSED.pauses[min(failures, 2)]
    assert gate.state is GateState.PAUSED
    assert gate.until == now + expected
    assert gate.failures == failures + 1


def test_sessions_that_meet_the_same_do_not_lengthen_a_pause() -> None:
    """Twenty connections that break together are one failure."""
    gate = early(CLOSED, SHORT)
    assert early(gate, SHORT, NOW + timedelta(seconds=1)) == gate
    assert stop(gate, "example.com", CLOSING) == gate


def test_a_pause_ends_in_a_probe() -> None:
    """Not before its time."""
    gate = early(CLOSED, SHORT)
    assert gates.probe(gate, NOW + MINUTE / 2).state is GateState.PAUSED
    assert gates.probe(gate, NOW + MINUTE).state is GateState.PROBING


@pytest.mark.parametrize(
    "state", [GateState.CLOSED, GateState.PAUSED, GateState.PROBING]
)
def test_a_success_closes_the_gate_and_forgets(state: GateState) -> None:
    """Mail flows again: the next failure starts with the shortest pause."""
    gate = replace(CLOSED, state=state, failures=3)
    assert gates.succeeded(gate) == CLOSED


def test_an_open_gate_stays_open() -> None:
    """Whatever was under way in other sessions when it opened."""
    gate = early(CLOSED, ALERT)
    assert gates.succeeded(gate).state is GateState.OPEN
    assert early(gate, SHORT).state is GateState.OPEN
    assert stop(gate, "example.com", CLOSING).state is GateState.OPEN
    assert asked(gate, Outcome.ACCEPTED).state is GateState.OPEN
    assert gates.heard(gate).state is GateState.OPEN


def test_an_open_gate_asks_the_canary_when_its_timer_ends_or_a_person_says_so() -> None:
    """Doubled from probe to probe, up to an hour."""
    gate, waits = early(CLOSED, ALERT), []
    for _ in range(9):
        assert gate.until is not None
        now = gate.until
        assert gates.probe(gate, now - MINUTE / 60).state is GateState.OPEN
        gate = gates.probe(gate, now)
        assert (gate.state, gate.phase) == (GateState.PROBING, Phase.CANARY)
        gate = gates.answered(gate, Outcome.REFUSED, "y", now)
        assert gate.state is GateState.OPEN
        assert gate.until is not None
        waits.append((gate.until - now) / MINUTE)
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert gates.recheck(gate).phase is Phase.CANARY


def test_one_message_alone_never_opens_it() -> None:
    """A spammer could otherwise stop the drain with one message."""
    gate = stop(CLOSED, "evil.example")
    assert (gate.state, gate.phase) == (GateState.PROBING, Phase.CANARY)
    welcome = asked(gate, Outcome.ACCEPTED)
    assert welcome.flows
    assert gates.succeeded(welcome) == CLOSED
    assert stop(gates.succeeded(welcome), "other.example").state is not GateState.OPEN


def test_the_canary_that_is_refused_opens_it() -> None:
    """With the words that the canary was told."""
    gate = asked(stop(CLOSED, "a.example"), Outcome.REFUSED)
    assert gate.state is GateState.OPEN
    assert gate.cause is not None
    assert gate.cause.reply == "y"


def test_without_an_address_to_ask_for_real_messages_are_tried() -> None:
    """One after another; a delivery closes the gate at any time."""
    gate = asked(stop(CLOSED, "a.example"), Outcome.UNCLEAR)
    assert (gate.state, gate.phase) == (GateState.PROBING, Phase.MESSAGES)
    for n in range(gates.STOPS_TO_OPEN - 1):
        gate = gates.refused(gate, NOW, cause(STOP, f"s{n}.example"))
    assert gates.succeeded(gate) == CLOSED
    assert gates.refused(gate, NOW).state is GateState.OPEN


def test_three_messages_answer_a_suspicion_that_is_none_of_a_stop() -> None:
    """The same refusal in a row: no stranger's words are in it."""
    why = replace(cause(STOP), trigger="run")
    gate = asked(gates.suspect(CLOSED, why, NOW), Outcome.UNCLEAR)
    twice = gates.refused(gates.refused(gate, NOW), NOW)
    assert twice.state is GateState.PROBING
    assert gates.refused(twice, NOW).state is GateState.OPEN


def test_after_an_open_gate_a_message_must_be_delivered() -> None:
    """The canary alone does not close it: it sends no content."""
    gate = asked(gates.recheck(early(CLOSED, ALERT)), Outcome.ACCEPTED)
    assert (gate.state, gate.phase) == (GateState.PROBING, Phase.MESSAGES)
    assert gates.succeeded(gate) == CLOSED


def test_success_elsewhere_does_not_answer_for_the_canary() -> None:
    """What was under way when the suspicion arose proves nothing."""
    gate = stop(CLOSED, "a.example")
    assert gates.succeeded(gate) == gate


def test_refused_contents_never_open_it() -> None:
    """Strangers aim their spam at backups."""
    about = gates.suspect(CLOSED, cause(ALERT, content=True), NOW)
    gate = asked(about, Outcome.UNCLEAR)
    for _ in range(3):
        gate = gates.refused(gate, NOW)
    assert gate == CLOSED
    assert gates.give_up(about, NOW) == CLOSED


def test_what_a_canary_cannot_see_is_asked_by_messages() -> None:
    """It has another sender than the mail that was refused."""
    gate = gates.suspect(CLOSED, replace(cause(ALERT), blind=True), NOW)
    assert gate.phase is Phase.MESSAGES


def test_a_contradiction_opens_at_once() -> None:
    """The operator said that this address exists."""
    why = replace(cause(ALERT), trigger="contradiction")
    assert gates.suspect(CLOSED, why, NOW).state is GateState.OPEN


def test_any_reply_ends_a_pause_for_want_of_one() -> None:
    """The primary answers again, whatever it says about this message."""
    gate = gates.probe(early(CLOSED, SHORT), NOW + MINUTE)
    assert gates.heard(gate) == CLOSED
    suspect = stop(CLOSED, "a.example")
    assert gates.heard(suspect) == suspect


def test_after_an_open_gate_a_mere_reply_closes_nothing() -> None:
    """Also when the primary closed with 421 while a message probed."""
    gate = asked(gates.recheck(early(CLOSED, ALERT)), Outcome.ACCEPTED)
    for _ in range(gates.STOPS_TO_PAUSE):
        assert gate.state is GateState.PROBING
        gate = stop(gate, "a.example", CLOSING)
    assert gate.state is GateState.PAUSED
    assert gate.until is not None
    gate = gates.probe(gate, gate.until)
    assert gates.heard(gate) == gate
    assert gates.succeeded(gate) == CLOSED


def test_one_message_again_and_again_is_one() -> None:
    """It answers nothing; the end of the run does."""
    again = replace(cause(STOP, "a.example"), again=True)
    gate = asked(stop(CLOSED, "a.example"), Outcome.UNCLEAR)
    for _ in range(gates.STOPS_TO_OPEN):
        gate = gates.refused(gate, NOW, again)
    assert (gate.state, gate.tried) == (GateState.PROBING, 0)
    assert gates.leave(gate, NOW).state is GateState.OPEN


def test_what_was_under_way_when_it_opened_moves_it_no_more() -> None:
    """Twenty connections meet the same."""
    gate = early(CLOSED, ALERT)
    assert stop(gate, "a.example") == gate


def test_however_many_messages_meet_it_the_canary_is_asked_first() -> None:
    """A stranger may have sent them, from as many domains as he likes."""
    gate = CLOSED
    for n in range(40):
        gate = stop(gate, f"s{n}.example")
    assert (gate.state, gate.phase) == (GateState.PROBING, Phase.CANARY)
    assert asked(gate, Outcome.ACCEPTED) == CLOSED


@pytest.mark.parametrize("trigger", ["stop", "storm"])
def test_a_brief_stop_with_messages_pauses_when_it_is_confirmed(trigger: str) -> None:
    """421 at MAIL, or 451 for everybody: nothing is judged, and the route rests."""
    why = replace(cause(CLOSING), trigger=trigger)
    gate = asked(gates.suspect(CLOSED, why, NOW), Outcome.UNCLEAR)
    for _ in range(gates.STOPS_TO_PAUSE):
        assert gate.state is GateState.PROBING
        assert gates.leave(gate, NOW) == gate
        gate = gates.refused(gate, NOW, why)
    assert (gate.state, gate.until) == (GateState.PAUSED, NOW + MINUTE)


def test_waiting_too_long_opens_it() -> None:
    """A drain that gives up says so by its exit code."""
    assert gates.give_up(early(CLOSED, SHORT), NOW).state is GateState.OPEN
    assert gates.give_up(CLOSED, NOW) == CLOSED


def test_it_keeps_what_opened_it() -> None:
    """For the summary, the ledger and the trace."""
    gate = early(CLOSED, ALERT)
    assert gate.cause == cause(ALERT)
