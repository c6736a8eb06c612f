"""What an operator sees and decides about pending bounces."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby

from drainer.bounce.decider import BounceDecider, request_of
from drainer.bounce.quarantine.store import Quarantine
from drainer.errors import MessageUnreadable, UsageError
from drainer.ledger.codec import claimed_of, message_of
from drainer.ledger.reader import LedgerReader
from drainer.ledger.reports.pending_bounces import OperatorDecision, PendingBounce
from drainer.mail.message import Message, SpooledMessage
from drainer.policy.bounce.decision import BounceAnswer
from drainer.policy.classify.verdict import Classification, Scope, Verdict
from drainer.policy.recipient.judge import BouncePermit
from drainer.policy.recipient.state import Event

_EVENTS = {
    BounceAnswer.SEND: Event.APPROVED,
    BounceAnswer.NO: Event.APPROVED_REFUSED,
    BounceAnswer.NEVER: Event.APPROVED_REFUSED,
}
"""Bounce decision on an approved refusal -> event; any other one keeps it pending."""

Open = Callable[[Message], SpooledMessage]


def ask(
    bounce_decider: BounceDecider, each: PendingBounce, now: datetime
) -> BouncePermit:
    """Return what the bounce rules would say if the refusal were final now.

    The limits are left out: ``LimitCheck`` applies them.
    """
    row = each.row
    classification = Classification(
        verdict=Verdict.BOUNCE,
        scope=Scope.RECIPIENT,
        rule=row["refusal"] or row["rule"],
        reason="as it was refused",
    )
    refusal = request_of(row, classification, row["reply"])
    return bounce_decider.ask(each.found, refusal, now)


def approvals(
    bounce_decider: BounceDecider, these: Iterable[PendingBounce], now: datetime
) -> Iterator[OperatorDecision]:
    """Yield the bounce decisions on approved refusals; UsageError without evidence."""
    for each in these:
        if each.found is None:
            message = f"no evidence about the sender of {each.row['native_id']} yet"
            hint = "`drainer bounces run`, or the next drain, gathers the evidence"
            raise UsageError(message, hint=hint)
        permit = ask(bounce_decider, each, now)
        event = _EVENTS.get(permit.decision.answer)
        if event is not None:
            yield OperatorDecision(pending=each, event=event, permit=permit)


def keep_copies(
    quarantine: Quarantine,
    report: LedgerReader,
    rulings: Sequence[OperatorDecision],
    opening: Open,
) -> None:
    """Make a durable copy of every message that becomes final by these decisions.

    Raises UsageError if a copy cannot be made; then nothing may become final.
    """
    for id_, some in groupby(rulings, key=lambda ruling: ruling.pending.row["id"]):
        claimed = tuple(claimed_of(ruling.pending.row) for ruling in some)
        recipients = tuple(each.recipient for each in claimed)
        message = message_of(report.message(id_), recipients)
        try:
            quarantine.keep(opening(message), claimed)
        except (MessageUnreadable, OSError) as error:
            words = f"cannot copy {message.native_id}: {error}"
            hint = "nothing was changed; check the spool and the space on the disk"
            raise UsageError(words, hint=hint) from None
