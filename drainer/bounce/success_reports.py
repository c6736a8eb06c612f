"""Reports of a delivery (action "relayed"): the bounce rules decide about them too.

drainer reports a delivery only if the sender asked for it (NOTIFY=SUCCESS) and the
primary lacks DSN.
"""

from collections.abc import Iterable

from drainer.bounce.decider import BounceDecider, request_of
from drainer.bounce.quarantine.store import Quarantine
from drainer.ledger.reports.success_reports import SuccessReportRequest
from drainer.ledger.repository import Ledger
from drainer.mail.dsn.model import DsnAction
from drainer.policy.classify.verdict import Classification, Scope, Verdict
from drainer.policy.recipient.judge import BouncePermit
from drainer.runtime.process import utcnow


async def decide_success_reports(
    ledger: Ledger,
    sources: Iterable[str],
    decider: BounceDecider,
    quarantine: Quarantine | None,
) -> None:
    """Apply the bounce rules to every such report that has evidence."""
    while these := await ledger.reports.asked(list(sources)):
        await ledger.reports.answer([(each, _ask(decider, each)) for each in these])
        if quarantine is not None:
            ids = sorted({each.row["id"] for each in these})
            quarantine.forget(await ledger.reports.needless(ids))


def _ask(decider: BounceDecider, each: SuccessReportRequest) -> BouncePermit:
    classification = Classification(
        verdict=Verdict.DELIVER,
        scope=Scope.RECIPIENT,
        rule=each.report["rule"],
        reason="as it was answered",
    )
    request = request_of(
        each.row, classification, each.report["reply"], DsnAction.RELAYED
    )
    return decider.ask(each.found, request, utcnow())
