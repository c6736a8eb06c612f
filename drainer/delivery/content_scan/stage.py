"""Between fair queue and ready queue, for one route: where contents are scanned.

A message that needs no scan passes those that wait for a scanner.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from msgspec.structs import replace

from drainer.delivery.content_scan.protocol import ScanRequest
from drainer.delivery.content_scan.screen import ContentScreen, decisive
from drainer.mail.message import Message, Problem, ScanProblem
from drainer.policy.recipient.delivery import Delivery
from drainer.smtp.transaction import Transaction

ROOM = 1000
"""Messages that are scanned, or wait for that; the fair queue holds many more."""

Loaded = Sequence[tuple[Transaction, Problem | None]]
"""Transactions, and what forbids each of them."""


class ScanStage:
    """Scans messages before they are ready, many at the same time."""

    def __init__(
        self,
        screen: ContentScreen,
        *,
        in_order: bool,
        is_client_named: Callable[[Message], bool],
    ) -> None:
        """Scan one after the other when an operator chose an order.

        ``is_client_named`` says whether XCLIENT names the client of a message to the
        primary.
        """
        self._screen = screen
        self._is_client_named = is_client_named
        self._room = asyncio.Semaphore(1 if in_order else ROOM)
        #: Held while a message is put into the ready queue, so that few wait for that.
        self.turn = asyncio.Lock()

    async def enter(self) -> None:
        """Wait for room for one more message."""
        await self._room.acquire()

    def leave(self) -> None:
        """Make room: a message is ready, or was refused."""
        self._room.release()

    async def examine(
        self, delivery: Delivery, loaded: Loaded
    ) -> tuple[str, ScanProblem | None]:
        """Return what scanners say of a loaded delivery, and why it is not sent."""
        fit = (each for each, problem in loaded if problem is None)
        first = next(fit, None)
        if first is None:
            return "", None
        message = first.spooled.message
        request = ScanRequest(
            message=message,
            recipients=tuple(c.recipient.forward_path for c in delivery.claimed),
            content=first.spooled.content,
            size=first.facts.size_bytes,
            sha256=delivery.message.sha256 or first.facts.sha256,
            released=delivery.claimed[0].released,
            is_client_named=partial(self._is_client_named, message),
        )
        findings = await self._screen.examine(request)
        return "; ".join(each.note for each in findings), decisive(findings)


def by_release(delivery: Delivery) -> Iterator[Delivery]:
    """Split a delivery: a scanner does not hold what an operator has released."""
    released = tuple(each for each in delivery.claimed if each.released)
    others = tuple(each for each in delivery.claimed if not each.released)
    if released and others:
        yield replace(delivery, claimed=released, whole=False)
        yield replace(delivery, claimed=others, whole=False)
    else:
        yield delivery
