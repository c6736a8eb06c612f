"""What one drain needs to notify senders: evidence, bounce decisions, reports.

It gathers evidence while the drain runs, and decides and sends at the end.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Self

from drainer.bounce.collector import EvidenceCollector
from drainer.bounce.evidence.client import EvidenceWorker
from drainer.bounce.quarantine.store import Quarantine
from drainer.bounce.reports import DsnSender
from drainer.bounce.settings import BounceSettings
from drainer.bounce.success_reports import decide_success_reports
from drainer.ledger.repository import Ledger
from drainer.sources.protocol import Source

PATIENCE_AT_START = timedelta(seconds=3)
PATIENCE_AT_END = timedelta(seconds=30)
"""Time for messages with slow DNS, when a person waits for it."""


class BounceService:
    """Notifies senders; an async context manager that ends the evidence process."""

    def __init__(
        self,
        ledger: Ledger,
        sources: Mapping[str, Source],
        quarantine: Quarantine | None,
        bouncing: BounceSettings,
    ) -> None:
        self._ledger, self._sources, self._quarantine = ledger, sources, quarantine
        self.bounce_decider = bouncing.decider
        self._checks = EvidenceWorker(bouncing.evidence)
        self._gathering = EvidenceCollector(
            ledger, sources, self._checks, quarantine, bouncing.dns_budget
        )
        self.reporting = DsnSender(
            ledger, sources, quarantine, bouncing.posting, self._checks
        )
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._checks.end()

    async def gather_once(self) -> None:
        """Gather the missing evidence; wait little for slow DNS."""
        await self._gathering.quick()
        await self._gathering.patient(PATIENCE_AT_START)

    async def gather(self) -> None:
        """Gather evidence until it is cancelled."""
        await self._gathering.run()

    async def finish(self) -> None:
        """Check the latest refusals, and send the reports that are due.

        Senders with slow DNS come last, so that no other report waits for them.
        """
        await self._gathering.quick()
        await self._report()
        if self._gathering.has_set_aside and not self._closed:
            await self._gathering.patient(PATIENCE_AT_END)
            await self._gathering.put_off()
            await self._report()

    async def _report(self) -> None:
        if not self._closed:
            await decide_success_reports(
                self._ledger, self._sources, self.bounce_decider, self._quarantine
            )
            await self.reporting.run()

    def close(self) -> None:
        """Start no further report."""
        self._closed = True
        self.reporting.close()
