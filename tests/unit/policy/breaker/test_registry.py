"""All breakers of a primary: the narrowest scope that fits is suspected."""

from datetime import timedelta
from functools import partial
from itertools import count, product

import pytest
from msgspec.structs import replace

from drainer.mail.reply import Lost, Stage, parse_reply
from drainer.policy.breaker.breaker import (
    STOPS_TO_OPEN,
    STOPS_TO_PAUSE,
    BreakerState,
    CanaryOutcome,
    Cause,
    CircuitBreaker,
    Phase,
    dismiss,
    on_run_end,
    probe,
)
from drainer.policy.breaker.detector import SLOW_RUN, STORM, USUAL_WINDOWS, Refusal
from drainer.policy.breaker.history import (
    MAX_DOMAINS,
    ROUTE,
    STOPS_TOLERATED,
)
from drainer.policy.breaker.known_good import KnownGoodRecipients
from drainer.policy.breaker.registry import MAX_VOUCHED, BreakerRegistry
from drainer.policy.classify.classifier import classify
from tests.support.scenarios.settlements import NOW, PAUSES, scopes, seen

ORG, NET, COM = "example.org", "example.net", "example.com"
RELAY = "554 5.7.1 Relay access denied"
LISTED = "554 5.7.1 Client host [192.0.2.7] blocked using bl.example"
UNKNOWN = "550 5.1.1 User unknown"
SECOND = timedelta(seconds=1)
_numbers = count()


def refuse(
    breakers: BreakerRegistry,
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
    breakers.observe([one], f"x@{sender}", NOW)


def deliver(breakers: BreakerRegistry, to: str, sender: str = "amy@s.example") -> None:
    """Let a message be delivered."""
    domain = sender.rpartition("@")[2]
    one = seen("250 ok", to, sender_domain=domain, stage=Stage.DOT)
    breakers.observe([one], sender, NOW)


def standing(breakers: BreakerRegistry) -> dict[str, str]:
    """Return the breakers that mail does not flow through."""
    found = {
        breaker.scope: breaker for breaker in breakers.all() if not breaker.is_closed
    }
    return {scope: breaker.state.value for scope, breaker in found.items()}


def with_moves(
    known: KnownGoodRecipients,
) -> tuple[BreakerRegistry, list[tuple[CircuitBreaker, CircuitBreaker]]]:
    """Return breakers, and where their moves are told."""
    moves: list[tuple[CircuitBreaker, CircuitBreaker]] = []
    return BreakerRegistry(PAUSES, known, lambda *move: moves.append(move)), moves


# ---- which scope


def test_refusals_in_one_domain_are_that_domains() -> None:
    """The others go on."""
    breakers = scopes()
    for _ in range(3):
        refuse(breakers, ORG)
    assert standing(breakers) == {ORG: "half-open"}
    assert breakers.blocking_breaker(ORG) == breakers.breaker(ORG)
    assert breakers.blocking_breaker(NET) is None


def test_refusals_in_two_domains_are_the_routes() -> None:
    """It is the wider scope that both make suspicious."""
    breakers = scopes()
    for domain in (ORG, NET, NET):
        refuse(breakers, domain)
    assert standing(breakers) == {ROUTE: "half-open"}
    assert breakers.blocking_breaker(COM) == breakers.route


def test_relay_denied_is_the_domains_and_a_second_domains_the_routes() -> None:
    """Suspected, that is: each opens by its own evidence, the canary's or messages'."""
    breakers = scopes()
    refuse(breakers, ORG, RELAY)
    assert standing(breakers) == {ORG: "half-open"}
    refuse(breakers, NET, RELAY)
    assert standing(breakers) == {
        ROUTE: "half-open",
        ORG: "half-open",
        NET: "half-open",
    }
    breakers.canary(ORG, CanaryOutcome.REFUSED, RELAY, NOW)
    assert standing(breakers) == {ROUTE: "half-open", ORG: "open", NET: "half-open"}


def test_a_second_domain_does_not_suspect_a_route_that_has_just_been_asked() -> None:
    """One healed domain after another would otherwise stop everybody each time."""
    breakers = scopes()
    refuse(breakers, ORG, RELAY)
    refuse(breakers, NET, RELAY)
    breakers.canary(ROUTE, CanaryOutcome.ACCEPTED, "ok", NOW)
    refuse(breakers, COM, RELAY)
    assert standing(breakers).keys() == {ORG, NET, COM}


def test_a_refusal_of_us_is_the_routes() -> None:
    """A list that our address stands on knows no recipient domains."""
    breakers = scopes()
    refuse(breakers, ORG, LISTED)
    assert standing(breakers) == {ROUTE: "half-open"}
    breakers.canary(ROUTE, CanaryOutcome.UNCLEAR, "?", NOW)
    for _ in range(STOPS_TO_OPEN):
        assert standing(breakers) == {ROUTE: "half-open"}
        refuse(breakers, NET, LISTED)
    assert standing(breakers) == {ROUTE: "open"}


def test_who_has_no_domain_is_the_routes() -> None:
    """``<postmaster>`` alone (RFC 5321 4.1.1.3)."""
    breakers = scopes()
    one = seen(RELAY, "postmaster", sender_domain="s.example")
    breakers.observe([one], "x@s.example", NOW)
    assert standing(breakers) == {ROUTE: "half-open"}
    other = scopes()
    other.observe([seen("550 5.2.1 closed", "postmaster")], "", NOW)
    assert standing(other) == {}
    assert not other.has_proof("", "x.example", NOW)


# ---- one message is one, however many recipients it has


@pytest.mark.parametrize("text", [RELAY, LISTED, "530 5.7.0 Log in", "550 no", UNKNOWN])
@pytest.mark.parametrize("recipients", [1, 2, 3, 20])
def test_one_message_alone_opens_no_breaker(text: str, recipients: int) -> None:
    """Whatever its reply, and however many recipients share it."""
    breakers = scopes()
    domains = (ORG, NET, COM)
    some = [seen(text, f"u{n}@{domains[n % 3]}") for n in range(recipients)]
    breakers.observe(some, "x@example.com", NOW)
    assert "open" not in standing(breakers).values()


def test_one_message_that_probes_is_one_however_many_recipients_it_has() -> None:
    """So many messages open the breaker, not so many recipients."""
    breakers = scopes()
    refuse(breakers, ORG, LISTED)
    breakers.canary(ROUTE, CanaryOutcome.UNCLEAR, "?", NOW)
    some = [seen("550 5.2.1 no", f"u{n}@{ORG}") for n in range(20)]
    breakers.observe(some, "x@example.com", NOW)
    assert breakers.route.tried == 1
    for _ in range(STOPS_TO_OPEN - 1):
        assert standing(breakers)[ROUTE] == "half-open"
        refuse(breakers, NET, "550 5.2.1 no")
    assert standing(breakers)[ROUTE] == "open"


def test_one_message_tried_again_and_again_opens_none() -> None:
    """While the canary is welcome it stays the message's own trouble."""
    breakers = scopes()
    for n in range(20):
        one = seen(LISTED, f"u@{ORG}", sender_domain="evil.example", again=n > 0)
        breakers.observe([one], "x@evil.example", NOW)
        assert standing(breakers) == {ROUTE: "half-open"}
        breakers.canary(ROUTE, CanaryOutcome.ACCEPTED, "ok", NOW)
        assert "open" not in standing(breakers).values()


def test_among_deliveries_a_few_refusals_of_us_are_tolerated() -> None:
    """More of them in a row, with no delivery between, are asked about."""
    breakers = scopes()
    for _ in range(4):
        deliver(breakers, f"bob@{ORG}")
        for _ in range(STOPS_TOLERATED):
            refuse(breakers, ORG, LISTED)
            assert standing(breakers) == {}
    refuse(breakers, ORG, LISTED)
    assert standing(breakers) == {ROUTE: "half-open"}


def test_a_canary_speaks_for_no_stage_behind_rcpt() -> None:
    """Refusals of contents as if they were us are answered by real messages."""
    breakers = scopes()
    refuse(breakers, ORG, LISTED)
    breakers.canary(ROUTE, CanaryOutcome.ACCEPTED, "ok", NOW)
    refuse(breakers, ORG, LISTED)
    assert standing(breakers) == {}
    refuse(breakers, ORG, LISTED, stage=Stage.DOT)
    assert breakers.route.state is BreakerState.HALF_OPEN
    assert breakers.route.phase is Phase.MESSAGES
    deliver(breakers, f"bob@{ORG}")
    for _ in range(STOPS_TOLERATED):
        refuse(breakers, ORG, LISTED, stage=Stage.DOT)
        assert standing(breakers) == {}


@pytest.mark.parametrize(("sender", "most"), [("", 1), ("amy@s.example", MAX_VOUCHED)])
def test_while_nothing_is_delivered_canaries_are_not_believed_for_long(
    sender: str, most: int
) -> None:
    """A primary may exempt them, and the null sender above all, from what it denies."""
    breakers = BreakerRegistry(
        PAUSES, KnownGoodRecipients((f"known@{ORG}",), sender), lambda _b, _a: None
    )
    asked = 0
    while standing(breakers) != {ROUTE: "open"}:
        refuse(breakers, ORG, LISTED)
        if breakers.route.phase is Phase.CANARY and not breakers.route.is_closed:
            asked += 1
            breakers.canary(ROUTE, CanaryOutcome.ACCEPTED, "ok", NOW)
    assert asked == most + 1


def test_what_was_under_way_when_messages_began_to_probe_is_no_probe() -> None:
    """Twenty sessions may have begun with a stranger's messages."""
    breakers = scopes()
    refuse(breakers, ORG, LISTED, stage=Stage.DOT)
    breakers.since[ROUTE] = NOW
    for text in (LISTED, "550 5.2.1 no"):
        for n in range(20):
            one = seen(text, f"w{n}@{ORG}", sender_domain=f"w{n}.example")
            one = replace(one, began=NOW - SECOND)
            breakers.observe([one], f"x@w{n}.example", NOW)
    assert (breakers.route.state, breakers.route.tried) == (BreakerState.HALF_OPEN, 0)


def test_a_reply_that_names_us_behind_a_recipients_code_is_a_vote() -> None:
    """The recipient waits; the same to three of them is asked about."""
    breakers = scopes()
    text = "550 5.2.1 Your IP address has sent too much"
    for _ in range(3):
        assert standing(breakers) == {}
        refuse(breakers, ORG, text)
    assert standing(breakers) == {ORG: "half-open"}


def test_a_storm_is_asked_about_before_the_route_rests() -> None:
    """A stranger's mailbox may be what is put off."""
    breakers = scopes()
    for _ in range(STORM):
        refuse(breakers, ORG, "451 4.7.1 try again later")
    assert breakers.route.phase is Phase.CANARY
    breakers.canary(ROUTE, CanaryOutcome.ACCEPTED, "ok", NOW)
    assert standing(breakers) == {}


# ---- one domain of several


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (Stage.RCPT, "452 4.2.2 Over quota"),
        (Stage.RCPT, "552 5.2.2 Mailbox full"),
        (Stage.RCPT, "451 4.3.0 Temporary lookup failure"),
        (Stage.DOT, "451 4.3.0 Content filter failed"),
    ],
)
def test_a_domain_that_puts_everybody_off_is_suspected_alone(
    stage: Stage, text: str
) -> None:
    """The others go on, also when only mail for that domain is left.

    Three messages are enough where the domain took none.
    """
    for between, took in product((True, False), (True, False)):
        breakers = scopes()
        deliver(breakers, f"bob@{NET}")
        if took:
            deliver(breakers, f"bob@{ORG}")
        for _ in range(STORM if took else USUAL_WINDOWS.run):
            assert standing(breakers) == {}
            if between:
                deliver(breakers, f"bob@{NET}")
            refuse(breakers, ORG, text, stage=stage)
        assert standing(breakers) == {ORG: "half-open"}


def test_two_domains_that_put_everybody_off_are_the_route() -> None:
    """All three were delivered to before."""
    breakers = scopes()
    for domain in (COM, ORG, NET):
        deliver(breakers, f"bob@{domain}")
    for _ in range(STORM // 2):
        refuse(breakers, ORG, "451 4.3.0 Out of sorts")
        refuse(breakers, NET, "451 4.3.0 Out of sorts")
    assert standing(breakers) == {ROUTE: "half-open"}


@pytest.mark.parametrize("text", [LISTED, "450 4.7.1 Too many connections from you"])
def test_a_domain_that_refuses_us_while_others_accept_is_suspected_alone(
    text: str,
) -> None:
    """Two messages are enough where it accepted none; one may be a stranger's."""
    breakers = scopes()
    deliver(breakers, f"bob@{NET}")
    refuse(breakers, ORG, text)
    assert standing(breakers) == {}
    deliver(breakers, f"bob@{NET}")
    refuse(breakers, ORG, text)
    assert standing(breakers) == {ORG: "half-open"}


def test_a_domain_that_accepted_mail_tolerates_a_few_refusals_of_us() -> None:
    """More in a row are suspicious, although others are delivered between."""
    breakers = scopes()
    deliver(breakers, f"bob@{ORG}")
    for _ in range(STOPS_TOLERATED):
        deliver(breakers, f"bob@{NET}")
        refuse(breakers, ORG, LISTED)
        assert standing(breakers) == {}
    deliver(breakers, f"bob@{NET}")
    refuse(breakers, ORG, LISTED)
    assert standing(breakers) == {ORG: "half-open"}


def test_what_other_domains_accept_contradicts_no_refusal_of_a_whole_domain() -> None:
    """So its messages are not held one by one; a single one is."""
    breakers = scopes()
    found = classify(parse_reply(LISTED.encode()), Stage.RCPT)
    for is_alone in (True, False):
        refuse(breakers, ORG, LISTED)
        breakers.apply(ROUTE, lambda breaker: dismiss(breaker, NOW))
        deliver(breakers, f"bob@{NET}")
        held = breakers.contradicted_stop(found, ORG, Stage.RCPT, NOW - SECOND)
        assert held is is_alone


def test_a_domain_that_drops_every_connection_pauses_alone() -> None:
    """A run that ends meanwhile opens its breaker: its mail waits for it."""
    breakers = scopes()
    deliver(breakers, f"bob@{NET}")
    lost = Lost(reason="closed")
    for n in range(STORM):
        deliver(breakers, f"bob@{NET}")
        one = seen("250 ok", f"w{n}@{ORG}", stage=Stage.DATA)
        one = replace(one, answer=lost, classification=classify(lost, Stage.DATA))
        breakers.observe([one], "x@w.example", NOW)
    assert standing(breakers) == {ORG: "paused"}
    breakers.leave(ORG, NOW)
    assert standing(breakers) == {ORG: "open"}


def test_a_queue_of_one_message_is_answered_all_the_same() -> None:
    """Nobody knows an address to ask for: when the run ends, a person is asked."""
    breakers = scopes()
    refuse(breakers, ORG, LISTED, sender="one.example")
    breakers.canary(ROUTE, CanaryOutcome.UNCLEAR, "?", NOW)
    again = seen(LISTED, f"u@{ORG}", sender_domain="one.example", again=True)
    for _ in range(3):
        breakers.observe([again], "x@one.example", NOW)
        assert standing(breakers) == {ROUTE: "half-open"}
    breakers.apply(ROUTE, lambda breaker: on_run_end(breaker, NOW))
    assert standing(breakers) == {ROUTE: "open"}


def test_contents_alone_open_nothing() -> None:
    """Ninety of a hundred are spam; ten in a row are asked about."""
    breakers = scopes()
    for _ in range(9):
        refuse(breakers, ORG, "554 5.7.1 Spam", stage=Stage.DOT)
    assert standing(breakers) == {}
    refuse(breakers, ORG, "554 5.7.1 Spam", stage=Stage.DOT)
    assert standing(breakers) == {ORG: "half-open"}
    breakers.canary(ORG, CanaryOutcome.UNCLEAR, "?", NOW)
    for _ in range(3):
        refuse(breakers, ORG, "554 5.7.1 Spam", stage=Stage.DOT)
    assert standing(breakers) == {}


def test_contents_answer_no_other_question() -> None:
    """Whether relay is denied is not told by a virus filter."""
    breakers = scopes()
    refuse(breakers, ORG, RELAY)
    breakers.canary(ORG, CanaryOutcome.UNCLEAR, "?", NOW)
    for _ in range(5):
        refuse(breakers, ORG, "554 5.7.1 Spam", stage=Stage.DOT)
    assert breakers.breaker(ORG).tried == 0


# ---- contradictions


def test_the_operators_address_refused_as_unknown_opens_its_domain() -> None:
    """At once, and no other: its user table is not back."""
    breakers = scopes(f"boss@{ORG}")
    breakers.observe([seen(UNKNOWN, f"boss@{ORG}")], "", NOW)
    assert standing(breakers) == {ORG: "open"}
    assert breakers.breaker(ORG).cause is not None
    assert breakers.blocking_breaker(NET) is None


def test_another_refusal_of_the_operators_address_is_no_contradiction() -> None:
    """It exists, and may be closed."""
    breakers = scopes(f"boss@{ORG}")
    breakers.observe([seen("550 5.2.1 disabled", f"boss@{ORG}")], "", NOW)
    assert standing(breakers) == {}


def test_an_address_that_was_delivered_to_and_is_unknown_now_is_asked_about() -> None:
    """Once: it may have been deleted meanwhile."""
    breakers = scopes()
    deliver(breakers, f"bob@{ORG}")
    breakers.observe([seen(UNKNOWN, f"bob@{ORG}")], "", NOW)
    assert standing(breakers) == {ORG: "half-open"}
    breakers.canary(ORG, CanaryOutcome.ACCEPTED, "ok", NOW)
    breakers.observe([seen(UNKNOWN, f"bob@{ORG}")], "", NOW)
    assert standing(breakers) == {}


def test_the_canarys_contradiction_is_the_domains_that_it_met() -> None:
    """Others were accepted, so that it is not the route."""
    breakers = scopes()
    refuse(breakers, ORG, LISTED)
    breakers.record_contradiction(NET, ROUTE, UNKNOWN, NOW)
    breakers.canary(ROUTE, CanaryOutcome.ACCEPTED, "ok", NOW)
    assert standing(breakers) == {NET: "open"}
    cause = breakers.breaker(NET).cause
    assert cause is not None
    assert (cause.trigger, cause.reply) == ("contradiction", UNKNOWN)


def test_a_canary_that_was_sent_for_no_reason_contradicts_nothing() -> None:
    """It asks before refusals are confirmed, too."""
    breakers = scopes()
    breakers.record_contradiction(NET, ROUTE, UNKNOWN, NOW)
    assert standing(breakers) == {}


# ---- healing


def test_one_healed_domain_waits_for_no_other() -> None:
    """Each has a breaker of its own."""
    breakers = scopes(f"boss@{ORG}", f"boss@{NET}")
    for domain in (ORG, NET):
        breakers.observe([seen(UNKNOWN, f"boss@{domain}")], "", NOW)
    assert standing(breakers) == {ORG: "open", NET: "open"}
    for scope in (ORG, NET):
        until = breakers.breaker(scope).until
        assert until is not None
    breakers.apply(
        ORG, lambda breaker: CircuitBreaker(pauses=breaker.pauses, scope=breaker.scope)
    )
    assert standing(breakers) == {NET: "open"}
    assert breakers.blocking_breaker(ORG) is None
    assert ORG not in breakers.domains


def test_a_delivery_closes_what_probes_and_opens_no_other() -> None:
    """Also of another domain, as far as the route goes."""
    breakers = scopes()
    refuse(breakers, ORG, LISTED)
    breakers.canary(ROUTE, CanaryOutcome.UNCLEAR, "?", NOW)
    deliver(breakers, f"bob@{NET}")
    assert standing(breakers) == {}


def test_any_reply_ends_a_rest_that_a_storm_asked_for() -> None:
    """While the storm goes on the rest is longer."""
    breakers = scopes()
    for _ in range(STORM):
        refuse(breakers, ORG, "451 4.3.0 Out of sorts")
    breakers.canary(ROUTE, CanaryOutcome.UNCLEAR, "451 4.3.0 Out of sorts", NOW)
    storm(breakers)
    assert standing(breakers) == {ROUTE: "paused"}
    assert breakers.route.until == NOW + PAUSES[0]
    breakers.apply(ROUTE, rested)
    storm(breakers)
    assert breakers.route.until == NOW + PAUSES[1]
    breakers.apply(ROUTE, rested)
    refuse(breakers, ORG, "450 4.2.0 Busy")
    assert standing(breakers) == {ROUTE: "half-open"}  # a storm needs a delivery
    deliver(breakers, f"bob@{ORG}")
    assert standing(breakers) == {}


def storm(breakers: BreakerRegistry) -> None:
    """Let each message that probes be put off."""
    for _ in range(STOPS_TO_PAUSE):
        assert standing(breakers) == {ROUTE: "half-open"}
        refuse(breakers, ORG, "451 4.3.0 Out of sorts")


def rested(breaker: CircuitBreaker) -> CircuitBreaker:
    """Let the time of a rest be over."""
    assert breaker.until is not None
    return probe(breaker, breaker.until)


def test_a_loss_after_mail_tells_the_breakers_nothing() -> None:
    """It may be this content that the primary cannot bear."""
    breakers, moves = with_moves(KnownGoodRecipients())
    lost = Lost(reason="closed")
    one = Refusal(
        sender_domain="s.example",
        recipient=f"u@{ORG}",
        recipient_domain=ORG,
        stage=Stage.BODY,
        classification=classify(lost, Stage.BODY),
        answer=lost,
    )
    for _ in range(30):
        breakers.observe([one], "x@s.example", NOW)
    assert moves == []


# ---- proof


def test_mail_of_others_proves_a_scope() -> None:
    """Of another sender, since then, in the same domain, and nothing in the way."""
    breakers = scopes()
    before = NOW - SECOND
    assert not breakers.has_proof(ORG, "evil.example", before)
    deliver(breakers, f"bob@{ORG}", "amy@evil.example")
    assert not breakers.has_proof(ORG, "evil.example", before)
    deliver(breakers, f"bob@{ORG}", "amy@good.example")
    assert breakers.has_proof(ORG, "evil.example", before)
    assert breakers.has_proof(ORG, "good.example", before)  # by the other's
    assert not breakers.has_proof(ORG, "evil.example", NOW)
    assert not breakers.has_proof(NET, "evil.example", before)


def test_only_the_last_two_senders_are_remembered() -> None:
    """That is enough to find another one than any."""
    breakers = scopes()
    for sender in ("a.example", "b.example", "c.example", "c.example"):
        deliver(breakers, f"bob@{ORG}", f"x@{sender}")
    assert breakers.has_proof(ORG, "c.example", NOW - SECOND)
    assert breakers.has_proof(ORG, "b.example", NOW - SECOND)


def test_an_accepted_canary_proves_nothing_about_mail() -> None:
    """It has no content, and it may have reached another host."""
    breakers = scopes()
    breakers.on_accepted(ORG, NOW)
    assert not breakers.has_proof(ORG, "any.example", NOW - SECOND)


def test_only_an_attachment_that_was_delivered_proves_one_that_was_refused() -> None:
    """A filter for attachments sees no other mail."""
    breakers = scopes()
    needed = partial(
        breakers.has_proof, ORG, "x.example", NOW - SECOND, attachment=True
    )
    deliver(breakers, f"u@{ORG}")
    assert breakers.has_proof(ORG, "x.example", NOW - SECOND)
    assert not needed()
    sent = seen("250 ok", f"u@{ORG}", sender_domain="s.example", stage=Stage.DOT)
    breakers.observe([replace(sent, attachment=True)], "amy@s.example", NOW)
    assert needed()


def test_what_an_earlier_run_delivered_proves_a_scope_too() -> None:
    """Where the canary is told nothing; not any more when it is refused."""
    breakers = scopes()
    breakers.recall(ORG, "evil.example", NOW)
    breakers.recall(ORG, "good.example", NOW)
    breakers.canary(ORG, CanaryOutcome.UNCLEAR, "450 later", NOW)
    assert breakers.has_proof(ORG, "evil.example", NOW - SECOND)
    assert not breakers.has_proof(NET, "evil.example", NOW - SECOND)
    breakers.canary(ORG, CanaryOutcome.REFUSED, UNKNOWN, NOW)
    assert not breakers.has_proof(ORG, "evil.example", NOW - SECOND)


@pytest.mark.parametrize("scope", [ROUTE, ORG])
def test_nothing_is_proven_behind_a_breaker(scope: str) -> None:
    """Be it open, or only suspected."""
    breakers = scopes()
    refuse(breakers, ORG, LISTED if scope == ROUTE else RELAY)
    breakers.recall(ORG, "good.example", NOW)
    breakers.on_accepted(ORG, NOW)
    assert standing(breakers) == {scope: "half-open"}
    assert not breakers.has_proof(ORG, "evil.example", NOW - SECOND)


# ---- what it remembers


def test_every_move_is_reported_and_nothing_else() -> None:
    """Old and new breaker; a breaker that stays as it is has not moved."""
    breakers, moves = with_moves(KnownGoodRecipients())
    deliver(breakers, f"bob@{ORG}")
    refuse(breakers, ORG)
    for _ in range(STOPS_TOLERATED):
        refuse(breakers, ORG, LISTED)
    assert moves == []
    refuse(breakers, ORG, LISTED)
    assert [(b.state, a.state) for b, a in moves] == [
        (BreakerState.CLOSED, BreakerState.HALF_OPEN)
    ]
    assert breakers.known.sender == "amy@s.example"


def test_a_breaker_is_taken_over_without_a_move() -> None:
    """It was told by the run that moved it."""
    breakers, moves = with_moves(KnownGoodRecipients())
    classification = seen(RELAY, f"u@{ORG}").classification
    cause = Cause(trigger="stop", classification=classification, reply=RELAY)
    breaker = CircuitBreaker(
        pauses=PAUSES, scope=ORG, state=BreakerState.OPEN, cause=cause
    )
    breakers.restore(breaker)
    assert breakers.breaker(ORG) == breaker
    assert breakers.all() == (breakers.route, breaker)
    assert moves == []
    breakers.restore(CircuitBreaker(pauses=PAUSES, state=BreakerState.PAUSED))
    assert standing(breakers) == {ROUTE: "paused", ORG: "open"}


def test_strangers_domains_cost_no_memory_without_end() -> None:
    """A spool may name millions."""
    breakers = scopes()
    for n in range(MAX_DOMAINS + 10):
        breakers.recall(f"d{n}.example", "s.example", NOW)
    assert not breakers.has_proof("d0.example", "x.example", NOW - SECOND)
    assert breakers.has_proof("d20.example", "x.example", NOW - SECOND)


def test_what_a_canary_cannot_see_is_asked_by_messages() -> None:
    """SPF judges the sender, and the canary has another."""
    breakers = scopes()
    for _ in range(3):
        refuse(breakers, ORG, "550 5.7.23 SPF fail")
    breaker = breakers.breaker(ORG)
    assert (breaker.state, breaker.phase) == (BreakerState.HALF_OPEN, Phase.MESSAGES)


@pytest.mark.parametrize("outcome", list(CanaryOutcome))
def test_an_answer_about_a_breaker_that_flows_moves_nothing(
    outcome: CanaryOutcome,
) -> None:
    """The canary also asks before refusals are confirmed."""
    breakers, moves = with_moves(KnownGoodRecipients())
    breakers.canary(ORG, outcome, "x", NOW)
    assert moves == []


def test_a_primary_that_answers_slowly_gets_a_rest() -> None:
    """Any reply of a message ends it."""
    breakers = scopes()
    for _ in range(SLOW_RUN - 1):
        breakers.record_dot_time(USUAL_WINDOWS.slow, NOW)
    assert standing(breakers) == {}
    breakers.record_dot_time(USUAL_WINDOWS.slow, NOW)
    assert standing(breakers) == {ROUTE: "paused"}
    assert breakers.route.cause is not None
    assert breakers.route.cause.reply == "the final dot was answered after 30 s"
    breakers.apply(ROUTE, rested)
    refuse(breakers, ORG, "450 4.2.0 Busy")
    assert standing(breakers) == {}


# ---- the end of a run


@pytest.mark.parametrize("welcomed", [False, True])
@pytest.mark.parametrize("stage", [Stage.FORWARD, Stage.MAIL])
def test_xforward_put_off_where_nothing_was_ever_accepted_stops_delivery(
    stage: Stage, *, welcomed: bool
) -> None:
    """Other brief refusals do not, nor after a delivery of an earlier run."""
    breakers = scopes()
    if welcomed:
        breakers.recall(ORG, "s.example", NOW - SECOND)
    for _ in range(STOPS_TO_PAUSE - 2):
        refuse(breakers, ORG, "451 4.3.0 not now", stage=stage)
    assert breakers.route.state is BreakerState.HALF_OPEN
    breakers.leave(ROUTE, NOW)
    is_open = stage is Stage.FORWARD and not welcomed
    ended = BreakerState.OPEN if is_open else BreakerState.HALF_OPEN
    assert breakers.route.state is ended


@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DOT])
def test_a_refusal_that_is_repeated_after_deliveries_shows_nothing_new(
    stage: Stage,
) -> None:
    """Retries and confirming attempts come last, in a row: they open no breaker."""
    breakers = scopes()
    breakers.recall(ORG, "other.example", NOW + SECOND)
    for n in range(20):
        sender = f"s{n}.example"
        one = seen("550 5.7.1 No", f"u{n}@{ORG}", sender_domain=sender, stage=stage)
        for again in (replace(one, refused=NOW), replace(one, elsewhere=True)):
            breakers.observe([again], f"x@{sender}", NOW + 2 * SECOND)
    assert not standing(breakers)
    for _ in range(3):
        refuse(breakers, ORG, "550 5.7.1 No", stage=stage)
    assert standing(breakers) == {ORG: "half-open"}


def test_a_suspicion_that_nothing_confirmed_is_dropped_after_a_delivery() -> None:
    """The refused mail was the last of the queue."""
    for delivers in (True, False):
        breakers = scopes()
        if delivers:
            deliver(breakers, f"amy@{ORG}")
        for _ in range(3):
            refuse(breakers, ORG, "550 5.7.1 No", stage=Stage.DOT)
        assert standing(breakers) == {ORG: "half-open"}
        breakers.leave(ORG, NOW)
        assert standing(breakers) == ({} if delivers else {ORG: "open"})


@pytest.mark.parametrize(
    ("senders", "recalled", "state"),
    [
        (("a.test", "a.test"), True, {}),
        (("a.test", "b.test"), True, {ROUTE: "open"}),
        (("a.test",), False, {ROUTE: "open"}),
    ],
)
def test_one_sender_that_is_left_over_stops_no_primary_that_took_mail_lately(
    senders: tuple[str, ...], state: dict[str, str], *, recalled: bool
) -> None:
    """All other mail was delivered by an earlier run."""
    breakers = scopes()
    if recalled:
        breakers.recall(ORG, "other.example", NOW)
    for sender in senders:
        refuse(breakers, ORG, LISTED, stage=Stage.DOT, sender=sender)
    breakers.leave(ORG, NOW)
    breakers.leave(ROUTE, NOW)
    assert standing(breakers) == state


def test_a_policy_that_is_named_in_the_reply_to_data_is_no_finding() -> None:
    """No content was sent: such refusals are suspicious, in a row."""
    breakers = scopes()
    deliver(breakers, f"amy@{ORG}")
    for _ in range(3):
        refuse(breakers, ORG, "554 5.7.1 Rejected by policy", stage=Stage.DATA)
    assert standing(breakers) == {ORG: "half-open"}


@pytest.mark.parametrize(
    ("text", "is_dry", "state"),
    [
        ("554 5.7.1 Administrative prohibition", True, {ORG: "half-open"}),
        ("550 Rejected by policy", True, {ORG: "half-open"}),
        ("550 Rejected by policy", False, {}),
        ("554 5.7.1 Message rejected as spam", True, {}),
    ],
)
def test_policy_in_words_is_suspicious_where_nothing_was_delivered(
    text: str, state: dict[str, str], *, is_dry: bool
) -> None:
    """It names no finding. Where other mail passes, it is about the content."""
    breakers = scopes()
    for n in range(3):
        sender = f"s{n}.example"
        one = seen(text, f"u{n}@{ORG}", sender_domain=sender, stage=Stage.DOT)
        breakers.observe([replace(one, is_dry=is_dry)], f"x@{sender}", NOW)
    assert standing(breakers) == state
    assert breakers.is_dry(ORG)
    deliver(breakers, f"amy@{ORG}")
    assert not breakers.is_dry(ORG)
