"""The way of a report: the relay of the operator, or the mail servers of its sender."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from drainer.evidence import Servers
from drainer.mail.envelope import domain_of
from drainer.smtp import Route, Timeouts

if TYPE_CHECKING:
    from drainer.evidence.dns import Dns
    from drainer.evidence.relays import Relays

LIMITS = Timeouts(connect=10, banner=30, ehlo=30, mail=60, rcpt=60, data=60, body=60)


class NoWay(Exception):
    """There is none; ``later``, because DNS did not answer, or for good."""

    def __init__(self, reason: str, *, later: bool) -> None:
        """Say why."""
        super().__init__(reason)
        self.later = later


@dataclass(slots=True, kw_only=True)
class Ways:
    """Finds the servers that take a report; keeps what DNS said for a run."""

    #: Who takes mail for everybody; None = the mail servers of each sender.
    via: Route | None
    #: Which DNS servers tell of those.
    servers: Servers
    #: Our own name: mail for it would come back to us.
    hostname: str
    #: The port of those mail servers, and whether private addresses may be some.
    port: int = 25
    private: bool = False
    _dns: "Dns | None" = field(default=None, init=False)

    async def to(self, sender: str) -> list[Route]:
        """Return the servers to try, in order; NoWay when there are none."""
        if self.via is not None:
            return [self.via]
        found = await asyncio.to_thread(self._relays, domain_of(sender))
        if not found.targets:
            raise NoWay(found.problem, later=found.later)
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

    def _relays(self, domain: str) -> "Relays":
        # dnspython takes a tenth of what a drain loads; most have a relay.
        from drainer.evidence.dns import Dns  # noqa: PLC0415
        from drainer.evidence.relays import relays_of  # noqa: PLC0415

        self._dns = self._dns or Dns(self.servers)
        self._dns.begin()
        own = frozenset((self.hostname.lower(),))
        return relays_of(self._dns, domain, own, private=self.private)
