"""Whatever happens, in whatever order: what no primary can bring the breakers to do.

A machine plays mail, canaries, timers and restarts at random, in virtual time.
"""

from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from msgspec.structs import replace

from drainer.mail.envelope import Recipient
from drainer.mail.reply import Lost, Stage, parse_reply
from drainer.policy.breaker import breaker as breakers
from drainer.policy.breaker.breaker import (
    BreakerState,
    CanaryOutcome,
    Cause,
    CircuitBreaker,
)
from drainer.policy.breaker.detector import Refusal
from drainer.policy.breaker.history import ROUTE
from drainer.policy.breaker.known_good import KnownGoodRecipients
from drainer.policy.breaker.registry import BreakerRegistry
from drainer.policy.classify.classifier import Answer, classify
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.policy.recipient.judge import (
    BY_NODE,
    CONTRADICTED,
    ClassifiedResult,
    RecipientResult,
    SettleContext,
    classify_attempt,
    exempt_message_specific,
)
from drainer.policy.recipient.settle import settle
from drainer.policy.recipient.state import CLAIMABLE, State
from tests.support.scenarios.settlements import NOW, PAUSES, SCHEDULE

DOMAINS = ("example.org", "example.net")
SENDERS = ("a.example", "b.example", "c.example")
REFUSALS = (
    "550 5.1.1 User unknown",
    "550 no",
    "554 5.7.1 Relay access denied",
    "554 5.7.1 Client host [192.0.2.7] blocked using bl.example",
    "530 5.7.0 Log in first",
    "550 5.7.23 SPF fail",
    "550 5.4.6 Loop",
    "554 5.7.1 Spam",
)
DELAYS = ("450 4.2.0 Busy", "451 4.3.0 Sick", "421 4.3.2 Bye", "452 4.2.2 Full")
SPAM = "554 5.7.1 Spam"
ANSWERS = st.one_of(
    st.sampled_from((*REFUSALS, *DELAYS, "250 ok")).map(
        lambda text: parse_reply(text.encode())
    ),
    st.just(Lost(reason="closed")),
)
AFTER_MAIL = st.sampled_from([Stage.MAIL, Stage.RCPT, Stage.BODY, Stage.DOT])


def at_stage(answer: Answer, stage: Stage) -> Stage:
    """Return a stage at which a recipient's attempt may end so."""
    accepted = classify(answer, stage).verdict is Verdict.DELIVER
    return Stage.DOT if accepted else stage


class Drain(RuleBasedStateMachine):
    """One primary, a dozen recipients in two domains, and time."""

    @initialize()
    def begin(self) -> None:
        """Start with mail flowing."""
        self.now = NOW
        self.doing = "begin"
        self.scopes = BreakerRegistry(PAUSES, KnownGoodRecipients(), self.moved)
        self.left = {n: self.recipient(n) for n in range(12)}
        #: How the last attempt of each ended, and who had sent it.
        self.last: dict[int, tuple[Answer, Stage, str]] = {}

    def recipient(self, n: int) -> ClaimedRecipient:
        """Return a recipient that was not tried yet."""
        to = Recipient(forward_path=f"u{n}@{DOMAINS[n % 2]}")
        return ClaimedRecipient(n=n, recipient=to)

    def moved(self, before: CircuitBreaker, after: CircuitBreaker) -> None:
        """Check one move of a breaker, and do what the ledger does about it."""
        if before.state is BreakerState.OPEN:
            assert after.state is BreakerState.HALF_OPEN
            assert self.doing in ("wait", "restart")
        if before.reopening and after.is_closed:
            assert self.doing == "delivered"
        if after.state is BreakerState.OPEN:
            assert self.doing in ("refused", "canary refused", "early")
            self.taken_back(after.scope)

    def taken_back(self, scope: str) -> None:
        """Forget what was refused behind a breaker that opened."""
        for n, claimed in self.left.items():
            if scope in (ROUTE, claimed.domain):
                self.left[n] = self.recipient(claimed.n)

    @rule(data=st.data(), answer=ANSWERS, stage=AFTER_MAIL, sender=st.integers(0, 2))
    def attempt(
        self, data: st.DataObject, answer: Answer, stage: Stage, sender: int
    ) -> None:
        """Let one message end, with one to three recipients."""
        stage = at_stage(answer, stage)
        some = st.lists(st.sampled_from(sorted(self.left)), min_size=1, max_size=3)
        numbers = data.draw(some.map(lambda drawn: sorted(set(drawn))))
        self.end(numbers, answer, stage, SENDERS[sender])

    def end(
        self, numbers: list[int], answer: Answer, stage: Stage, sender: str
    ) -> None:
        """Judge, observe and settle what one message's attempt ended with."""
        endings = [
            RecipientResult(claimed=self.left[n], stage=stage, answer=answer)
            for n in numbers
        ]
        moment = SettleContext(
            now=self.now,
            draw=0.5,
            sender_domain=sender,
            breakers=self.scopes,
            schedule=SCHEDULE,
            kept=True,
        )
        judged = exempt_message_specific(classify_attempt(endings, ()), moment)
        verdicts = {each.classification.verdict for each in judged}
        self.doing = "delivered" if Verdict.DELIVER in verdicts else "refused"
        for n in numbers:
            self.last[n] = (answer, stage, sender)
        self.observe(judged, sender)
        self.settle(judged, moment)

    @precondition(lambda self: any(each.refusal for each in self.left.values()))
    @rule(
        data=st.data(),
        minutes=st.sampled_from((0, 10, 61, 300)),
        others=st.sampled_from((True, True, False)),
        then=st.sampled_from(("", "", "relay denied")),
    )
    def once_more(
        self, data: st.DataObject, minutes: int, *, others: bool, then: str
    ) -> None:
        """Let the same refusal come again; perhaps others were welcome before."""
        refused = [n for n, each in self.left.items() if each.refusal]
        n = data.draw(st.sampled_from(refused))
        self.now += timedelta(minutes=minutes)
        if others:
            self.elsewhere("250 ok", n)
        if then:
            self.elsewhere("554 5.7.1 Relay access denied", n)
        self.end([n], *self.last[n])

    def elsewhere(self, text: str, n: int) -> None:
        """Let mail of yet another sender end, in the same domain."""
        self.doing = "delivered" if text == "250 ok" else "refused"
        one = an_end(text, n + 100, "other.example")
        self.scopes.observe([one], "x@other.example", self.now)

    def observe(self, judged: tuple[ClassifiedResult, ...], sender: str) -> None:
        """Let the breakers look, as the guard does."""
        attempt = [
            Refusal(
                sender_domain=sender,
                recipient=each.result.claimed.recipient.forward_path,
                recipient_domain=each.result.claimed.domain,
                stage=each.result.stage,
                classification=each.classification,
                answer=each.result.answer,
                again=each.result.claimed.refusal == Verdict.STOP.value,
            )
            for each in judged
            if each.classification.rule not in (CONTRADICTED, BY_NODE)
        ]
        self.scopes.observe(attempt, f"x@{sender}", self.now)

    def settle(
        self, judged: tuple[ClassifiedResult, ...], moment: SettleContext
    ) -> None:
        """Settle, and check that nothing became final that may not."""
        for found in settle(judged, moment):
            claimed = found.claimed
            if found.state is State.QUARANTINED:
                assert self.scopes.blocking_breaker(claimed.domain) is None
                assert claimed.refused is not None
                assert claimed.refused + SCHEDULE.confirm_after <= self.now
                assert found.classification.verdict is Verdict.BOUNCE
            if found.state in (*CLAIMABLE, State.BOUNCE_PENDING):
                self.left[claimed.n] = ClaimedRecipient(
                    n=claimed.n,
                    recipient=claimed.recipient,
                    attempts=found.attempts,
                    doubts=found.doubts,
                    drops=found.drops,
                    solo=found.solo,
                    spent=found.spent,
                    refusal=found.refusal,
                    refused=found.refused,
                )
            else:  # the next message to the same recipient
                self.left[claimed.n] = self.recipient(claimed.n)

    @rule(text=st.sampled_from(("421 x", "554 x")))
    def connect(self, text: str) -> None:
        """Let a session be refused before MAIL."""
        self.doing = "early"
        classification = classify(parse_reply(text.encode()), Stage.BANNER)
        cause = Cause(trigger="early", classification=classification, reply=text)
        self.scopes.apply(
            ROUTE, lambda breaker: breakers.on_early_refusal(breaker, cause, self.now)
        )

    @rule(
        scope=st.sampled_from((ROUTE, *DOMAINS)), outcome=st.sampled_from(CanaryOutcome)
    )
    def canary(self, scope: str, outcome: CanaryOutcome) -> None:
        """Let a canary come back."""
        self.doing = f"canary {outcome}"
        self.scopes.canary(scope, outcome, "x", self.now)

    @rule(minutes=st.sampled_from((1, 5, 61, 300)))
    def wait(self, minutes: int) -> None:
        """Let time pass, and the timers go off."""
        self.doing = "wait"
        self.now += timedelta(minutes=minutes)
        for breaker in self.scopes.all():
            self.scopes.apply(breaker.scope, lambda g: breakers.probe(g, self.now))

    @rule()
    def restart(self) -> None:
        """End the run and begin another: the breakers are kept, the rest is not."""
        self.doing = "restart"
        kept = self.scopes.all()
        self.scopes = BreakerRegistry(PAUSES, KnownGoodRecipients(), self.moved)
        for breaker in kept:
            self.scopes.restore(breaker)
            self.scopes.apply(breaker.scope, breakers.recheck)

    @invariant()
    def every_breaker_that_waits_has_an_end(self) -> None:
        """Nothing waits for ever: a timer, a canary, or a message moves it."""
        for breaker in self.scopes.all():
            if breaker.state in (BreakerState.OPEN, BreakerState.PAUSED):
                assert breaker.until is not None
                assert breaker.until <= self.now + max(breakers.LAST_PROBE, *PAUSES)


Drain.TestCase.settings = settings(max_examples=50, stateful_step_count=40)
TestDrain = Drain.TestCase


SOME = st.lists(
    st.tuples(
        st.sampled_from((*[SPAM] * 30, "250 ok", *DELAYS[:2])),
        st.integers(0, 1000),
        st.sampled_from((CanaryOutcome.ACCEPTED, CanaryOutcome.UNCLEAR)),
    ),
    min_size=30,
    max_size=60,
)


def an_end(text: str, n: int, sender: str) -> Refusal:
    """Return the ending of a recipient in one of the domains, at the dot."""
    reply = parse_reply(text.encode())
    domain = DOMAINS[n % 2]
    return Refusal(
        sender_domain=sender,
        recipient=f"u{n}@{domain}",
        recipient_domain=domain,
        stage=Stage.DOT,
        classification=classify(reply, Stage.DOT),
        answer=reply,
    )


def never_open(before: CircuitBreaker, after: CircuitBreaker) -> None:
    """Be told of a move that may not be an opening."""
    assert after.state is not BreakerState.OPEN, (before, after)


def answer_canaries(
    scopes: BreakerRegistry, outcome: CanaryOutcome, now: datetime
) -> None:
    """Let every canary that is out come back."""
    for breaker in scopes.all():
        scopes.canary(breaker.scope, outcome, "x", now)


@given(SOME)
def test_refused_contents_alone_open_no_breaker(
    events: list[tuple[str, int, CanaryOutcome]],
) -> None:
    """Nine of ten messages that strangers sent to a backup are spam."""
    scopes = BreakerRegistry(PAUSES, KnownGoodRecipients(), never_open)
    for text, n, outcome in events:
        scopes.observe([an_end(text, n, f"s{n}.example")], "x@s.example", NOW)
        answer_canaries(scopes, outcome, NOW)


@given(
    st.lists(
        st.tuples(st.sampled_from((*REFUSALS, *DELAYS)), st.integers(1, 5)), max_size=30
    )
)
def test_one_message_opens_no_breaker_while_the_canary_is_welcome(
    attempts: list[tuple[str, int]],
) -> None:
    """Whatever it is told, to however many recipients, however often."""
    scopes = BreakerRegistry(PAUSES, KnownGoodRecipients(), never_open)
    met = False
    for text, recipients in attempts:
        some = [an_end(text, n, "evil.example") for n in range(recipients)]
        if met:
            some = [_again(each) for each in some]
        scopes.observe(some, "x@evil.example", NOW)
        if some[0].classification.verdict is Verdict.HOLD:
            break  # it is not tried again
        met = met or _is_stop(some[0])
        answer_canaries(scopes, CanaryOutcome.ACCEPTED, NOW)
        for breaker in scopes.all():
            scopes.apply(breaker.scope, lambda g: breakers.probe(g, NOW + max(PAUSES)))
            scopes.apply(breaker.scope, breakers.on_reply)


def _is_stop(seen: Refusal) -> bool:
    return seen.classification.verdict is Verdict.STOP and not seen.classification.short


def _again(seen: Refusal) -> Refusal:

    return replace(seen, again=True)
