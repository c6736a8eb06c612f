"""What waits in memory between the ledger and the sessions: little, bounded.

Everything in it is claimed in the ledger, so nothing is lost with it.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from drainer.delivery.message_claims import MessageClaims
from drainer.mail.content import held_bytes
from drainer.policy.recipient.delivery import ClaimedRecipient, assign_twins, parts
from drainer.smtp.transaction import Transaction

READY_BYTES = 8 * 1024 * 1024
"""Bytes of the contents in memory, beyond which ``put`` waits."""


class ReadyQueue:
    """A bounded queue of transactions that knows what is still under way."""

    def __init__(
        self, limit: int, claims: MessageClaims, *, in_order: bool = False
    ) -> None:
        """Hold at most ``limit`` messages; ``put`` waits beyond that.

        ``in_order``: an operator chose an order, so that nothing is shuffled.
        """
        self._limit = limit
        self._in_order = in_order
        self._items: deque[Transaction] = deque()
        self._aside: deque[Transaction] = deque()
        #: Bytes of the contents that are in memory, without what is parked.
        self._bytes = 0
        self._takers: list[asyncio.Future[None]] = []
        #: Sessions without work, and how many of them are to end at once.
        self._idlers: list[asyncio.Future[None]] = []
        self._dismissed = 0
        self._putters: list[asyncio.Future[None]] = []
        self._claims = claims
        #: How many transactions were put and have not ended.
        self.outstanding = 0
        #: Whether it is over.
        self.closed = False
        #: Set when nothing that was put is still under way.
        self.idle = asyncio.Event()

    async def put(self, transaction: Transaction) -> None:
        """Add work; wait while the ready queue is full."""
        if not self._has_room():
            await wait_until(lambda: self._has_room() or self.closed, self._putters)
        if self.closed:
            return
        self.count(transaction)
        self._bytes += held_bytes(transaction.spooled)
        self._items.append(transaction)
        self._call_takers()

    def _has_room(self) -> bool:
        count = len(self._items) + len(self._aside)
        return count < self._limit and self._bytes < READY_BYTES

    def count(self, transaction: Transaction) -> None:
        """Count work that will end without being taken."""
        self.outstanding += 1
        self.idle.clear()
        self._claims.add(transaction.delivery.message.id)

    async def wait(self) -> bool:
        """Wait until there is something to take; return False when it is over."""
        await wait_until(lambda: bool(self._items) or self.closed, self._takers)
        return not self.closed

    async def take(self, idle: float, *, fresh: bool) -> Transaction | None:
        """Return work, or None when it is over or none came for ``idle`` seconds.

        Only a ``fresh`` session gets work that must go alone. Another session gets
        None, so that it ends.
        """
        if not self._items and not self.closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(idle):
                    await wait_until(self._has_news, self._idlers)
                    self._dismissed = 0
        if self.closed or not self._items:
            return None
        if self._items[0].delivery.alone and not fresh:
            return None
        return self._pop()

    def _has_news(self) -> bool:
        return bool(self._items) or self.closed or self._dismissed > 0

    def dismiss_one(self) -> None:
        """Let one session that waits for work end: its connection is needed."""
        if self._idlers:
            self._dismissed = 1
            notify(self._idlers)

    def _call_takers(self) -> None:
        notify(self._takers)
        notify(self._idlers)

    def take_now(self) -> Transaction | None:
        """Return work if some is there that need not go alone."""
        if self.closed or not self._items or self._items[0].delivery.alone:
            return None
        return self._pop()

    def park(self, transaction: Transaction) -> bool:
        """Keep work that was taken and may not go yet; return False without room."""
        if len(self._aside) >= self._limit // 2 or self.closed:
            return False
        self._aside.append(transaction)
        return True

    def unpark(self) -> None:
        """Return parked work to the queue."""
        if self._aside:
            self._items.extendleft(reversed(self._aside))
            self._bytes += sum(held_bytes(each.spooled) for each in self._aside)
            self._aside.clear()
            self._call_takers()

    def shuffle(self) -> None:
        """Put what waits here into a random order, unless an order was chosen."""
        if not self._in_order:
            random.shuffle(self._items)

    def put_back(self, transaction: Transaction) -> None:
        """Return work that was taken and not started."""
        self._items.appendleft(transaction)
        self._bytes += held_bytes(transaction.spooled)
        self._call_takers()

    def split(self, transaction: Transaction, size: int) -> Transaction:
        """Split work that was taken: return ``size`` recipients, put the rest back."""
        claimed = transaction.delivery.claimed
        length = len(next(parts(claimed, size)))
        first, rest = self.cut(transaction, claimed[:length], claimed[length:])
        self.put_back(rest)
        return first

    def cut(
        self,
        transaction: Transaction,
        first: tuple[ClaimedRecipient, ...],
        rest: tuple[ClaimedRecipient, ...],
    ) -> tuple[Transaction, Transaction]:
        """Split work that was taken into two, by the recipients given."""
        one, other = (
            Transaction(
                delivery=replace(
                    transaction.delivery, claimed=assign_twins(part), whole=False
                ),
                spooled=transaction.spooled,
                facts=transaction.facts,
                scanned=transaction.scanned,
            )
            for part in (first, rest)
        )
        self.count(other)
        return one, other

    def end(self, transaction: Transaction) -> bool:
        """Note that a transaction ended; return True for its message's last part."""
        self.outstanding -= 1
        if not self.outstanding:
            self.idle.set()
        return self._claims.end(transaction.delivery.message.id)

    def close(self) -> list[Transaction]:
        """Return nothing more to takers, and now what was queued; it stays claimed."""
        self.closed = True
        dropped = [*self._items, *self._aside]
        self._items.clear()
        self._aside.clear()
        self._call_takers()
        notify(self._putters)
        self.idle.set()
        return dropped

    def _pop(self) -> Transaction:
        transaction = self._items.popleft()
        self._bytes -= held_bytes(transaction.spooled)
        if self._putters and 2 * len(self._items) <= self._limit:  # many at a time
            notify(self._putters)
        return transaction


async def wait_until(
    holds: Callable[[], bool], waiters: "list[asyncio.Future[None]]"
) -> None:
    """Wait with others until it holds; the task that changes it calls ``notify``."""
    while not holds():
        future = asyncio.get_running_loop().create_future()
        waiters.append(future)
        await future


def notify(waiters: "list[asyncio.Future[None]]") -> None:
    """Wake the waiting tasks so that they check again."""
    for future in waiters:
        if not future.done():
            future.set_result(None)
    waiters.clear()
