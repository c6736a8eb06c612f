"""Runs: the routes of their recipients, and their share of a route's rate."""

import asyncio
from collections.abc import Iterable
from datetime import datetime

from drainer.ledger import overrides, route_assignment, route_shares, runs
from drainer.ledger.owner import RENEW_EVERY
from drainer.ledger.part import LedgerPart, now
from drainer.ledger.records import from_micros
from drainer.policy.admission.admit import Admission
from drainer.policy.pacing.overrides import ActiveOverrides


class RunLedger(LedgerPart):
    """Runs: the routes of their recipients, and their share of a route's rate."""

    async def assign(self, sources: Iterable[str], rules: Admission) -> None:
        """Assign what waits in some sources to the routes of this run."""
        await self._call(
            route_assignment.assign,
            sources=list(sources),
            rules=rules,
            run=self._identity.run,
            now=now(),
        )

    async def last_activity(self, route: str) -> datetime | None:
        """Return until when another run may have sent to this route."""
        found = await self._call(
            route_shares.last_activity, route=route, run=self._identity.run, now=now()
        )
        return None if found is None else from_micros(found)

    async def outlook(self, route: str, most: int) -> tuple[float, ActiveOverrides]:
        """Return this run's share of a route's rate, 0 to 1, and overrides in force.

        At most ``most`` runs share it; the others have to wait.
        """
        share, in_force = await self._call(
            overrides.outlook, run=self._identity.run, route=route, most=most, now=now()
        )
        return share / route_shares.WHOLE, in_force

    async def take_share(self, route: str, share: float) -> float:
        """Take a share of a route's rate; return how much the other runs have left.

        Lower the own rate before reporting a smaller share, never after.
        """
        wanted = int(share * route_shares.WHOLE)
        taken = await self._call(
            route_shares.take_share,
            run=self._identity.run,
            route=route,
            wanted=wanted,
            now=now(),
        )
        return taken / route_shares.WHOLE

    async def keep_lease(self) -> None:
        """Renew the lease without end; run it as a task."""
        while True:
            await asyncio.sleep(RENEW_EVERY.total_seconds())
            await self._call(runs.renew, owner=self._identity.owner, now=now())
