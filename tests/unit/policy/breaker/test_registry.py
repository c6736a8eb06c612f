"""All gates of a primary: the narrowest scope that the evidence fits is suspected."""

from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest

from drainer.mail.reply import Lost, Stage
from drainer.policy.breaker.breaker import (
    STOPS_TO_OPEN,
    STOPS_TO_PAUSE,
    Cause,
    Gate,
    GateState,
    Outcome,
    Phase,
    leave,
    probe,
)
from drainer.policy.breaker.detector import SLOW_RUN, SLOW_SECONDS, STORM, Seen
from drainer.policy.breaker.history import STOPS_TOLERATED
from drainer.policy.breaker.known_good import Known
from drainer.policy.breaker.registry import MAX_DOMAINS, MAX_VOUCHED, ROUTE, Scopes
from drainer.policy.classify.classifier import classify
from tests.support.scenarios.settlements import NOW, PAUSES, scopes, seen

ORG, NET, COM = "example.org", "example.net", "example.com"
RELAY = "554 5.7.1 Relay access denied"
LISTED = "554 5.7.1 Client host [192.0.2.7] blocked using bl.example"
UNKNOWN = "550 5.1.1 User unknown"
SECOND = timedelta(seconds=1)
_numbers = count()


def refuse(
    gates: Scopes,
    domain: str,
    text: str = UNKNOWN,
    *,
    stage: Stage = Stage.RCPT,
    sender: str = "",
) -> None:
    """Let the mail of another sender to another recipient be refused."""
    n = next(_numbers)
    to, sender = f"u{n}@{domain}", sender or f"s{n}.example"
    one = seen(text, to, sender_domain=sender, stage=stage)
    gates.observe([one], f"x@{sender}", NOW)


def deliver(gates: Scopes, to: str, sender: str = "amy@s.example") -> None:
    """Let a message be delivered."""
    domain = sender.rpartition("@")[2]
    one = seen("250 ok", to, sender_domain=domain, stage=Stage.DOT)
    gates.observe([one], sender, NOW)


def standing(gates: Scopes) -> dict[str, str]:
    """Return the gates that mail does not flow through."""
    found = {gate.scope: gate for gate in gates.all() if not gate.flows}
    return {scope: gate.state.value for scope, gate in found.items()}


def with_moves(known: Known) -> tuple[Scopes, list[tuple[Gate, Gate]]]:
    """Return gates, and where their moves are told."""
    moves: list[tuple[Gate, Gate]] = []
    return Scopes(PAUSES, known, lambda *move: moves.append(move)), moves


# ---- which scope


def test_refusals_in_one_domain_are_that_domains() -> None:
    """The others go on."""
    gates = scopes()
    for _ in range(3):
        refuse(gates, ORG)
    assert standing(gates) == {ORG: "probing"}
    assert gates.barrier(ORG) == gates.gate(ORG)
    assert gates.barrier(NET) is None


def test_refusals_in_two_domains_are_the_routes() -> None:
    """It is the wider scope that both make suspicious."""
    gates = scopes()
    for domain in (ORG, NET, NET):
        refuse(gates, domain)
    assert standing(gates) == {ROUTE: "probing"}
    assert gates.barrier(COM) == gates.route


def test_relay_denied_is_the_domains_and_a_second_domains_the_routes() -> None:
    """Suspected, that is: each opens by its own evidence, the canary's or messages'."""
    gates = scopes()
    refuse(gates, ORG, RELAY)
    assert standing(gates) == {ORG: "probing"}
    refuse(gates, NET, RELAY)
    assert standing(gates) == {ROUTE: "probing", ORG: "probing", NET: "probing"}
    gates.canary(ORG, Outcome.REFUSED, RELAY, NOW)
    assert standing(gates) == {ROUTE: "probing", ORG: "open", NET: "probing"}


def test_a_second_domain_does_not_suspect_a_route_that_has_just_been_asked() -> None:
    """One healed domain after another would otherwise stop everybody each time."""
    gates = scopes()
    refuse(gates, ORG, RELAY)
    refuse(gates, NET, RELAY)
    gates.canary(ROUTE, Outcome.ACCEPTED, "ok", NOW)
    refuse(gates, COM, RELAY)
    assert standing(gates).keys() == {ORG, NET, COM}


def test_a_refusal_of_us_is_the_routes() -> None:
    """A list that our address stands on knows no recipient domains."""
    gates = scopes()
    refuse(gates, ORG, LISTED)
    assert standing(gates) == {ROUTE: "probing"}
    gates.canary(ROUTE, Outcome.UNCLEAR, "?", NOW)
    for _ in range(STOPS_TO_OPEN):
        assert standing(gates) == {ROUTE: "probing"}
        refuse(gates, NET, LISTED)
    assert standing(gates) == {ROUTE: "open"}


def test_who_has_no_domain_is_the_routes() -> None:
    """``<postmaster>`` alone (RFC 5321 4.1.1.3)."""
    gates = scopes()
    one = seen(RELAY, "postmaster", sender_domain="s.example")
    gates.observe([one], "x@s.example", NOW)
    assert standing(gates) == {ROUTE: "probing"}
    other = scopes()
    other.observe([seen("550 5.2.1 closed", "postmaster")], "", NOW)
    assert standing(other) == {}
    assert not other.proven("", "x.example", NOW)


# ---- one message is one, however many recipients it has


@pytest.mark.parametrize("text", [RELAY, LISTED, "530 5.7.0 Log in", "550 no", UNKNOWN])
@pytest.mark.parametrize("recipients", [1, 2, 3, 20])
def test_one_message_alone_opens_no_gate(text: str, recipients: int) -> None:
    """Whatever its reply, and however many recipients share it."""
    gates = scopes()
    domains = (ORG, NET, COM)
    some = [seen(text, f"u{n}@{domains[n % 3]}") for n in range(recipients)]
    gates.observe(some, "x@example.com", NOW)
    assert "open" not in standing(gates).values()


def test_one_message_that_probes_is_one_however_many_recipients_it_has() -> None:
    """So many messages open the gate, not so many recipients."""
    gates = scopes()
    refuse(gates, ORG, LISTED)
    gates.canary(ROUTE, Outcome.UNCLEAR, "?", NOW)
    some = [seen("550 5.2.1 no", f"u{n}@{ORG}") for n in range(20)]
    gates.observe(some, "x@example.com", NOW)
    assert gates.route.tried == 1
    for _ in range(STOPS_TO_OPEN - 1):
        assert standing(gates)[ROUTE] == "probing"
        refuse(gates, NET, "550 5.2.1 no")
    assert standing(gates)[ROUTE] == "open"


def test_one_message_tried_again_and_again_opens_none() -> None:
    """While the canary is welcome it stays the message's own trouble."""
    gates = scopes()
    for n in range(20):
        one = seen(LISTED, f"u@{ORG}", sender_domain="evil.example", again=n > 0)
        gates.observe([one], "x@evil.example", NOW)
        assert standing(gates) == {ROUTE: "probing"}
        gates.canary(ROUTE, Outcome.ACCEPTED, "ok", NOW)
        assert "open" not in standing(gates).values()


def test_among_deliveries_a_few_refusals_of_us_are_tolerated() -> None:
    """More of them in a row, with no delivery between, are asked about."""
    gates = scopes()
    for _ in range(4):
        deliver(gates, f"bob@{ORG}")
        for _ in range(STOPS_TOLERATED):
            refuse(gates, ORG, LISTED)
            assert standing(gates) == {}
    refuse(gates, ORG, LISTED)
    assert standing(gates) == {ROUTE: "probing"}


def test_a_canary_speaks_for_no_stage_behind_rcpt() -> None:
    """Refusals of contents as if they were us are answered by real messages."""
    gates = scopes()
    refuse(gates, ORG, LISTED)
    gates.canary(ROUTE, Outcome.ACCEPTED, "ok", NOW)
    refuse(gates, ORG, LISTED)
    assert standing(gates) == {}
    refuse(gates, ORG, LISTED, stage=Stage.DOT)
    assert gates.route.state is GateState.PROBING
    assert gates.route.phase is Phase.MESSAGES
    deliver(gates, f"bob@{ORG}")
    for _ in range(STOPS_TOLERATED):
        refuse(gates, ORG, LISTED, stage=Stage.DOT)
        assert standing(gates) == {}


@pytest.mark.parametrize(("sender", "most"), [("", 1), ("amy@s.example", MAX_VOUCHED)])
def test_while_nothing_is_delivered_canaries_are_not_believed_for_long(
    sender: str, most: int
) -> None:
    """A primary may exempt them, and the null sender above all, from what it denies."""
    gates = Scopes(PAUSES, Known((f"known@{ORG}",), sender), lambda _b, _a: None)
    asked = 0
    while standing(gates) != {ROUTE: "open"}:
        refuse(gates, ORG, LISTED)
        if gates.route.phase is Phase.CANARY and not gates.route.flows:
            asked += 1
            gates.canary(ROUTE, Outcome.ACCEPTED, "ok", NOW)
    assert asked == most + 1


def test_what_was_under_way_when_messages_began_to_probe_is_no_probe() -> None:
    """Twenty sessions may have begun with a stranger's messages."""
    gates = scopes()
    refuse(gates, ORG, LISTED, stage=Stage.DOT)
    gates.since[ROUTE] = NOW
    for text in (LISTED, "550 5.2.1 no"):
        for n in range(20):
            one = seen(text, f"w{n}@{ORG}", sender_domain=f"w{n}.example")
            one = replace(one, began=NOW - SECOND)
            gates.observe([one], f"x@w{n}.example", NOW)
    assert (gates.route.state, gates.route.tried) == (GateState.PROBING, 0)


def test_a_reply_that_names_us_behind_a_recipients_code_is_a_vote() -> None:
    """The recipient waits; the same to three of them is asked about."""
    gates = scopes()
    text = "550 5.2.1 Your IP address has sent too much"
    for _ in range(3):
        assert standing(gates) == {}
        refuse(gates, ORG, text)
    assert standing(gates) == {ORG: "probing"}


def test_a_storm_is_asked_about_before_the_route_rests() -> None:
    """A stranger's mailbox may be what is put off."""
    gates = scopes()
    for _ in range(STORM):
        refuse(gates, ORG, "451 4.7.1 try again later")
    assert gates.route.phase is Phase.CANARY
    gates.canary(ROUTE, Outcome.ACCEPTED, "ok", NOW)
    assert standing(gates) == {}


def test_a_queue_of_one_message_is_answered_all_the_same() -> None:
    """Nobody knows an address to ask for: when the run ends, a person is asked."""
    gates = scopes()
    refuse(gates, ORG, LISTED, sender="one.example")
    gates.canary(ROUTE, Outcome.UNCLEAR, "?", NOW)
    again = seen(LISTED, f"u@{ORG}", sender_domain="one.example", again=True)
    for _ in range(3):
        gates.observe([again], "x@one.example", NOW)
        assert standing(gates) == {ROUTE: "probing"}
    gates.apply(ROUTE, lambda gate: leave(gate, NOW))
    assert standing(gates) == {ROUTE: "open"}


def test_contents_alone_open_nothing() -> None:
    """Ninety of a hundred are spam; ten in a row are asked about."""
    gates = scopes()
    for _ in range(9):
        refuse(gates, ORG, "554 5.7.1 Spam", stage=Stage.DOT)
    assert standing(gates) == {}
    refuse(gates, ORG, "554 5.7.1 Spam", stage=Stage.DOT)
    assert standing(gates) == {ORG: "probing"}
    gates.canary(ORG, Outcome.UNCLEAR, "?", NOW)
    for _ in range(3):
        refuse(gates, ORG, "554 5.7.1 Spam", stage=Stage.DOT)
    assert standing(gates) == {}


def test_contents_answer_no_other_question() -> None:
    """Whether relay is denied is not told by a virus filter."""
    gates = scopes()
    refuse(gates, ORG, RELAY)
    gates.canary(ORG, Outcome.UNCLEAR, "?", NOW)
    for _ in range(5):
        refuse(gates, ORG, "554 5.7.1 Spam", stage=Stage.DOT)
    assert gates.gate(ORG).tried == 0


# ---- contradictions


def test_the_operators_address_refused_as_unknown_opens_its_domain() -> None:
    """At once, and no other: its user table is not back."""
    gates = scopes(f"boss@{ORG}")
    gates.observe([seen(UNKNOWN, f"boss@{ORG}")], "", NOW)
    assert standing(gates) == {ORG: "open"}
    assert gates.gate(ORG).cause is not None
    assert gates.barrier(NET) is None


def test_another_refusal_of_the_operators_address_is_no_contradiction() -> None:
    """It exists, and may be closed."""
    gates = scopes(f"boss@{ORG}")
    gates.observe([seen("550 5.2.1 disabled", f"boss@{ORG}")], "", NOW)
    assert standing(gates) == {}


def test_an_address_that_was_delivered_to_and_is_unknown_now_is_asked_about() -> None:
    """Once: it may have been deleted meanwhile."""
    gates = scopes()
    deliver(gates, f"bob@{ORG}")
    gates.observe([seen(UNKNOWN, f"bob@{ORG}")], "", NOW)
    assert standing(gates) == {ORG: "probing"}
    gates.canary(ORG, Outcome.ACCEPTED, "ok", NOW)
    gates.observe([seen(UNKNOWN, f"bob@{ORG}")], "", NOW)
    assert standing(gates) == {}


def test_the_canarys_contradiction_is_the_domains_that_it_met() -> None:
    """Others were accepted, so that it is not the route."""
    gates = scopes()
    refuse(gates, ORG, LISTED)
    gates.contradicted(NET, ROUTE, UNKNOWN, NOW)
    gates.canary(ROUTE, Outcome.ACCEPTED, "ok", NOW)
    assert standing(gates) == {NET: "open"}
    cause = gates.gate(NET).cause
    assert cause is not None
    assert (cause.trigger, cause.reply) == ("contradiction", UNKNOWN)


def test_a_canary_that_was_sent_for_no_reason_contradicts_nothing() -> None:
    """It asks before refusals are confirmed, too."""
    gates = scopes()
    gates.contradicted(NET, ROUTE, UNKNOWN, NOW)
    assert standing(gates) == {}


# ---- healing


def test_one_healed_domain_waits_for_no_other() -> None:
    """Each has a gate of its own."""
    gates = scopes(f"boss@{ORG}", f"boss@{NET}")
    for domain in (ORG, NET):
        gates.observe([seen(UNKNOWN, f"boss@{domain}")], "", NOW)
    assert standing(gates) == {ORG: "open", NET: "open"}
    for scope in (ORG, NET):
        until = gates.gate(scope).until
        assert until is not None
    gates.apply(ORG, lambda gate: Gate(pauses=gate.pauses, scope=gate.scope))
    assert standing(gates) == {NET: "open"}
    assert gates.barrier(ORG) is None
    assert ORG not in gates.domains


def test_a_delivery_closes_what_probes_and_opens_no_other() -> None:
    """Also of another domain, as far as the route goes."""
    gates = scopes()
    refuse(gates, ORG, LISTED)
    gates.canary(ROUTE, Outcome.UNCLEAR, "?", NOW)
    deliver(gates, f"bob@{NET}")
    assert standing(gates) == {}


def test_any_reply_ends_a_rest_that_a_storm_asked_for() -> None:
    """While the storm goes on the rest is longer."""
    gates = scopes()
    for _ in range(STORM):
        refuse(gates, ORG, "451 4.3.0 Out of sorts")
    gates.canary(ROUTE, Outcome.UNCLEAR, "451 4.3.0 Out of sorts", NOW)
    storm(gates)
    assert standing(gates) == {ROUTE: "paused"}
    assert gates.route.until == NOW + PAUSES[0]
    gates.apply(ROUTE, rested)
    storm(gates)
    assert gates.route.until == NOW + PAUSES[1]
    gates.apply(ROUTE, rested)
    refuse(gates, ORG, "450 4.2.0 Busy")
    assert standing(gates) == {ROUTE: "probing"}  # a storm needs a delivery
    deliver(gates, f"bob@{ORG}")
    assert standing(gates) == {}


def storm(gates: Scopes) -> None:
    """Let each message that probes be put off."""
    for _ in range(STOPS_TO_PAUSE):
        assert standing(gates) == {ROUTE: "probing"}
        refuse(gates, ORG, "451 4.3.0 Out of sorts")


def rested(gate: Gate) -> Gate:
    """Let the time of a rest be over."""
    assert gate.until is not None
    return probe(gate, gate.until)


def test_a_loss_after_mail_tells_the_gates_nothing() -> None:
    """It may be this content that the primary cannot bear."""
    gates, moves = with_moves(Known())
    lost = Lost(reason="closed")
    one = Seen(
        sender_domain="s.example",
        recipient=f"u@{ORG}",
        recipient_domain=ORG,
        stage=Stage.BODY,
        judgement=classify(lost, Stage.BODY),
        answer=lost,
    )
    for _ in range(30):
        gates.observe([one], "x@s.example", NOW)
    assert moves == []


# ---- proof


def test_mail_of_others_proves_a_scope() -> None:
    """Of another sender, since then, in the same domain, and nothing in the way."""
    gates = scopes()
    before = NOW - SECOND
    assert not gates.proven(ORG, "evil.example", before)
    deliver(gates, f"bob@{ORG}", "amy@evil.example")
    assert not gates.proven(ORG, "evil.example", before)
    deliver(gates, f"bob@{ORG}", "amy@good.example")
    assert gates.proven(ORG, "evil.example", before)
    assert gates.proven(ORG, "good.example", before)  # by the other's
    assert not gates.proven(ORG, "evil.example", NOW)
    assert not gates.proven(NET, "evil.example", before)


def test_only_the_last_two_senders_are_remembered() -> None:
    """That is enough to find another one than any."""
    gates = scopes()
    for sender in ("a.example", "b.example", "c.example", "c.example"):
        deliver(gates, f"bob@{ORG}", f"x@{sender}")
    assert gates.proven(ORG, "c.example", NOW - SECOND)
    assert gates.proven(ORG, "b.example", NOW - SECOND)


def test_the_canarys_recipient_proves_a_scope_too() -> None:
    """Where all mail is from one sender."""
    gates = scopes()
    gates.welcome(ORG, NOW)
    assert gates.proven(ORG, "any.example", NOW - SECOND)
    assert not gates.proven(ORG, "any.example", NOW)


def test_what_an_earlier_run_delivered_proves_a_scope_too() -> None:
    """Where the canary is told nothing; not any more when it is refused."""
    gates = scopes()
    gates.recall(ORG, "evil.example", NOW)
    gates.recall(ORG, "good.example", NOW)
    gates.canary(ORG, Outcome.UNCLEAR, "450 later", NOW)
    assert gates.proven(ORG, "evil.example", NOW - SECOND)
    assert not gates.proven(NET, "evil.example", NOW - SECOND)
    gates.canary(ORG, Outcome.REFUSED, UNKNOWN, NOW)
    assert not gates.proven(ORG, "evil.example", NOW - SECOND)


@pytest.mark.parametrize("scope", [ROUTE, ORG])
def test_nothing_is_proven_behind_a_gate(scope: str) -> None:
    """Be it open, or only suspected."""
    gates = scopes()
    refuse(gates, ORG, LISTED if scope == ROUTE else RELAY)
    gates.recall(ORG, "good.example", NOW)
    gates.welcome(ORG, NOW)
    assert standing(gates) == {scope: "probing"}
    assert not gates.proven(ORG, "evil.example", NOW - SECOND)


# ---- what it remembers


def test_every_move_is_told_and_nothing_else() -> None:
    """Old and new gate; a gate that stays as it is has not moved."""
    gates, moves = with_moves(Known())
    deliver(gates, f"bob@{ORG}")
    refuse(gates, ORG)
    for _ in range(STOPS_TOLERATED):
        refuse(gates, ORG, LISTED)
    assert moves == []
    refuse(gates, ORG, LISTED)
    assert [(b.state, a.state) for b, a in moves] == [
        (GateState.CLOSED, GateState.PROBING)
    ]
    assert gates.known.sender == "amy@s.example"


def test_a_gate_is_taken_over_without_a_move() -> None:
    """It was told by the run that moved it."""
    gates, moves = with_moves(Known())
    judgement = seen(RELAY, f"u@{ORG}").judgement
    cause = Cause(trigger="stop", judgement=judgement, reply=RELAY)
    gate = Gate(pauses=PAUSES, scope=ORG, state=GateState.OPEN, cause=cause)
    gates.restore(gate)
    assert gates.gate(ORG) == gate
    assert gates.all() == (gates.route, gate)
    assert moves == []
    gates.restore(Gate(pauses=PAUSES, state=GateState.PAUSED))
    assert standing(gates) == {ROUTE: "paused", ORG: "open"}


def test_strangers_domains_cost_no_memory_without_end() -> None:
    """A spool may name millions."""
    gates = scopes()
    for n in range(MAX_DOMAINS + 10):
        gates.welcome(f"d{n}.example", NOW)
    assert not gates.proven("d0.example", "x.example", NOW - SECOND)
    assert gates.proven("d20.example", "x.example", NOW - SECOND)


def test_what_a_canary_cannot_see_is_asked_by_messages() -> None:
    """SPF judges the sender, and the canary has another."""
    gates = scopes()
    for _ in range(3):
        refuse(gates, ORG, "550 5.7.23 SPF fail")
    gate = gates.gate(ORG)
    assert (gate.state, gate.phase) == (GateState.PROBING, Phase.MESSAGES)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_answer_about_a_gate_that_flows_moves_nothing(outcome: Outcome) -> None:
    """The canary also asks before refusals are confirmed."""
    gates, moves = with_moves(Known())
    gates.canary(ORG, outcome, "x", NOW)
    assert moves == []
    proven = gates.proven(ORG, "x.example", NOW - SECOND)
    assert proven is (outcome is Outcome.ACCEPTED)


def test_a_primary_that_answers_slowly_gets_a_rest() -> None:
    """Any reply of a message ends it."""
    gates = scopes()
    for _ in range(SLOW_RUN - 1):
        gates.took(SLOW_SECONDS, NOW)
    assert standing(gates) == {}
    gates.took(SLOW_SECONDS, NOW)
    assert standing(gates) == {ROUTE: "paused"}
    assert gates.route.cause is not None
    assert gates.route.cause.reply == "the final dot was answered after 30 s"
    gates.apply(ROUTE, rested)
    refuse(gates, ORG, "450 4.2.0 Busy")
    assert standing(gates) == {}


# ---- the end of a run


@pytest.mark.parametrize("welcomed", [False, True])
@pytest.mark.parametrize("stage", [Stage.FORWARD, Stage.MAIL])
def test_xforward_put_off_where_nothing_was_ever_accepted_stops_delivery(
    stage: Stage, *, welcomed: bool
) -> None:
    """Other brief refusals do not, nor after a delivery of an earlier run."""
    gates = scopes()
    if welcomed:
        gates.recall(ORG, "s.example", NOW - SECOND)
    for _ in range(STOPS_TO_PAUSE - 2):
        refuse(gates, ORG, "451 4.3.0 not now", stage=stage)
    assert gates.route.state is GateState.PROBING
    gates.leave(ROUTE, NOW)
    is_open = stage is Stage.FORWARD and not welcomed
    ended = GateState.OPEN if is_open else GateState.PROBING
    assert gates.route.state is ended
