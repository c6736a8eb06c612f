"""What a result means: by itself, and in view of everything else. Pure.

First it is classified by itself, and the circuit breakers look at that. Then it is
refined: a refusal may have been meant for another recipient, or for us.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from drainer.mail.echo import SentData
from drainer.mail.message import Problem, ScanProblem
from drainer.mail.reply import Lost, Reply, Stage
from drainer.mail.reply_codes import CLOSING
from drainer.policy.bounce.decision import (
    BounceAnswer,
    BounceCase,
    BounceDecision,
    decide,
)
from drainer.policy.bounce.limits import ReportedRecipient, ReportTally
from drainer.policy.breaker.breaker import BreakerState
from drainer.policy.breaker.detector import is_about_kind
from drainer.policy.breaker.groups import MailGroup
from drainer.policy.breaker.registry import BreakerRegistry
from drainer.policy.classify.classifier import Answer, classify
from drainer.policy.classify.retry_after import find_delay
from drainer.policy.classify.rules import Rule
from drainer.policy.classify.verdict import Classification, Scope, Verdict
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.policy.recipient.retry import RetrySchedule

MAX_DROPS = 3
"""After this many connections that ended after its content, a message is poison."""
MAX_SOLO = 20
"""Recipients refused together that are each tried alone at once."""
CONTRADICTED = "contradicted-stop"
"""The rule of a message that is refused as if it were us, while others are accepted."""
BY_NODE = "refused-by-node"
"""The rule of a recipient that only one host of the primary refuses."""
_ALONE = "this host of the primary refuses what its other hosts accept"
REFUSED_IN_DOUBT = "refused-in-doubt"
"""The rule of a message that is refused after it may have arrived."""

_TOO_MANY = frozenset(("text-too-many-recipients", "enhanced-4.5.3", "enhanced-5.5.3"))
"""Rules of a reply that fewer recipients in one transaction avoid."""


class RecipientResult(Struct, frozen=True, kw_only=True):
    """How one recipient's attempt ended."""

    claimed: ClaimedRecipient
    stage: Stage
    answer: Answer
    #: Recipients accepted before this one in the same transaction.
    accepted: int = 0
    #: Its reply to the final dot was for no other recipient (LMTP).
    own_reply: bool = False


class ClassifiedResult(Struct, frozen=True, kw_only=True):
    """A result, and what it means by itself."""

    result: RecipientResult
    classification: Classification
    #: How many recipients got the same reply to the final dot; 0: it does not matter.
    shared: int = 0


class BouncePermit(Struct, frozen=True, kw_only=True):
    """What the bounce rules say about one recipient's confirmed refusal."""

    decision: BounceDecision
    #: The key and the enhanced status code of the report, if one is to be sent.
    key: str = ""
    status: str = ""
    #: What the bounce rules checked; None if no evidence was gathered.
    case: BounceCase | None = None

    @property
    def organisation(self) -> str:
        """Return the organisation of the sender's domain; '' without evidence."""
        return self.case.facts.organisation if self.case else ""

    @property
    def sends(self) -> bool:
        """Return whether the sender may get a report."""
        return self.decision.answer is BounceAnswer.SEND

    def limit(self, tally: ReportTally, recipient: ReportedRecipient) -> "BouncePermit":
        """Return the decision in view of the reports sent so far; not yet counted."""
        if self.case is None or not self.sends:
            return self
        sent = tally.before(recipient, self.case.limits.tag_delimiters)
        case = replace(self.case, reported=tally.knows(recipient), sent=sent)
        return replace(self, decision=decide(case))


class SettleContext(Struct, frozen=True, kw_only=True):
    """The circumstances of one settlement."""

    now: datetime
    #: In [0, 1): the jitter.
    draw: float
    sender_domain: str
    breakers: BreakerRegistry
    schedule: RetrySchedule
    #: The message is more than text.
    attachment: bool = False
    #: Domains whose known-good recipients were accepted on the same session.
    vouched: Collection[str] = ()
    #: Recipients that another host of the primary is asked for, by their number.
    elsewhere: Collection[int] = ()
    #: The primary refuses all mail of this group, and the message belongs to it.
    group: MailGroup | None = None
    #: There is a durable copy of the message beside the spool.
    kept: bool = False
    #: Decides whether a sender gets a report of a confirmed refusal; None: none does.
    permit: "Callable[[ClassifiedResult], BouncePermit] | None" = None
    #: Returns the list of recipients that has an address, '' for none; None: no lists.
    listed: Callable[[str], str] | None = None


def classify_attempt(
    results: Iterable[RecipientResult],
    rules: Sequence[Rule],
    sent: Callable[[Stage], SentData] | None = None,
) -> tuple[ClassifiedResult, ...]:
    """Classify every result of one attempt by itself.

    ``sent`` returns what the attempt has sent up to a stage.
    """
    these = tuple(results)
    shared = sum([each.stage is Stage.DOT and not each.own_reply for each in these])
    found = [
        ClassifiedResult(
            result=result,
            classification=classify(
                result.answer,
                result.stage,
                accepted=result.accepted,
                rules=rules,
                sent=sent and partial(sent, result.stage),
            ),
            shared=shared if n < MAX_SOLO else 0,
        )
        for n, result in enumerate(these)
    ]
    return tuple(found)


def exempt_message_specific(
    classified: Iterable[ClassifiedResult], context: SettleContext
) -> tuple[ClassifiedResult, ...]:
    """Hold a message that is refused as if it were us, while others are accepted.

    Before that it is tried on further connections: one host of several may refuse us.
    This is checked before the breakers look at it, so that it never moves them again.
    """
    return tuple(
        [
            each
            if each.classification.verdict is not Verdict.STOP
            or (found := _alone(each, context)) is None
            else replace(each, classification=found)
            for each in classified
        ]
    )


def _alone(each: ClassifiedResult, context: SettleContext) -> Classification | None:
    claimed, classification = each.result.claimed, each.classification
    if classification.short or isinstance(each.result.answer, Problem):
        return None  # it is put off, or was not sent because a breaker kept it
    if claimed.refusal != Verdict.STOP.value or claimed.refused is None:
        return None
    contradicted = context.breakers.contradicted_stop(
        classification, claimed.domain, each.result.stage, claimed.refused
    )
    if not contradicted:
        return None
    if context.breakers.may_ask_elsewhere(claimed.refused, context.now):
        words = "others passed this stage meanwhile, so another host is asked"
        return switch_node(classification, words)
    words = (
        "others passed this stage meanwhile, so the primary refuses this message and"
        " not this host; see the primary's log, then `drainer release` or `drainer"
        " discard` it"
    )
    return _change(classification, Verdict.HOLD, CONTRADICTED, words)


def refine(each: ClassifiedResult, context: SettleContext) -> ClassifiedResult:
    """Return it with its final verdict."""
    for change in _CHANGES:
        if (found := change(each, context)) is not None:
            return replace(each, classification=found)
    return each


def _change(
    classification: Classification,
    verdict: Verdict,
    rule: str,
    words: str,
    *,
    counts: bool = True,
) -> Classification:
    reason = f"{words}: {classification.reason}"
    return replace(
        classification, verdict=verdict, rule=rule, reason=reason, counts=counts
    )


def switch_node(found: Classification, words: str = _ALONE) -> Classification:
    """Return what has a recipient tried at once on another host."""
    return _change(found, Verdict.RETRY, BY_NODE, words, counts=False)


def _by_node(each: ClassifiedResult, context: SettleContext) -> Classification | None:
    """Try it on another host of the primary: this one refuses everything."""
    found, is_asked = each.classification, each.result.claimed.n in context.elsewhere
    return switch_node(found) if is_asked and found.verdict is Verdict.BOUNCE else None


def _in_group(each: ClassifiedResult, context: SettleContext) -> Classification | None:
    """Hold a message of a kind that the primary refuses as such."""
    group, found = context.group, each.classification
    if group is None or not is_about_kind(found, each.result.answer):
        return None
    words = (
        f"the primary refuses all {group.words}, and accepts other mail, so it may"
        " refuse that this host relays it; see the primary's log"
    )
    return _change(found, Verdict.HOLD, group.rule, words)


def _in_doubt(each: ClassifiedResult, _: SettleContext) -> Classification | None:
    """Bounce nothing that may have arrived before: a refusal may mean just that."""
    classification = each.classification
    if classification.verdict is not Verdict.BOUNCE or not each.result.claimed.doubts:
        return None
    words = "it may have arrived before, so it is never bounced"
    return _change(classification, Verdict.HOLD, REFUSED_IN_DOUBT, words)


def is_drop(result: RecipientResult) -> bool:
    """Return whether the session ended after the content, which was not accepted."""
    answer = result.answer
    if result.stage is Stage.DOT:
        return isinstance(answer, Reply) and answer.code == CLOSING
    return result.stage is Stage.BODY and isinstance(answer, Lost)


def _poison(each: ClassifiedResult, _: SettleContext) -> Classification | None:
    if not is_drop(each.result) or each.result.claimed.drops + 1 < MAX_DROPS:
        return None
    words = "the primary ends the session at this content every time"
    return _change(each.classification, Verdict.HOLD, "poison", words)


def _shared(each: ClassifiedResult, _: SettleContext) -> Classification | None:
    """Try recipients alone: one's filter may have refused for all, or they are many."""
    result, classification = each.result, each.classification
    is_it = result.stage is Stage.DOT and (
        classification.verdict is Verdict.BOUNCE or classification.rule in _TOO_MANY
    )
    if not is_it or each.shared <= 1 or result.claimed.solo:
        return None
    words = "refused together with others, so it is tried alone"
    return _change(classification, Verdict.RETRY, "dot-shared", words, counts=False)


def _individual(
    each: ClassifiedResult, context: SettleContext
) -> Classification | None:
    """Retry a message that the primary put off as if it were us, while mail flows."""
    classification, claimed = each.classification, each.result.claimed
    if classification.verdict is not Verdict.STOP or not classification.short:
        return None
    if context.breakers.blocking_breaker(claimed.domain) is not None:
        return None
    words = "others are accepted, so only this message waits"
    return _change(classification, Verdict.RETRY, classification.rule, words)


def _expired(each: ClassifiedResult, context: SettleContext) -> Classification | None:
    classification = each.classification
    if classification.verdict not in (Verdict.RETRY, Verdict.RETRY_LONG):
        return None
    spent = each.result.claimed.spent + delay(each, context)
    if not classification.counts or not context.schedule.is_spent(
        classification.verdict, spent
    ):
        return None
    words = "4.4.7 it was tried for the whole lifetime"
    return _change(classification, Verdict.BOUNCE, "lifetime-spent", words)


def _behind_breaker(
    each: ClassifiedResult, context: SettleContext
) -> Classification | None:
    """Refuse to judge a message while the primary refuses all mail."""
    is_local = isinstance(each.result.answer, Problem)
    if is_local or each.classification.verdict not in (Verdict.BOUNCE, Verdict.HOLD):
        return None
    breaker = context.breakers.blocking_breaker(each.result.claimed.domain)
    if breaker is None or breaker.state is not BreakerState.OPEN:
        return None
    words = "the primary refuses all mail, so this reply judges no recipient"
    found = _change(
        each.classification, Verdict.STOP, "breaker-open", words, counts=False
    )
    return replace(found, scope=Scope.DOMAIN if breaker.scope else Scope.ROUTE)


_CHANGES = (
    _by_node,
    _in_group,
    _in_doubt,
    _poison,
    _shared,
    _individual,
    _expired,
    _behind_breaker,
)
"""Each may replace a classification; the first one that does decides."""


def delay(each: ClassifiedResult, context: SettleContext) -> timedelta:
    """Return how long to wait before the next attempt."""
    claimed, classification = each.result.claimed, each.classification
    answer = each.result.answer
    if isinstance(answer, ScanProblem):
        first = context.schedule.delay(classification.verdict, 1, context.draw)
        return max(answer.wait, first)
    if classification.verdict is Verdict.RETRY and not classification.counts:
        return timedelta(0)
    attempts = claimed.attempts + classification.counts
    wait = context.schedule.delay(classification.verdict, attempts, context.draw)
    stated = find_delay(answer.text) if isinstance(answer, Reply) else None
    if classification.verdict is Verdict.RETRY and stated is not None:
        return max(stated, context.schedule.soonest)
    return wait
