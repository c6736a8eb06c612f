"""The gate of a route: what pauses it, what opens it, and that nothing else does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from drainer.mail.reply import Lost, Stage, parse_reply
from drainer.policy import gate as gates
from drainer.policy.classify import classify
from drainer.policy.gate import Gate, GateState
from drainer.policy.verdict import Judgement

NOW = datetime(2026, 11, 23, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CLOSED = Gate(pauses=(MINUTE, 2 * MINUTE, 5 * MINUTE))
SHORT = classify(Lost(reason="closed"), Stage.CONNECT)
ALERT = classify(parse_reply(b"554 no"), Stage.BANNER)
STOP = classify(parse_reply(b"530 5.7.0 log in"), Stage.MAIL)
CLOSING = classify(parse_reply(b"421 bye"), Stage.MAIL)


def early(gate: Gate, judgement: Judgement, now: datetime = NOW) -> Gate:
    """Meet a refusal before MAIL."""
    return gates.refused_early(gate, judgement, "x", now)


def stop(gate: Gate, domain: str, judgement: Judgement = STOP) -> Gate:
    """Meet a refusal of us with a message of this sender domain."""
    return gates.stopped(gate, judgement, "x", sender_domain=domain, now=NOW)


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
    gate = replace(CLOSED, state=state, failures=3, stopped=("a.example",))
    assert gates.succeeded(gate) == CLOSED


def test_an_open_gate_stays_open() -> None:
    """Whatever was under way in other sessions when it opened."""
    gate = early(CLOSED, ALERT)
    assert gates.succeeded(gate).state is GateState.OPEN
    assert early(gate, SHORT).state is GateState.OPEN
    assert stop(gate, "example.com", CLOSING).state is GateState.OPEN
    assert gates.probe(gate, NOW + timedelta(days=1)).state is GateState.OPEN


def test_one_message_alone_never_opens_it() -> None:
    """A spammer could otherwise stop the drain with one message."""
    gate = stop(CLOSED, "evil.example")
    assert gate.state is GateState.CLOSED
    assert gates.succeeded(gate) == CLOSED
    assert stop(gates.succeeded(gate), "other.example").state is GateState.CLOSED


def test_two_sender_domains_in_a_row_open_it() -> None:
    """It is us that the primary means."""
    assert stop(stop(CLOSED, "a.example"), "b.example").state is GateState.OPEN


def test_three_messages_in_a_row_open_it_whoever_sends() -> None:
    """A queue with one sender is stopped as well."""
    twice = stop(stop(CLOSED, "a.example"), "a.example")
    assert twice.state is GateState.CLOSED
    assert stop(twice, "a.example").state is GateState.OPEN


def test_a_short_stop_with_a_message_pauses() -> None:
    """421 at MAIL: nothing is judged, and the route rests."""
    assert stop(CLOSED, "a.example", CLOSING).state is GateState.PAUSED


def test_waiting_too_long_opens_it() -> None:
    """A drain that gives up says so by its exit code."""
    assert gates.give_up(early(CLOSED, SHORT)).state is GateState.OPEN


def test_it_keeps_what_opened_it() -> None:
    """For the summary, the ledger and the trace."""
    gate = early(CLOSED, ALERT)
    assert (gate.judgement, gate.reply) == (ALERT, "x")


def test_only_a_stop_concerns_the_gate() -> None:
    """A refusal of a recipient does not."""
    assert gates.is_stop(STOP)
    assert not gates.is_stop(classify(parse_reply(b"550 5.1.1 x"), Stage.RCPT))
