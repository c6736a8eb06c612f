"""Evidence about the senders of refused mail, gathered while it rests in escrow.

DNS is slow and messages are hostile, so that nothing waits for this: what is not
known yet when a refusal would be final is decided another time.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from drainer.errors import MessageUnreadable
from drainer.evidence import MAX_CONTENT_BYTES, Question, Settings
from drainer.evidence.checking import Checks
from drainer.evidence.stored import stored
from drainer.ledger.rows import message_of
from drainer.ledger.sql import Ledger
from drainer.mail.marks import marks_of
from drainer.mail.message import Message
from drainer.policy.facts import Reach
from drainer.quarantine import Quarantine, open_message
from drainer.sources import Source

BATCH = 50
LOOK_EVERY = timedelta(seconds=5)


class Gathering:
    """Looks for evidence about whatever waits for confirmation."""

    def __init__(
        self,
        ledger: Ledger,
        sources: Mapping[str, Source],
        settings: Settings,
        quarantine: Quarantine | None = None,
    ) -> None:
        """Prepare; ``run`` or ``once`` do it."""
        self._ledger = ledger
        self._sources = sources
        self._settings = settings
        self._quarantine = quarantine

    async def run(self) -> None:
        """Gather until it is cancelled; DNS is remembered meanwhile."""
        async with Checks(self._settings) as checks:
            while True:
                await self._all(checks)
                await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def once(self) -> None:
        """Gather what is lacking now."""
        async with Checks(self._settings) as checks:
            await self._all(checks)

    async def _all(self, checks: Checks) -> None:
        urls = list(self._sources)
        while rows := await self._ledger.lacking_evidence(urls, BATCH):
            for row in rows:
                await self._look(checks, row["seq"], message_of(row))

    async def _look(self, checks: Checks, seq: int, message: Message) -> None:
        content, cut = await asyncio.to_thread(self._read, message)
        readable = bool(content)  # else nobody knows what else its header says
        question = Question(
            reverse_path=message.envelope.reverse_path,
            client=message.client.address if readable else "",
            helo=message.client.helo,
            login=message.login if readable else "",
            arrived=message.arrived,
            content=content,
            cut=cut,
        )
        facts = await checks.facts(question)
        if not readable:  # perhaps another time
            facts = replace(facts, reach=Reach.LATER)
        head = content.partition(b"\r\n\r\n")[0] + b"\r\n"
        await self._ledger.keep_evidence(seq, stored(facts, marks_of(head)))

    def _read(self, message: Message) -> tuple[bytes, bool]:
        """Return the content, or its beginning when there is more than is checked."""
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
