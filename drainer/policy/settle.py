"""One attempt's endings -> what becomes of each recipient. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from drainer.mail.reply import Stage
from drainer.policy.classify import Answer, classify
from drainer.policy.job import Claimed
from drainer.policy.rules import Rule
from drainer.policy.schedule import Schedule
from drainer.policy.state import CLAIMABLE, Event, State, follow
from drainer.policy.verdict import Judgement, Verdict

MAX_DOUBTS = 3
"""After so many lost replies to the final dot a message is held (poison?)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one recipient's attempt ended."""

    claimed: Claimed
    stage: Stage
    answer: Answer
    #: Recipients accepted before this one in the same transaction.
    accepted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What becomes of one recipient."""

    claimed: Claimed
    stage: Stage
    judgement: Judgement
    state: State
    #: None unless the new state waits for a time.
    due: datetime | None
    attempts: int
    doubts: int
    #: The peer's words, or ours when it had none.
    reply: str


_EVENTS = {
    Verdict.DELIVER: Event.DELIVER,
    Verdict.RETRY: Event.RETRY,
    Verdict.RETRY_LONG: Event.RETRY,
    Verdict.STOP: Event.STOP,
    Verdict.BOUNCE: Event.BOUNCE,
    Verdict.HOLD: Event.HOLD,
    Verdict.UNKNOWN: Event.DOUBT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What settling goes by: when to try again, and the operator's own rules."""

    schedule: Schedule = field(default_factory=Schedule)
    rules: Sequence[Rule] = ()


def settle(
    endings: Iterable[Ending], *, now: datetime, policy: Policy, draw: float
) -> tuple[Settlement, ...]:
    """Settle every recipient of one attempt; ``draw`` in [0, 1) is the jitter.

    The recipients of one message share the draw, so that they stay together in
    one transaction when they are tried again.
    """
    return tuple(_settle(ending, now, policy, draw) for ending in endings)


def _judge(ending: Ending, rules: Sequence[Rule]) -> Judgement:
    judgement = classify(
        ending.answer, ending.stage, accepted=ending.accepted, rules=rules
    )
    if judgement.verdict is Verdict.BOUNCE and ending.claimed.doubts:
        # It may have been delivered then; a refusal now may mean just that.
        reason = (
            f"it may have arrived before, so it is never bounced: {judgement.reason}"
        )
        return replace(
            judgement, verdict=Verdict.HOLD, rule="refused-in-doubt", reason=reason
        )
    return judgement


def _settle(ending: Ending, now: datetime, policy: Policy, draw: float) -> Settlement:
    claimed = ending.claimed
    judgement = _judge(ending, policy.rules)
    event = _EVENTS[judgement.verdict]
    doubts = claimed.doubts + (event is Event.DOUBT)
    if doubts >= MAX_DOUBTS and event is Event.DOUBT:
        event = Event.DOUBT_THRICE
    state = follow(State.IN_FLIGHT, event)
    attempts = claimed.attempts + judgement.counts
    due = None
    if state in CLAIMABLE:
        immediate = judgement.verdict is Verdict.RETRY and not judgement.counts
        wait = policy.schedule.delay(judgement.verdict, attempts, draw)
        due = now if immediate else now + wait
    return Settlement(
        claimed=claimed,
        stage=ending.stage,
        judgement=judgement,
        state=state,
        due=due,
        attempts=attempts,
        doubts=doubts,
        reply=str(ending.answer),
    )
