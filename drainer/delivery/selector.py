"""What a drain that chooses may start: selected, within its limit, in its order.

It reads what waits in the ledger once in a round, and claims that by number
(drainer.ledger.query.selection). It leaves everything else in the ledger alone.
"""

import asyncio
import time
from datetime import datetime

from msgspec.structs import replace

from drainer.delivery.settings import DrainSettings
from drainer.ledger.query.selection import DueList, DueQuery, scan_due
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import to_micros
from drainer.ledger.repository import Ledger
from drainer.ledger.route_mail import RouteMail
from drainer.policy.recipient.delivery import Delivery
from drainer.runtime.process import utcnow

CLAIM = 200
"""Messages that are claimed at a time."""
LOOKS = 20
"""Reading the ledger takes at most one part in this many of the time."""


class MessageLimit:
    """How many more messages a drain may start; None: as many as there are."""

    def __init__(self, left: int | None) -> None:
        """Start with ``left``."""
        self.left = left

    def count(self, messages: int) -> None:
        """Take from the limit what was started."""
        if self.left is not None:
            self.left = max(0, self.left - messages)


class Selector:
    """The choice of one drain, from the mail of one route."""

    def __init__(
        self,
        settings: DrainSettings,
        ledger: Ledger,
        mail: RouteMail,
        limit: MessageLimit,
    ) -> None:
        """Choose from the mail of a route; all routes share the limit.

        Nothing is read before the first ``claim``.
        """
        self._choice = settings.choice
        self._picks_all = settings.choice.selection.is_all
        self._lifetime = settings.schedule.lifetime
        self._ledger = ledger
        self._mail = mail
        self._limit = limit
        self._waiting = DueList()
        self._look_after = 0.0
        #: Set when what earlier runs had recorded is claimed, or it is over.
        self.caught_up = asyncio.Event()

    @property
    def takes_all(self) -> bool:
        """Whether nothing is chosen: everything due may be claimed."""
        return self._choice.is_all

    @property
    def in_order(self) -> bool:
        """Whether everything must be known before anything may be started."""
        return self._choice.order is not None

    def pick(self, delivery: Delivery) -> Delivery | None:
        """Return a claimed delivery with the recipients that are selected, if any."""
        if self._picks_all:
            return delivery
        selection = self._choice.selection
        claimed = tuple(
            each
            for each in delivery.claimed
            if selection.takes_recipient(each.recipient.forward_path)
        )
        whole = delivery.whole and len(claimed) == len(delivery.claimed)
        return replace(delivery, claimed=claimed, whole=whole) if claimed else None

    async def claim(self, until: datetime, *, twins: bool) -> list[Delivery]:
        """Claim some of what was due by then; read again if it is time to.

        Without ``twins``, it claims no message that only its locator identifies.
        """
        if self._waiting.is_spent and time.monotonic() >= self._look_after:
            await self.look(until, twins=twins)
        taken = self._waiting.take(CLAIM, self._limit.left)
        if not taken:
            self.caught_up.set()
            return []
        found = await self._ledger.messages.claim_these(
            list(taken), until, self._mail.route
        )
        deliveries = [
            delivery for each in found if (delivery := self.pick(each)) is not None
        ]
        kept = {delivery.seq for delivery in deliveries}
        for seq in {delivery.seq for delivery in found} - kept:
            self._ledger.messages.free(seq)
        self._limit.count(sum(not taken[seq] for seq in kept))
        return deliveries

    async def look(self, until: datetime, *, twins: bool = True) -> None:
        """Read what waits, outcomes that are under way included."""
        await self._ledger.sync()
        begun = time.monotonic()
        now = utcnow()
        asking = DueQuery(
            mail=self._mail,
            choice=self._choice,
            run=self._ledger.run_id,
            due=to_micros(min(now, until)),
            lifetime_began=to_micros(now - self._lifetime),
            twins=twins,
        )
        self._waiting = await asyncio.to_thread(self._read, asking)
        ended = time.monotonic()
        self._look_after = ended + max(0.5, LOOKS * (ended - begun))

    def _read(self, asking: DueQuery) -> DueList:
        with LedgerReader(self._ledger.url) as report:
            return scan_due(report, asking)

    async def next_due(self, until: datetime) -> int | None:
        """Return when the next recipient is due, in microseconds; 0 = it is."""
        await self.look(until)
        if self._waiting.ready(self._limit.left):
            self._look_after = 0.0
            return 0
        return self._waiting.next_due
