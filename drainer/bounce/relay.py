"""The servers for a report: the operator's relay, or the mail servers of its sender."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from drainer.bounce.evidence.client import AT_ONCE, EvidenceWorker
from drainer.mail.envelope import domain_of
from drainer.smtp.route import Route, Timeouts

if TYPE_CHECKING:
    from drainer.bounce.evidence.mx import MxTargets

LIMITS = Timeouts(connect=10, banner=30, ehlo=30, command=60, data=60, body=60)


class NoRelay(Exception):
    """No server was found; ``later`` if DNS did not answer in time, or permanently."""

    def __init__(self, reason: str, *, later: bool) -> None:
        super().__init__(reason)
        self.later = later


@dataclass(slots=True)
class ReportRelay:
    """Finds the servers that take a report; keeps DNS answers for a run."""

    #: The relay for all reports; None: the mail servers of each sender.
    via: Route | None
    #: The port of senders' mail servers.
    port: int
    #: Our own name.
    hostname: str
    checks: EvidenceWorker
    _known: dict[str, "MxTargets"] = field(default_factory=dict)

    async def prepare(self, senders: Iterable[str]) -> None:
        """Ask DNS about several senders at once: a slow one makes no other wait."""
        if self.via is not None:
            return
        places = asyncio.Semaphore(AT_ONCE)

        async def look(domain: str) -> None:
            async with places:
                self._known[domain] = await self.checks.relays(domain)

        domains = dict.fromkeys(domain_of(each) for each in senders)
        await asyncio.gather(*(look(each) for each in domains if each))

    async def to(self, sender: str) -> list[Route]:
        """Return the servers to try, in order; raise NoRelay if there are none."""
        if self.via is not None:
            return [self.via]
        domain = domain_of(sender)
        if domain not in self._known:
            self._known[domain] = await self.checks.relays(domain)
        found = self._known[domain]
        if not found.targets:
            raise NoRelay(found.problem, later=found.later)
        return [
            Route(
                host=host,
                port=self.port,
                address=address,
                helo=self.hostname,
                timeouts=LIMITS,
            )
            for host, address in found.targets
        ]
