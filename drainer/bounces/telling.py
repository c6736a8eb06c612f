"""All that it takes to tell senders, for one drain: evidence, the gate, reports.

Evidence is gathered while the drain goes on; at its end the gate is asked about what
is no failure, and what is due is sent.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import timedelta

from drainer.bounces import Bouncing, make_bouncer
from drainer.bounces.gathering import Gathering
from drainer.bounces.noticing import Noticing
from drainer.bounces.reporting import Reporting
from drainer.ledger.sql import Ledger
from drainer.quarantine import Quarantine
from drainer.sources import Source

GATHER_AT_END = timedelta(seconds=30)


class Telling:
    """Tells senders; or whoever asks, what may be told."""

    def __init__(
        self,
        ledger: Ledger,
        sources: Mapping[str, Source],
        quarantine: Quarantine | None,
        bouncing: Bouncing,
    ) -> None:
        """Prepare; nothing is looked at yet."""
        self._ledger = ledger
        self.bouncer = make_bouncer(bouncing)
        self._gathering = Gathering(ledger, sources, bouncing.settings, quarantine)
        self._noticing = Noticing(
            ledger, list(sources), self.bouncer, quarantine, bouncing.delays
        )
        self.reporting = Reporting(ledger, sources, quarantine, bouncing.posting)
        self._closed = False

    async def gather_once(self) -> None:
        """Gather all evidence that is lacking."""
        await self._gathering.once()

    async def gather(self) -> None:
        """Look for evidence until it is cancelled."""
        await self._gathering.run()

    async def finish(self) -> None:
        """Look at whoever was refused last, and send the reports that are due."""
        await self._noticing.look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_AT_END.total_seconds()):
                await self._gathering.once()
        if not self._closed:
            await self._noticing.ask()
            await self.reporting.run()

    def close(self) -> None:
        """Begin no further report."""
        self._closed = True
        self.reporting.close()
