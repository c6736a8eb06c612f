"""Runs: what they are bound to, and their share of a route's rate."""

import asyncio
from collections.abc import Iterable
from datetime import datetime

from drainer.ledger import overrides, runs
from drainer.ledger.owner import RENEW_EVERY
from drainer.ledger.part import LedgerPart, now
from drainer.ledger.records import from_micros
from drainer.policy.pacing.overrides import ActiveOverrides


class RunLedger(LedgerPart):
    """Runs: what they are bound to, and their share of a route's rate."""

    async def bind(self, sources: Iterable[str], route: str) -> None:
        """Bind sources to their primary; raise UsageError when it is another one."""
        await self._call(runs.bind, sources=list(sources), route=route, now=now())

    async def last_activity(self, route: str) -> datetime | None:
        """Return until when another run may have sent to this route."""
        found = await self._call(
            runs.last_activity, route=route, run=self._identity.run, now=now()
        )
        return None if found is None else from_micros(found)

    async def outlook(self, most: int) -> tuple[float, ActiveOverrides]:
        """Return this run's share of its route's rate, 0 to 1, and overrides in force.

        At most ``most`` runs share it; the others have to wait.
        """
        share, in_force = await self._call(
            overrides.outlook, run=self._identity.run, most=most, now=now()
        )
        return share / runs.WHOLE, in_force

    async def take_share(self, share: float) -> float:
        """Take a share of the rate; return how much the other runs have left.

        Lower the own rate before reporting a smaller share, never after.
        """
        wanted = int(share * runs.WHOLE)
        taken = await self._call(
            runs.take_share, run=self._identity.run, wanted=wanted, now=now()
        )
        return taken / runs.WHOLE

    async def keep_lease(self) -> None:
        """Renew the lease without end; run it as a task."""
        while True:
            await asyncio.sleep(RENEW_EVERY.total_seconds())
            await self._call(runs.renew, owner=self._identity.owner, now=now())
