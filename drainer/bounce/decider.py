"""Gather what the bounce rules need to decide whether a sender may get a bounce.

The code that writes the report checks again whether it was reported already, and what
the limits say (drainer.ledger.reports.limits).
"""

from datetime import datetime, timedelta

from msgspec import Struct, field

from drainer.bounce.evidence.codec import facts_of, marks_of
from drainer.ledger.codec import recipient_of
from drainer.ledger.records import Row, from_micros
from drainer.mail.dsn.model import DsnAction
from drainer.mail.envelope import Recipient
from drainer.mail.mailbox import mailbox_key
from drainer.mail.reply import Reply, as_said
from drainer.policy.bounce.decision import (
    BounceAnswer,
    BounceCase,
    BounceDecision,
    decide,
)
from drainer.policy.bounce.facts import TrustSettings
from drainer.policy.bounce.limits import DAY, ReportLimits, dedupe_key
from drainer.policy.classify.verdict import Classification
from drainer.policy.recipient.delivery import Delivery, StoredEvidence
from drainer.policy.recipient.judge import BouncePermit, ClassifiedResult


class BounceRequest(Struct, frozen=True, kw_only=True):
    """One recipient's permanent refusal, as the bounce rules see it.

    Or its delivery, if that is the ``action``.
    """

    sender: str
    #: The Message-ID of what was refused, or our name for it.
    original: str
    recipient: Recipient
    classification: Classification
    #: The primary's reply; text if it was stored and was not a reply.
    answer: object
    action: DsnAction = DsnAction.FAILED


class BounceDecider(Struct, frozen=True, kw_only=True):
    """Applies the bounce rules."""

    trust: TrustSettings
    hostname: str
    limits: ReportLimits = field(default_factory=ReportLimits)
    #: How long DNS may stay silent.
    patience: timedelta = DAY

    def permit(
        self, delivery: Delivery, each: ClassifiedResult, now: datetime
    ) -> BouncePermit:
        """Return what the bounce rules say about one recipient's confirmed refusal."""
        message = delivery.message
        refusal = BounceRequest(
            sender=message.envelope.reverse_path,
            original=message.message_id or message.id,
            recipient=each.result.claimed.recipient,
            classification=each.classification,
            answer=each.result.answer,
        )
        return self.ask(delivery.found, refusal, now)

    def ask(
        self, found: StoredEvidence | None, refusal: BounceRequest, now: datetime
    ) -> BouncePermit:
        """Return what the bounce rules say, without regard to earlier reports."""
        if found is None:
            words = "no evidence was gathered yet"
            decision = BounceDecision(
                answer=BounceAnswer.LATER, rule="G13", reason=words, evidence={}
            )
            return BouncePermit(decision=decision)
        sender, status = refusal.sender, status_of(refusal)
        is_failure = refusal.action is DsnAction.FAILED
        key = dedupe_key(
            mailbox_key(sender, self.limits.tag_delimiters),
            refusal.original,
            refusal.recipient.forward_path,
            status if is_failure else f"{refusal.action} {status}",
        )
        case = BounceCase(
            facts=facts_of(found),
            recipient=refusal.recipient,
            marks=marks_of(found),
            trust=self.trust,
            hostname=self.hostname,
            classification=refusal.classification,
            action=refusal.action,
            detail=status[2:],
            words=str(refusal.answer),
            confirmed=True,
            limits=self.limits,
            waited=now - from_micros(found.asked),
            patience=self.patience,
        )
        return BouncePermit(decision=decide(case), key=key, status=status, case=case)


def request_of(
    row: Row,
    classification: Classification,
    reply: str,
    action: DsnAction = DsnAction.FAILED,
) -> BounceRequest:
    """Return the request about a recipient in the ledger, joined with its message."""
    return BounceRequest(
        sender=row["reverse_path"],
        original=row["message_id"] or row["id"],
        recipient=recipient_of(row),
        classification=classification,
        answer=as_said(reply),
        action=action,
    )


_CLASSES = {DsnAction.FAILED: "5", DsnAction.RELAYED: "2"}


def status_of(refusal: BounceRequest) -> str:
    """Return the enhanced status code of the report (RFC 3463)."""
    if refusal.classification.rule == "lifetime-spent":
        return "4.4.7"
    answer, class_ = refusal.answer, _CLASSES[refusal.action]
    if isinstance(answer, Reply) and answer.enhanced[:1] == class_:
        return answer.enhanced
    return f"{class_}.0.0"
