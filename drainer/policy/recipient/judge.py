"""What an ending means: by itself, and in the light of everything else. Pure.

By itself it is classified (``judge``), and the circuit breakers look at that. Then it
is reconsidered: a refusal may have been meant for somebody else, or for us.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from drainer.mail.echo import SentData
from drainer.mail.reply import Lost, Reply, Stage
from drainer.policy.bounce.decision import (
    BounceAnswer,
    BounceCase,
    BounceDecision,
    decide,
)
from drainer.policy.bounce.limits import ReportedRecipient, ReportTally
from drainer.policy.breaker.breaker import BreakerState, CircuitBreaker
from drainer.policy.classify.classifier import Answer, classify
from drainer.policy.classify.retry_after import stated_delay
from drainer.policy.classify.rules import Rule
from drainer.policy.classify.verdict import Classification, Scope, Verdict
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.policy.recipient.retry import RetrySchedule
from drainer.runtime.values import dataclass

MAX_DROPS = 3
"""After so many connections that ended right after its content it is poison."""
MAX_SOLO = 20
"""Recipients refused together that are each tried alone at once."""

CONTRADICTED = "contradicted-stop"
"""The rule of a message that is refused as if it were us, while others are welcome."""

REFUSED_IN_DOUBT = "refused-in-doubt"
"""The rule of what is refused after it may have arrived."""

_CLOSING = 421


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientResult:
    """How one recipient's attempt ended."""

    claimed: ClaimedRecipient
    stage: Stage
    answer: Answer
    #: Recipients accepted before this one in the same transaction.
    accepted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedResult:
    """An ending, and what it means by itself."""

    ending: RecipientResult
    judgement: Classification
    #: How many recipients got the same reply to the final dot; 0 = it does not matter.
    shared: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BouncePermit:
    """What the bounce rules says about one recipient's confirmed refusal."""

    decision: BounceDecision
    #: The key and the enhanced status code of the report, if one is to be sent.
    key: str = ""
    status: str = ""
    #: What it was asked; None when nobody had looked for evidence.
    case: BounceCase | None = None

    @property
    def organisation(self) -> str:
        """The organisation of the sender's domain; '' without evidence."""
        return self.case.facts.organisation if self.case else ""

    @property
    def sends(self) -> bool:
        """Whether the sender may be told."""
        return self.decision.answer is BounceAnswer.SEND

    def amid(self, tally: ReportTally, told: ReportedRecipient) -> "BouncePermit":
        """Return what the breaker says in view of what was told; not yet counted."""
        if self.case is None or not self.sends:
            return self
        sent = tally.before(told, self.case.limits.tag_delimiters)
        case = replace(self.case, reported=tally.knows(told), sent=sent)
        return replace(self, decision=decide(case))


class BreakerView(Protocol):
    """What the breakers know at this moment (policy.scopes.Scopes)."""

    #: Too many refusals for good are pending: none becomes final.
    brake: bool

    def barrier(self, domain: str) -> CircuitBreaker | None:
        """Return the breaker that keeps mail for a domain waiting, or None."""
        ...

    def proven(self, domain: str, sender_domain: str, since: datetime) -> bool:
        """Whether others were welcome on that scope since then."""
        ...

    def contradicted_stop(
        self, judgement: Classification, domain: str, stage: Stage, since: datetime
    ) -> bool:
        """Whether others passed a stage since a message met a refusal of us there."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """What settling goes by: when to try again, and the operator's own rules."""

    schedule: RetrySchedule = field(default_factory=RetrySchedule)
    rules: Sequence[Rule] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleContext:
    """The circumstances of one settlement."""

    now: datetime
    #: In [0, 1): the jitter.
    draw: float
    sender_domain: str
    standing: BreakerView
    #: There is a durable copy of the message beside the spool.
    kept: bool = False
    #: Says whether the sender may be told of a confirmed refusal; None = nobody is.
    permit: "Callable[[ClassifiedResult], BouncePermit] | None" = None


def judge(
    endings: Iterable[RecipientResult],
    rules: Sequence[Rule],
    sent: Callable[[Stage], SentData] | None = None,
) -> tuple[ClassifiedResult, ...]:
    """Judge every ending of one attempt by itself.

    ``sent`` returns what the attempt has sent up to a stage.
    """
    these = tuple(endings)
    shared = sum(1 for ending in these if ending.stage is Stage.DOT)
    return tuple(
        ClassifiedResult(
            ending=ending,
            judgement=classify(
                ending.answer,
                ending.stage,
                accepted=ending.accepted,
                rules=rules,
                sent=sent and partial(sent, ending.stage),
            ),
            shared=shared if n < MAX_SOLO else 0,
        )
        for n, ending in enumerate(these)
    )


def excuse(
    judged: Iterable[ClassifiedResult], moment: SettleContext
) -> tuple[ClassifiedResult, ...]:
    """Hold a message that is refused as if it were us, while others are accepted.

    That is asked before the breakers look at it, so that it never moves them again.
    """
    return tuple(
        each
        if (found := _alone(each, moment)) is None
        else replace(each, judgement=found)
        for each in judged
    )


def _alone(each: ClassifiedResult, moment: SettleContext) -> Classification | None:
    claimed, judgement = each.ending.claimed, each.judgement
    if judgement.verdict is not Verdict.STOP or judgement.short:
        return None
    if claimed.refusal != Verdict.STOP.value or claimed.refused is None:
        return None
    contradicted = moment.standing.contradicted_stop(
        judgement, claimed.domain, each.ending.stage, claimed.refused
    )
    if not contradicted:
        return None
    words = (
        "others passed this stage meanwhile, so the primary refuses this message and"
        " not this host; see the primary's log, then `drainer release` or `drainer"
        " discard` it"
    )
    return _change(judgement, Verdict.HOLD, CONTRADICTED, words)


def reconsider(
    each: ClassifiedResult, moment: SettleContext, policy: RetryPolicy
) -> ClassifiedResult:
    """Return it with the verdict that stands."""
    for change in (_in_doubt, _poison, _shared, _individual, _expired, _behind_breaker):
        found = change(each, moment, policy)
        if found is not None:
            return replace(each, judgement=found)
    return each


def _change(
    judgement: Classification,
    verdict: Verdict,
    rule: str,
    words: str,
    *,
    counts: bool = True,
) -> Classification:
    reason = f"{words}: {judgement.reason}"
    return replace(judgement, verdict=verdict, rule=rule, reason=reason, counts=counts)


def _in_doubt(
    each: ClassifiedResult, _m: SettleContext, _p: RetryPolicy
) -> Classification | None:
    """Bounce nothing that may have arrived before: a refusal may mean just that."""
    judgement = each.judgement
    if judgement.verdict is not Verdict.BOUNCE or not each.ending.claimed.doubts:
        return None
    words = "it may have arrived before, so it is never bounced"
    return _change(judgement, Verdict.HOLD, REFUSED_IN_DOUBT, words)


def is_drop(ending: RecipientResult) -> bool:
    """Whether the session ended right after the content, and it was not accepted."""
    answer = ending.answer
    if ending.stage is Stage.DOT:
        return isinstance(answer, Reply) and answer.code == _CLOSING
    return ending.stage is Stage.BODY and isinstance(answer, Lost)


def _poison(
    each: ClassifiedResult, _m: SettleContext, _p: RetryPolicy
) -> Classification | None:
    if not is_drop(each.ending) or each.ending.claimed.drops + 1 < MAX_DROPS:
        return None
    words = "the primary ends the session at this content, time after time"
    return _change(each.judgement, Verdict.HOLD, "poison", words)


def _shared(
    each: ClassifiedResult, _m: SettleContext, _p: RetryPolicy
) -> Classification | None:
    """Let none suffer for another: one's filter may have refused for all."""
    ending, judgement = each.ending, each.judgement
    is_it = ending.stage is Stage.DOT and judgement.verdict is Verdict.BOUNCE
    if not is_it or each.shared <= 1 or ending.claimed.solo:
        return None
    words = "refused together with others, so it is tried alone"
    return _change(judgement, Verdict.RETRY, "dot-shared", words, counts=False)


def _individual(
    each: ClassifiedResult, moment: SettleContext, _p: RetryPolicy
) -> Classification | None:
    """Retry a message that the primary put off as if it were us, while mail flows."""
    judgement, claimed = each.judgement, each.ending.claimed
    if judgement.verdict is not Verdict.STOP or not judgement.short:
        return None
    if moment.standing.barrier(claimed.domain) is not None:
        return None
    words = "others are accepted, so only this message waits"
    return _change(judgement, Verdict.RETRY, judgement.rule, words)


def _expired(
    each: ClassifiedResult, moment: SettleContext, policy: RetryPolicy
) -> Classification | None:
    judgement = each.judgement
    if judgement.verdict not in (Verdict.RETRY, Verdict.RETRY_LONG):
        return None
    spent = each.ending.claimed.spent + delay(each, moment, policy)
    if not judgement.counts or not policy.schedule.is_spent(judgement.verdict, spent):
        return None
    words = "4.4.7 it was tried for as long as it may be"
    return _change(judgement, Verdict.BOUNCE, "lifetime-spent", words)


def _behind_breaker(
    each: ClassifiedResult, moment: SettleContext, _p: RetryPolicy
) -> Classification | None:
    """Refuse to judge a message while the primary refuses everybody."""
    if each.judgement.verdict is not Verdict.BOUNCE:
        return None
    breaker = moment.standing.barrier(each.ending.claimed.domain)
    if breaker is None or breaker.state is not BreakerState.OPEN:
        return None
    words = "the primary refuses everybody, so this judges nobody"
    found = _change(each.judgement, Verdict.STOP, "breaker-open", words, counts=False)
    return replace(found, scope=Scope.DOMAIN if breaker.scope else Scope.ROUTE)


def delay(
    each: ClassifiedResult, moment: SettleContext, policy: RetryPolicy
) -> timedelta:
    """Return how long to wait before the next attempt."""
    claimed, judgement = each.ending.claimed, each.judgement
    if judgement.verdict is Verdict.RETRY and not judgement.counts:
        return timedelta(0)
    attempts = claimed.attempts + judgement.counts
    wait = policy.schedule.delay(judgement.verdict, attempts, moment.draw)
    answer = each.ending.answer
    if judgement.verdict is Verdict.RETRY and isinstance(answer, Reply):
        stated = stated_delay(answer.text)
        if stated is not None:
            return max(stated, policy.schedule.soonest)
    return wait
