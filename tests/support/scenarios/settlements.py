"""What tests of settling share: breakers, a moment, and one attempt's settlement."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from drainer.mail.envelope import Recipient, domain_of
from drainer.mail.reply import Stage, parse_reply
from drainer.policy.breaker.detector import Refusal
from drainer.policy.breaker.known_good import KnownGoodRecipients
from drainer.policy.breaker.registry import BreakerRegistry
from drainer.policy.classify.classifier import Answer, classify
from drainer.policy.classify.rules import Rule
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.policy.recipient.judge import (
    RecipientResult,
    SettleContext,
    classify_attempt,
    exempt_message_specific,
)
from drainer.policy.recipient.retry import RetrySchedule
from drainer.policy.recipient.settle import Settlement, settle

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SCHEDULE = RetrySchedule(jitter=0)
BOB = Recipient(forward_path="bob@example.org")
PAUSES = (timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=5))


def scopes(*good: str) -> BreakerRegistry:
    """Return breakers with mail flowing."""
    return BreakerRegistry(
        PAUSES, KnownGoodRecipients(good), lambda _before, _after: None
    )


def settled(
    endings: Iterable[RecipientResult],
    rules: Sequence[Rule] = (),
    **circumstances: Any,
) -> tuple[Settlement, ...]:
    """Judge and settle an attempt; by default mail flows, and nothing is kept."""
    usual = SettleContext(
        now=NOW,
        draw=0.5,
        sender_domain="example.com",
        breakers=scopes(),
        schedule=SCHEDULE,
    )
    moment = replace(usual, **circumstances)
    judged = exempt_message_specific(classify_attempt(endings, rules), moment)
    return settle(judged, moment)


def result(
    answer: Answer | str,
    stage: Stage = Stage.RCPT,
    *,
    accepted: int = 0,
    claimed: ClaimedRecipient | None = None,
) -> RecipientResult:
    """Return one recipient's ending."""
    if isinstance(answer, str):
        answer = parse_reply(answer.encode())
    return RecipientResult(
        claimed=claimed or ClaimedRecipient(n=0, recipient=BOB),
        stage=stage,
        answer=answer,
        accepted=accepted,
    )


def seen(
    text: str,
    recipient: str,
    *,
    sender_domain: str = "example.com",
    stage: Stage = Stage.RCPT,
    again: bool = False,
) -> Refusal:
    """Return one recipient's ending as the breakers see it."""
    reply = parse_reply(text.encode())
    return Refusal(
        sender_domain=sender_domain,
        recipient=recipient,
        recipient_domain=domain_of(recipient),
        stage=stage,
        classification=classify(reply, stage),
        answer=reply,
        again=again,
    )
