"""From one attempt's classified results to the new state of each recipient. Pure.

A permanent refusal is final only after it was confirmed. No refusal counts while the
primary refuses all mail.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from drainer.mail.message import Problem
from drainer.mail.reply import SESSION_END, Lost, Stage
from drainer.policy.bounce.decision import BounceAnswer
from drainer.policy.breaker.breaker import BreakerState, CircuitBreaker
from drainer.policy.census.callout import says_absent
from drainer.policy.classify.verdict import Classification, Scope, Verdict
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.policy.recipient.judge import (
    BY_NODE,
    BouncePermit,
    ClassifiedResult,
    SettleContext,
    delay,
    is_drop,
    refine,
)
from drainer.policy.recipient.state import CLAIMABLE, Event, State, follow

MAX_DOUBTS = 3
"""After this many lost replies to the final dot a message is held (poison?)."""
FAR = timedelta(hours=6)
"""When mail behind an open breaker is checked again if the breaker stays open."""
SECOND_LOOK = timedelta(seconds=10)
"""When a message that is refused as if it were us is tried again, at the latest."""
MAX_CONFIRM_DELAY = timedelta(days=1)
"""The confirmation delay doubles up to this while nothing proves a refusal."""
UNPROVEN = "unproven"
"""The rule of a refusal that nothing proved for the whole lifetime."""
_UNPROVEN_REASON = (
    "the primary refused it for the whole lifetime, and accepted nothing comparable"
    " meanwhile, so no bounce is sent"
)
_PRESENT_REASON = (
    ", so the primary may have lost users; no bounce is sent unless an operator"
    " approves it"
)
ROUTE_WAITS = "*"
"""The value that says that a recipient waits for the breaker of the route."""


class Settlement(Struct, frozen=True, kw_only=True):
    """The new state of one recipient, and its details."""

    claimed: ClaimedRecipient
    stage: Stage
    classification: Classification
    state: State
    #: None unless the new state waits for a time.
    due: datetime | None
    attempts: int
    doubts: int
    #: The peer's reply, or our text if there was none.
    reply: str
    #: What a later attempt must know; as in ClaimedRecipient.
    drops: int = 0
    solo: bool = False
    spent: timedelta = timedelta(0)
    refusal: str = ""
    refused: datetime | None = None
    #: What the bounce rules decided, if they were applied.
    permit: BouncePermit | None = None
    #: The scope of the breaker that it waits for: a domain, ROUTE_WAITS, or ''.
    waits: str = ""


_EVENTS = {
    Verdict.DELIVER: Event.DELIVER,
    Verdict.RETRY: Event.RETRY,
    Verdict.RETRY_LONG: Event.RETRY,
    Verdict.STOP: Event.STOP,
    Verdict.BOUNCE: Event.BOUNCE,
    Verdict.HOLD: Event.HOLD,
    Verdict.UNKNOWN: Event.DOUBT,
}


def settle(
    classified: Sequence[ClassifiedResult], context: SettleContext
) -> tuple[Settlement, ...]:
    """Settle every recipient of one attempt.

    The recipients of one message share the draw, so that they stay together in one
    transaction on the next attempt.
    """
    return tuple(
        [
            _delivered(each)
            if each.classification.verdict is Verdict.DELIVER
            else _settle(refine(each, context), context)
            for each in classified
        ]
    )


def settle_delivered(
    classified: Sequence[ClassifiedResult],
) -> tuple[Settlement, ...] | None:
    """Settle an attempt that delivered to every recipient; None: it did not.

    Most do, and then nothing has to be weighed.
    """
    for each in classified:
        if each.classification.verdict is not Verdict.DELIVER:
            return None
    return tuple([_delivered(each) for each in classified])


def _delivered(each: ClassifiedResult) -> Settlement:
    claimed = each.result.claimed
    return Settlement(
        claimed=claimed,
        stage=each.result.stage,
        classification=each.classification,
        state=follow(State.IN_FLIGHT, Event.DELIVER),
        due=None,
        attempts=claimed.attempts + 1,
        doubts=claimed.doubts,
        reply=str(each.result.answer),
    )


def _settle(each: ClassifiedResult, context: SettleContext) -> Settlement:
    event, permit = _event(each, context)
    if event is Event.BOUNCE_UNPROVEN:
        each = _explain(each, _UNPROVEN_REASON, UNPROVEN)
    elif found := _why_present(each, context):
        each = _explain(each, f"{found}{_PRESENT_REASON}")
    claimed, classification = each.result.claimed, each.classification
    state = follow(State.IN_FLIGHT, event)
    wait = delay(each, context)
    waits, due = "", context.now + wait
    if classification.verdict is Verdict.STOP:
        waits, due = _behind(each, context, wait)
    elif state is State.BOUNCE_PENDING:
        wait = _confirmation_delay(each, context)
        due = context.now + wait
    refusal, refused = _refusal(each, context)
    waited = classification.counts and state in (State.DEFERRED, State.BOUNCE_PENDING)
    return Settlement(
        claimed=claimed,
        stage=each.result.stage,
        classification=classification,
        state=state,
        due=due if state in (*CLAIMABLE, State.BOUNCE_PENDING) else None,
        attempts=claimed.attempts + classification.counts,
        doubts=claimed.doubts + (event in (Event.DOUBT, Event.DOUBT_THRICE)),
        reply=str(each.result.answer),
        drops=claimed.drops + is_drop(each.result),
        solo=claimed.solo or classification.rule == "dot-shared",
        spent=claimed.spent + (wait if waited else timedelta(0)),
        refusal=refusal,
        refused=refused,
        permit=permit,
        waits=waits,
    )


def _event(
    each: ClassifiedResult, context: SettleContext
) -> tuple[Event, BouncePermit | None]:
    claimed, event = each.result.claimed, _EVENTS[each.classification.verdict]
    if event is Event.DOUBT and claimed.doubts + 1 >= MAX_DOUBTS:
        return Event.DOUBT_THRICE, None
    if event is not Event.BOUNCE or not _may_be_final(each, context):
        return event, None
    if not _is_proven(each, context):
        is_spent = claimed.spent > context.schedule.lifetime
        return (Event.BOUNCE_UNPROVEN if is_spent else event), None
    if context.permit is None:
        return Event.BOUNCE_REFUSED, None
    permit = context.permit(each)
    return _PERMITTED.get(permit.decision.answer, Event.BOUNCE), permit


def waits_refused(settlement: Settlement) -> str:
    """Return the rule by which it is refused and waits; '' = it does not.

    Another host is asked for some: until one accepts them, they are refused.
    """
    if settlement.state not in (State.DEFERRED, State.BOUNCE_PENDING):
        return ""
    rule = settlement.classification.rule
    return rule if rule == BY_NODE else settlement.refusal


def is_reported(settlement: Settlement) -> bool:
    """Return whether the sender gets a report."""
    return settlement.permit is not None and settlement.permit.sends


def apply_permit(settlement: Settlement, permit: BouncePermit) -> Settlement:
    """Return a confirmed refusal's settlement for another bounce decision."""
    event = _PERMITTED.get(permit.decision.answer, Event.BOUNCE)
    return replace(settlement, permit=permit, state=follow(State.IN_FLIGHT, event))


_PERMITTED = {
    BounceAnswer.SEND: Event.BOUNCE_PERMITTED,
    BounceAnswer.NO: Event.BOUNCE_REFUSED,
    BounceAnswer.NEVER: Event.BOUNCE_REFUSED,
}
"""Answer of the bounce rules -> the event; any other answer waits."""


def _may_be_final(each: ClassifiedResult, context: SettleContext) -> bool:
    """Return whether nothing but proof is missing.

    drainer must have a copy of the message, because it leaves the spool.
    """
    is_delay_over = _is_delay_over(each, context)
    return is_delay_over and context.kept and not context.breakers.pending.is_braked


def _is_proven(each: ClassifiedResult, context: SettleContext) -> bool:
    """Return whether comparable mail was accepted since the first refusal.

    A canary exercises no more than RCPT of one host. So it answers only for a refused
    mailbox, and only on the session that refused it. Nothing proves the refusal of a
    recipient that a list has, or that the primary accepted before.
    """
    claimed, breakers = each.result.claimed, context.breakers
    if _why_present(each, context):
        return False
    is_mailbox = (
        each.result.stage is Stage.RCPT and each.classification.scope is Scope.RECIPIENT
    )
    if is_mailbox and claimed.domain in context.vouched:
        return breakers.blocking_breaker(claimed.domain) is None
    return claimed.refused is not None and breakers.has_proof(
        claimed.domain,
        context.sender_domain,
        claimed.refused,
        attachment=context.attachment,
    )


def _why_present(each: ClassifiedResult, context: SettleContext) -> str:
    """Return what speaks for a recipient that the primary says is absent; '' = nothing.

    Then the primary is broken, as far as drainer knows.
    """
    if not says_absent(each.classification):
        return ""
    recipient = each.result.claimed.recipient.forward_path
    if context.listed is not None and (found := context.listed(recipient)):
        return f"the list {found} has this recipient"
    if context.breakers.known.has_lost(recipient):
        return "it accepted this one or others of the domain within 30 days"
    return ""


def _explain(each: ClassifiedResult, words: str, rule: str = "") -> ClassifiedResult:
    """Return it with words before its reason, and perhaps by another rule."""
    found = each.classification
    reason = f"{words}: {found.reason}"
    changed = replace(found, rule=rule or found.rule, reason=reason)
    return replace(each, classification=changed)


def _confirmation_delay(each: ClassifiedResult, context: SettleContext) -> timedelta:
    """Return how long a pending bounce waits: it doubles while nothing proves it."""
    refused, first = each.result.claimed.refused, context.schedule.confirm_after
    if refused is None or not _is_delay_over(each, context):
        return first
    if _is_suspended(each, context):
        return timedelta(0)
    if not _may_be_final(each, context) or _is_proven(each, context):
        return first  # something else is missing: a copy, evidence, the brake's end
    return max(first, min(context.now - refused, MAX_CONFIRM_DELAY))


def _is_delay_over(each: ClassifiedResult, context: SettleContext) -> bool:
    claimed = each.result.claimed
    if claimed.refused is None or claimed.refusal != each.classification.rule:
        return False
    return claimed.refused + context.schedule.confirm_after <= context.now


def _is_suspended(each: ClassifiedResult, context: SettleContext) -> bool:
    """Return whether only a suspicion prevents it, which this run will answer."""
    breaker = context.breakers.blocking_breaker(each.result.claimed.domain)
    return breaker is not None and breaker.state is BreakerState.HALF_OPEN


def _refusal(
    each: ClassifiedResult, context: SettleContext
) -> tuple[str, datetime | None]:
    """Return by which rule it is refused, and since when."""
    claimed, classification = each.result.claimed, each.classification
    answer = each.result.answer
    if isinstance(answer, Problem):
        return claimed.refusal, claimed.refused  # the primary did not see it
    if isinstance(answer, Lost) and answer.reason == SESSION_END:
        # It was not refused now.
        since = claimed.refused if claimed.refusal else None
        return claimed.refusal or Verdict.STOP.value, since
    breaker = context.breakers.blocking_breaker(claimed.domain)
    match classification.verdict:
        case Verdict.BOUNCE:
            name = classification.rule
        case Verdict.STOP if breaker is not None and breaker.state is BreakerState.OPEN:
            return "", None  # every message met it: it says nothing about this one
        case Verdict.STOP if not classification.short:
            name = Verdict.STOP.value
        case _ if (
            classification.short and not claimed.refusal and not _is_paused(breaker)
        ):
            name = Verdict.STOP.value  # put off as if it were us
        case _:
            return claimed.refusal, claimed.refused
    same = claimed.refusal == name and claimed.refused is not None
    return name, claimed.refused if same else context.now


def _is_paused(breaker: CircuitBreaker | None) -> bool:
    return breaker is not None and breaker.state is BreakerState.PAUSED


def _behind(
    each: ClassifiedResult, context: SettleContext, wait: timedelta
) -> tuple[str, datetime]:
    """Return which breaker it waits for, and until when at most."""
    breaker = context.breakers.blocking_breaker(each.result.claimed.domain)
    if breaker is None:  # others are accepted: the second attempt decides
        return "", context.now + min(wait, SECOND_LOOK)
    scope = breaker.scope or ROUTE_WAITS
    if breaker.state is BreakerState.PAUSED:
        return scope, breaker.until or context.now + wait
    return scope, context.now + FAR  # it is due when the breaker closes
