"""Reports of a delivery (action "relayed"): the bounce rules decide about them too.

drainer reports a delivery only if the sender asked for it (NOTIFY=SUCCESS) and the
primary lacks DSN.
"""

from collections.abc import Sequence

from drainer.bounce.decider import BounceDecider, BounceRequest
from drainer.bounce.quarantine.store import Quarantine
from drainer.ledger.codec import recipient_of
from drainer.ledger.reports.success_reports import SuccessReportRequest
from drainer.ledger.repository import Ledger
from drainer.mail.dsn.model import DsnAction
from drainer.mail.reply import as_said
from drainer.policy.classify.verdict import Classification, Scope, Verdict
from drainer.policy.recipient.judge import BouncePermit
from drainer.runtime.process import utcnow


class SuccessReportDecider:
    """Decides which senders get a report of a delivery."""

    def __init__(
        self,
        ledger: Ledger,
        sources: Sequence[str],
        bounce_decider: BounceDecider,
        quarantine: Quarantine | None,
    ) -> None:
        """Prepare; nothing is checked yet."""
        self._ledger = ledger
        self._sources = list(sources)
        self._bounce_decider = bounce_decider
        self._quarantine = quarantine

    async def ask(self) -> None:
        """Apply the bounce rules to every such report that has evidence."""
        while these := await self._ledger.reports.asked(self._sources):
            await self._ledger.reports.answer(
                [(each, self._ask(each)) for each in these]
            )
            if self._quarantine is not None:
                ids = sorted({each.row["id"] for each in these})
                self._quarantine.forget(await self._ledger.reports.needless(ids))

    def _ask(self, each: SuccessReportRequest) -> BouncePermit:
        row = each.row
        classification = Classification(
            verdict=Verdict.DELIVER,
            scope=Scope.RECIPIENT,
            rule=each.report["rule"],
            reason="as it was answered",
        )
        request = BounceRequest(
            sender=row["reverse_path"],
            original=row["message_id"] or row["id"],
            recipient=recipient_of(row),
            classification=classification,
            answer=as_said(each.report["reply"]),
            action=DsnAction.RELAYED,
        )
        return self._bounce_decider.ask(each.found, request, utcnow())
