"""Many sessions at once: in which order replies come changes no verdict.

Twenty sessions send mail to one primary, in virtual time. Which of them starts or ends
next is random, and so is the order of the mail.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from drainer.mail.envelope import Recipient
from drainer.mail.reply import Stage, parse_reply
from drainer.policy.breaker.breaker import (
    BreakerState,
    CanaryOutcome,
    CircuitBreaker,
    Phase,
)
from drainer.policy.breaker.detector import Refusal
from drainer.policy.breaker.known_good import KnownGoodRecipients
from drainer.policy.breaker.registry import BreakerRegistry
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.policy.recipient.judge import (
    BY_NODE,
    CONTRADICTED,
    RecipientResult,
    SettleContext,
    classify_attempt,
    exempt_message_specific,
)
from drainer.policy.recipient.settle import settle
from drainer.policy.recipient.state import State
from tests.support.scenarios.settlements import NOW, PAUSES, SCHEDULE

DOMAIN = "example.org"
TICK = timedelta(milliseconds=1)
OK = "250 2.0.0 ok"
UNKNOWN = "550 5.1.1 User unknown"
MOST_ATTEMPTS = 4
"""After so many a message is left to another drain."""
Reply = tuple[Stage, str]
REFUSALS_OF_US = (
    (Stage.RCPT, "554 5.7.1 Relay access denied"),
    (Stage.RCPT, "554 5.7.1 Client host [192.0.2.7] blocked using bl.example"),
    (Stage.MAIL, "550 5.7.1 Your host is not allowed to connect"),
    (Stage.DOT, "554 5.7.1 Your IP address [192.0.2.7] is blocked"),
    (Stage.DOT, "554 5.7.1 scanner failed"),
    (Stage.RCPT, "450 4.7.1 Too many connections from your host"),
)
OF_EVERYBODY = (
    *REFUSALS_OF_US,
    (Stage.RCPT, UNKNOWN),
    (Stage.RCPT, "550 no"),
    (Stage.RCPT, "552 5.2.2 Mailbox full"),
    (Stage.RCPT, "452 4.2.2 Over quota"),
    (Stage.RCPT, "451 4.3.0 Temporary lookup failure"),
    (Stage.MAIL, "550 5.1.8 Sender address rejected: Domain not found"),
    (Stage.DOT, "550 5.7.1 Command rejected"),
    (Stage.DOT, "451 4.3.0 Queue file write error"),
    (Stage.DOT, "550 5.7.23 SPF fail"),
    (Stage.DOT, "550 5.6.11 Bare line feed"),
)


@dataclass(slots=True)
class Drain:
    """Sessions that send messages, each with its own reply, to one domain."""

    random: Random
    #: By message, in the order of the queue.
    replies: dict[int, Reply]
    #: How the primary answers the canary; UNCLEAR if none is known to exist.
    canary: CanaryOutcome
    sessions: int = 20
    now: datetime = NOW
    #: A breaker has opened, or paused.
    stopped: bool = False
    #: The last state of each message.
    states: dict[int, State] = field(default_factory=dict)
    _registry: BreakerRegistry = field(init=False)
    _claimed: dict[int, ClaimedRecipient] = field(default_factory=dict)
    _waiting: list[int] = field(default_factory=list)
    _in_flight: dict[int, datetime] = field(default_factory=dict)
    attempts: int = 0

    def __post_init__(self) -> None:
        """Queue the mail."""
        self._registry = BreakerRegistry(
            PAUSES, KnownGoodRecipients((), "op@backup.example"), self._moved
        )
        for n in self.replies:
            to = Recipient(forward_path=f"u{n}@{DOMAIN}")
            self._claimed[n] = ClaimedRecipient(n=0, recipient=to)
        self._waiting = list(self.replies)

    def _moved(self, before: CircuitBreaker, after: CircuitBreaker) -> None:
        """Note what the guard notes; an opened breaker judges no message."""
        probes = after.is_probed and not before.is_probed
        if probes:
            self._registry.since[after.scope] = self.now
            self.random.shuffle(self._waiting)
        stops = (BreakerState.OPEN, BreakerState.PAUSED)
        self.stopped = self.stopped or after.state in stops
        if after.state is BreakerState.OPEN:
            for n, state in self.states.items():
                if state in (State.BOUNCE_PENDING, State.HELD):
                    self.states[n] = State.DEFERRED

    def run(self) -> None:
        """Send until nothing is left that may be sent."""
        while not self.stopped and (self._waiting or self._in_flight):
            self.now += TICK
            self._answer_canaries()
            if self._may_start() and (
                not self._in_flight or self.random.random() < 0.5
            ):
                self._in_flight[self._waiting.pop(0)] = self.now
            elif self._in_flight:
                self._end(self.random.choice(list(self._in_flight)))
        for breaker in self._registry.all():
            self._registry.leave(breaker.scope, self.now)

    def _may_start(self) -> bool:
        breaker = self._registry.blocking_breaker(DOMAIN)
        limit = self.sessions if breaker is None else 1
        return bool(self._waiting) and len(self._in_flight) < limit

    def _answer_canaries(self) -> None:
        for breaker in self._registry.all():
            half_open = breaker.state is BreakerState.HALF_OPEN
            if half_open and breaker.phase is Phase.CANARY:
                self._registry.canary(breaker.scope, self.canary, "x", self.now)

    def _end(self, n: int) -> None:
        """Judge, observe and settle one attempt, as a delivery worker does."""
        began, claimed = self._in_flight.pop(n), self._claimed[n]
        self.attempts += 1
        stage, text = self.replies[n]
        sender = f"s{n % 13}.example"
        result = RecipientResult(
            claimed=claimed, stage=stage, answer=parse_reply(text.encode())
        )
        context = SettleContext(
            now=self.now,
            draw=0.5,
            sender_domain=sender,
            breakers=self._registry,
            schedule=SCHEDULE,
        )
        results = exempt_message_specific(classify_attempt([result], ()), context)
        (each,) = results
        if each.classification.rule not in (CONTRADICTED, BY_NODE):
            seen = Refusal(
                sender_domain=sender,
                recipient=claimed.recipient.forward_path,
                recipient_domain=DOMAIN,
                stage=stage,
                classification=each.classification,
                answer=result.answer,
                again=claimed.refusal == Verdict.STOP.value,
                retried=claimed.attempts > 0,
                began=began,
            )
            self._registry.observe([seen], f"x@{sender}", self.now)
        (settled,) = settle(results, context)
        self.states[n] = settled.state
        again = claimed.attempts + 1 < MOST_ATTEMPTS
        self._claimed[n] = replace(
            claimed,
            attempts=claimed.attempts + 1,
            refusal=settled.refusal,
            refused=settled.refused,
        )
        if settled.state is State.DEFERRED and again:
            self._waiting.append(n)


@given(
    seed=st.integers(0, 2**32),
    refusal=st.sampled_from(REFUSALS_OF_US),
    shares=st.tuples(st.integers(1, 10), st.integers(0, 10)),
    count=st.integers(40, 150),
    canary=st.sampled_from((CanaryOutcome.ACCEPTED, CanaryOutcome.UNCLEAR)),
)
def test_a_minority_of_stops_opens_no_breaker_of_a_healthy_primary(
    seed: int,
    refusal: Reply,
    shares: tuple[int, int],
    count: int,
    canary: CanaryOutcome,
) -> None:
    """Up to one of ten is refused like us, and as many users are unknown."""
    stops, unknown = (share * count // 100 for share in shares)
    replies: dict[int, Reply] = dict.fromkeys(range(count), (Stage.DOT, OK))
    replies |= dict.fromkeys(range(stops), refusal)
    replies |= dict.fromkeys(range(stops, stops + unknown), (Stage.RCPT, UNKNOWN))
    random, queue = Random(seed), list(replies.items())  # noqa: S311 - not a secret
    random.shuffle(queue)
    drain = Drain(random=random, replies=dict(queue), canary=canary)
    drain.run()
    assert not drain.stopped
    delivered = {n for n, state in drain.states.items() if state is State.DELIVERED}
    assert delivered == set(range(stops + unknown, count))


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    healthy=st.integers(0, 40),
    sessions=st.integers(1, 20),
)
@pytest.mark.parametrize("refusal", OF_EVERYBODY, ids=lambda each: each[1][:40])
def test_the_same_answer_for_everybody_always_opens_the_breaker(
    refusal: Reply, seed: int, healthy: int, sessions: int
) -> None:
    """Also after some were delivered; few are tried, and no message is judged."""
    stage, text = refusal
    is_unseen = stage is Stage.DOT or "Sender" in text  # by a canary
    before = dict.fromkeys(range(1000, 1000 + healthy), (Stage.DOT, OK))
    drain = Drain(
        random=Random(seed),  # noqa: S311 - not a secret
        replies=before | dict.fromkeys(range(60), refusal),
        canary=CanaryOutcome.ACCEPTED if is_unseen else CanaryOutcome.UNCLEAR,
        sessions=sessions,
    )
    drain.run()
    assert drain.stopped
    assert not {State.BOUNCE_PENDING, State.HELD} & set(drain.states.values())
