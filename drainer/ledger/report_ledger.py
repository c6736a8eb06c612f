"""Evidence about senders, and reports to them."""

from collections.abc import Sequence

from drainer.ledger.part import LedgerPart, now
from drainer.ledger.query import quarantine
from drainer.ledger.records import Row
from drainer.ledger.reports import evidence, outbox, success_reports
from drainer.policy.recipient.judge import BouncePermit


class ReportLedger(LedgerPart):
    """Evidence about senders, and reports to them."""

    async def lacking_evidence(
        self, sources: Sequence[str], limit: int, but: Sequence[int] = ()
    ) -> list[Row]:
        """Return messages with a refusal and too little known about their sender."""
        which = evidence.MissingEvidence(sources, limit, but)
        return await self._call(evidence.find_unproven, which=which, now=now())

    async def keep_evidence(self, seq: int, found: Row) -> None:
        """Record what was found about a sender (bounce.evidence.codec)."""
        row = {"message": seq, **found}
        await self._call(evidence.keep_evidence, row=row, now=now())

    async def asked(
        self, sources: Sequence[str]
    ) -> list[success_reports.SuccessReportRequest]:
        """Return reports of deliveries that the bounce rules may be asked about now."""
        return await self._call(
            success_reports.find_requested, sources=sources, now=now()
        )

    async def answer(
        self,
        answers: Sequence[tuple[success_reports.SuccessReportRequest, BouncePermit]],
    ) -> None:
        """Record what the bounce rules decided about them."""
        await self._call(
            success_reports.answered, answers=answers, run=self._identity.run, now=now()
        )

    async def needless(self, ids: Sequence[str]) -> list[str]:
        """Return those of the messages of which no copy is needed any more."""
        return await self._call(quarantine.find_needless, ids=ids)

    async def due_senders(self, waits: outbox.ReportDelays) -> list[str]:
        """Return the senders that get the reports that are due now."""
        return await self._call(outbox.due_senders_of, waits=waits, now=now())

    async def take(
        self, waits: outbox.ReportDelays, hostname: str
    ) -> outbox.QueuedReport | None:
        """Start an attempt to send the next report that is due; None when none is."""
        return await self._call(
            outbox.take,
            waits=waits,
            identity=self._identity,
            now=now(),
            hostname=hostname,
        )

    async def end(
        self, queued: outbox.QueuedReport, ending: outbox.ReportResult
    ) -> None:
        """Record the result of that attempt."""
        about = {"queued": queued, "ending": ending, "identity": self._identity}
        await self._call(outbox.ended, now=now(), **about)
