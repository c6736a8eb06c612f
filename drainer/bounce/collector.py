"""Evidence about the senders of refused mail, gathered while the bounce is pending.

DNS is slow, and a stranger controls how slow his is, so nothing waits for this. drainer
checks several messages at once, each with a short first check. Messages with slow DNS
are set aside until all others are done.
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from msgspec.structs import replace

from drainer.bounce.evidence.client import AT_ONCE, EvidenceWorker
from drainer.bounce.evidence.codec import encode_evidence
from drainer.bounce.evidence.request import MAX_CONTENT_BYTES, SenderQuestion
from drainer.bounce.quarantine.store import Quarantine, open_message
from drainer.errors import DrainerError, MessageUnreadable
from drainer.ledger.codec import message_of
from drainer.ledger.records import Row
from drainer.ledger.repository import Ledger
from drainer.mail.envelope import domain_of
from drainer.mail.list_markers import ListMarkers, marks_of
from drainer.mail.mailbox import ascii_domain
from drainer.mail.message import Message
from drainer.policy.bounce.facts import Reachability, SenderFacts
from drainer.sources.protocol import Source

BATCH = 200
LOOK_EVERY = timedelta(seconds=5)
PER_DOMAIN = 2
"""Messages of one sender domain that are checked together."""
MAX_SET_ASIDE = 500
"""Further slow ones are put off at once."""


class _SetAside(NamedTuple):
    """A message with slow DNS, and what was found so far."""

    row: Row
    found: Row


class EvidenceCollector:
    """Gathers evidence about the senders of pending bounces."""

    def __init__(
        self,
        ledger: Ledger,
        sources: Mapping[str, Source],
        checks: EvidenceWorker,
        quarantine: Quarantine | None = None,
        budget: timedelta = timedelta(minutes=1),
    ) -> None:
        """Prepare; ``budget`` is the time of a run for messages that are set aside."""
        self._ledger = ledger
        self._sources = sources
        self._checks = checks
        self._quarantine = quarantine
        self._budget = budget.total_seconds()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._set_aside: dict[int, _SetAside] = {}

    @property
    def has_set_aside(self) -> bool:
        """Return whether a message waits for slow DNS."""
        return bool(self._set_aside)

    async def run(self) -> None:
        """Gather until it is cancelled; DNS answers are kept meanwhile."""
        while True:
            await self.quick()
            await self.patient()
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def quick(self) -> None:
        """Give each message a first check; set aside those with slow DNS."""
        urls = list(self._sources)
        while rows := await self._ledger.reports.lacking_evidence(
            urls, BATCH, list(self._set_aside)
        ):
            await self._each(rows, quick=True)

    async def patient(self, at_most: timedelta | None = None) -> None:
        """Check what was set aside again, within the budget; put off the rest.

        With ``at_most`` it takes no longer than that, and the rest stays set aside.
        """
        rows = [each.row for each in self._set_aside.values()]
        if not rows:
            return
        seconds = self._budget if at_most is None else at_most.total_seconds()
        started = time.monotonic()
        try:
            async with asyncio.timeout(min(seconds, self._budget)):
                await self._each(rows, quick=False)
        except TimeoutError:
            pass
        finally:
            self._budget = max(0.0, self._budget - (time.monotonic() - started))
        if at_most is None or not self._budget:
            await self.put_off()

    async def put_off(self) -> None:
        """Record what was found about those set aside: a later run asks DNS again."""
        for seq, each in list(self._set_aside.items()):
            await self._ledger.reports.keep_evidence(seq, each.found)
            del self._set_aside[seq]

    async def _each(self, rows: list[Row], *, quick: bool) -> None:
        """Check several messages together, but few of one domain."""
        # It loads the list of public suffixes.
        domains = await asyncio.to_thread(lambda: [_domain(row) for row in rows])
        turns = {domain: asyncio.Semaphore(PER_DOMAIN) for domain in domains}
        failed: list[Exception] = []
        try:
            async with asyncio.TaskGroup() as group:
                for row, domain in zip(rows, domains, strict=True):
                    group.create_task(self._look(turns[domain], row, quick=quick))
        except* DrainerError as errors:
            failed += errors.exceptions
        if failed:
            raise failed[0]

    async def _look(self, turn: asyncio.Semaphore, row: Row, *, quick: bool) -> None:
        seq = row["seq"]
        async with turn, self._places:
            facts, marks = await self._find(message_of(row), quick=quick)
            found = encode_evidence(facts, marks)
            if quick and found["later"] and len(self._set_aside) < MAX_SET_ASIDE:
                self._set_aside[seq] = _SetAside(row, found)
                return
            self._set_aside.pop(seq, None)
            await self._ledger.reports.keep_evidence(seq, found)

    async def _find(
        self, message: Message, *, quick: bool
    ) -> tuple[SenderFacts, ListMarkers]:
        content, cut = await asyncio.to_thread(self._read, message)
        readable = bool(content)  # otherwise it is unknown what else its header says
        question = SenderQuestion(
            reverse_path=message.envelope.reverse_path,
            client=message.client.address if readable else "",
            helo=message.client.helo,
            login=message.login if readable else "",
            arrived=message.arrived,
            content=content,
            cut=cut,
        )
        facts = await self._checks.facts(question, quick=quick)
        if not readable:  # another run may succeed
            facts = replace(facts, reach=Reachability.LATER)
        return facts, marks_of(content.partition(b"\r\n\r\n")[0] + b"\r\n")

    def _read(self, message: Message) -> tuple[bytes, bool]:
        """Return the content, or only its header if it is larger than the limit."""
        content = bytearray()
        try:
            spooled = open_message(self._sources, self._quarantine, message)
            for chunk in spooled.content.chunks():
                content += chunk
                if len(content) > MAX_CONTENT_BYTES:
                    head = bytes(content).partition(b"\r\n\r\n")[0] + b"\r\n"
                    return head, True
        except MessageUnreadable:
            return bytes(content), True  # then it has no signature that counts
        return bytes(content), False


def _domain(row: Row) -> str:
    """Return the organisation of a sender."""
    from drainer.runtime.public_suffixes import organisation_of  # noqa: PLC0415

    return organisation_of(ascii_domain(domain_of(row["reverse_path"])))
