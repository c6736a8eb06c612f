"""Circuit breakers, what waits for them, and pending bounces."""

from datetime import datetime, timedelta

from drainer.ledger import breaker_waits, breakers, corrections
from drainer.ledger.part import LedgerPart, now
from drainer.ledger.records import to_micros
from drainer.ledger.route_mail import RouteMail
from drainer.policy.breaker.brake import Brake
from drainer.policy.breaker.breaker import CircuitBreaker
from drainer.policy.breaker.groups import MailGroup
from drainer.policy.recipient.settle import FAR


class BreakerLedger(LedgerPart):
    """Circuit breakers, what waits for them, and pending bounces."""

    async def recall(self, route: str) -> breakers.RouteMemory:
        """Return a route's breakers as the last run left them, and what it knew."""
        return await self._call(breakers.recall, route=route, now=now())

    async def keep(self, route: str, breaker: CircuitBreaker) -> None:
        """Record a breaker."""
        await self._call(breakers.keep, route=route, breaker=breaker, now=now())

    async def opened(self, mail: RouteMail, breaker: CircuitBreaker) -> int:
        """Take back the pending bounces behind an opened breaker; return how many."""
        at = now()
        return await self._call(
            breaker_waits.take_back_waiting,
            behind=breaker_waits.WaitingScope(mail, breaker.scope),
            run=self._identity.run,
            breaker=breaker,
            times=(at, at + FAR // timedelta(microseconds=1)),
        )

    async def detain(self, mail: RouteMail, breaker: CircuitBreaker) -> None:
        """Let deferred mail wait for a breaker; it is due when that closes."""
        await self._call(
            breaker_waits.detain,
            behind=breaker_waits.WaitingScope(mail, breaker.scope),
            due=now() + FAR // timedelta(microseconds=1),
        )

    async def retry_refused(self, keys: corrections.Keys) -> None:
        """Try recipients again now that only one host of the primary has refused."""
        run = self._identity.run
        await self._call(corrections.retry_refused, keys=keys, run=run, now=now())

    async def hold_group(self, group: MailGroup, keys: corrections.Keys) -> None:
        """Hold pending bounces that turn out to be refused as one kind of mail."""
        run = self._identity.run
        await self._call(
            corrections.hold_group, group=group, keys=keys, run=run, now=now()
        )

    async def held_groups(self, mail: RouteMail) -> list[MailGroup]:
        """Return the groups of which mail is held."""
        return await self._call(corrections.find_held_groups, mail=mail)

    async def probe_group(self, mail: RouteMail, group: MailGroup) -> None:
        """Make one message that is held with a group pending, to try it again."""
        run = self._identity.run
        await self._call(
            corrections.probe_group, mail=mail, group=group, run=run, now=now()
        )

    async def release_group(self, mail: RouteMail, group: MailGroup) -> None:
        """Make what is held with a group pending."""
        run = self._identity.run
        await self._call(
            corrections.release_group, mail=mail, group=group, run=run, now=now()
        )

    async def closed(self, mail: RouteMail, scope: str) -> None:
        """Make due what waited for a breaker that closed."""
        behind = breaker_waits.WaitingScope(mail, scope)
        await self._call(breaker_waits.make_waiting_due, behind=behind, now=now())

    async def wake_one(self, mail: RouteMail, scope: str, since: datetime) -> bool:
        """Make a recipient that waits for a breaker due now, as a probe; False = none.

        Recipients that were tried since then do not count.
        """
        behind = breaker_waits.WaitingScope(mail, scope)
        return await self._call(
            breaker_waits.wake_one, behind=behind, since=to_micros(since)
        )

    async def ripen(
        self,
        mail: RouteMail,
        brake: Brake,
        *,
        due: datetime | None = None,
        dry: bool = False,
        looked: bool = False,
    ) -> breaker_waits.DueConfirmations:
        """Retry pending bounces whose confirmation delay was over by ``due``, or is."""
        return await self._call(
            breaker_waits.ripen,
            mail=mail,
            how=breaker_waits.ConfirmationCheck(
                brake, looked=looked, dry=dry, due=to_micros(due) if due else None
            ),
            identity=(self._identity.run, now()),
        )
