"""Circuit breakers, what waits for them, and pending bounces."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from drainer.ledger import breaker_waits, breakers
from drainer.ledger.part import LedgerPart, now
from drainer.ledger.records import to_micros
from drainer.policy.breaker.breaker import CircuitBreaker
from drainer.policy.recipient.settle import FAR


class BreakerLedger(LedgerPart):
    """Circuit breakers, what waits for them, and pending bounces."""

    async def recall(self, route: str) -> breakers.RouteMemory:
        """Return a route's breakers as the last run left them, and what it knew."""
        return await self._call(breakers.recall, route=route, now=now())

    async def keep(self, route: str, breaker: CircuitBreaker) -> None:
        """Record a breaker."""
        await self._call(breakers.keep, route=route, breaker=breaker, now=now())

    async def opened(self, sources: Sequence[str], breaker: CircuitBreaker) -> int:
        """Take back the pending bounces behind an opened breaker; return how many."""
        at = now()
        return await self._call(
            breaker_waits.opened,
            behind=breaker_waits.WaitingScope(sources, breaker.scope),
            run=self._identity.run,
            breaker=breaker,
            times=(at, at + FAR // timedelta(microseconds=1)),
        )

    async def closed(self, sources: Sequence[str], scope: str) -> None:
        """Make due what waited for a breaker that closed."""
        behind = breaker_waits.WaitingScope(sources, scope)
        await self._call(breaker_waits.closed, behind=behind, now=now())

    async def wake_one(
        self, sources: Sequence[str], scope: str, since: datetime
    ) -> bool:
        """Make a recipient that waits for a breaker due now, as a probe; False = none.

        Recipients that were tried since then do not count.
        """
        behind = breaker_waits.WaitingScope(sources, scope)
        return await self._call(
            breaker_waits.wake_one, behind=behind, since=to_micros(since)
        )

    async def ripen(
        self,
        sources: Sequence[str],
        brake: breaker_waits.Brake,
        *,
        dry: bool = False,
        looked: bool = False,
    ) -> breaker_waits.DueConfirmations:
        """Retry pending bounces whose confirmation delay is over."""
        return await self._call(
            breaker_waits.ripen,
            sources=sources,
            how=breaker_waits.ConfirmationCheck(brake, looked=looked, dry=dry),
            identity=(self._identity.run, now()),
        )
