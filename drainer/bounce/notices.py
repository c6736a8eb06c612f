"""Reports of a delay or a delivery: the bounce rules decide about them too.

A delivery is told of only where the sender asked for it (NOTIFY=SUCCESS) and the
primary lacks DSN, a delay only if the operator wants that.
"""

from collections.abc import Sequence
from datetime import timedelta

from drainer.bounce.decider import BounceDecider, BounceRequest
from drainer.bounce.quarantine.store import Quarantine
from drainer.ledger.codec import recipient_of
from drainer.ledger.reports.notices import NoticeRequest
from drainer.ledger.repository import Ledger
from drainer.mail.dsn.model import DsnAction
from drainer.mail.reply import as_said
from drainer.policy.classify.verdict import Classification, Scope, Verdict
from drainer.policy.recipient.judge import BouncePermit
from drainer.runtime.process import utcnow

_VERDICTS = {DsnAction.DELAYED: Verdict.RETRY, DsnAction.RELAYED: Verdict.DELIVER}


class NoticeDecider:
    """Decides on reports that are no failures."""

    def __init__(
        self,
        ledger: Ledger,
        sources: Sequence[str],
        bounce_decider: BounceDecider,
        quarantine: Quarantine | None,
        delays: timedelta | None,
    ) -> None:
        """Prepare; after ``delays`` senders are told that they wait, None = never."""
        self._ledger = ledger
        self._sources = list(sources)
        self._bounce_decider = bounce_decider
        self._quarantine = quarantine
        self._delays = delays

    async def look(self) -> None:
        """Note who has waited for long; evidence about them is gathered after it."""
        await self._ledger.drop_overtaken()
        if self._delays is not None:
            while await self._ledger.ask_delays(self._sources, self._delays):
                pass

    async def ask(self) -> None:
        """Ask the bounce rules about everything that was noted."""
        while these := await self._ledger.asked_reports(self._sources):
            await self._ledger.answer_reports(
                [(each, self._ask(each)) for each in these]
            )
            if self._quarantine is not None:
                ids = sorted({each.row["id"] for each in these})
                self._quarantine.forget(await self._ledger.needless(ids))

    def _ask(self, each: NoticeRequest) -> BouncePermit:
        row, action = each.row, DsnAction(each.report["action"])
        classification = Classification(
            verdict=_VERDICTS[action],
            scope=Scope.RECIPIENT,
            rule=each.report["rule"],
            reason="as it was answered",
        )
        refusal = BounceRequest(
            sender=row["reverse_path"],
            original=row["message_id"] or row["id"],
            recipient=recipient_of(row),
            classification=classification,
            answer=as_said(each.report["reply"]),
            action=action,
        )
        return self._bounce_decider.ask(each.found, refusal, utcnow())
