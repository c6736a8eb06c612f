"""Edge out: what DNS and the message itself say about a sender.

Nothing here decides; drainer.policy does, over the facts that are found here. Checks
may take long on a hostile message or a slow domain, so that a drain asks through
``checking``: there each message has a process that can be killed, and DNS a budget.
"""

from datetime import datetime

from drainer.runtime.values import dataclass

MAX_CONTENT_BYTES = 32 * 1024 * 1024
"""Of a message whose signatures are checked; a larger one has no rule V4."""
MAX_HEADER_BYTES = 256 * 1024
"""Of a header section that is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsServers:
    """Which DNS servers are asked, and for how long."""

    #: Addresses; none = those of the system.
    addresses: tuple[str, ...] = ()
    port: int = 53
    #: Seconds for one question, all servers and repetitions included.
    timeout: float = 5.0
    #: Seconds for all questions about one message.
    budget: float = 20.0
    #: Seconds for all questions to one organisation's domains in a quarter of an hour.
    domain_budget: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSettings:
    """What stays the same for a whole run."""

    servers: DnsServers = DnsServers()
    #: Whose Authentication-Results count.
    authserv_ids: frozenset[str] = frozenset()
    #: Other names of this host.
    backup_hosts: frozenset[str] = frozenset()
    #: Our own name: mail to it would come back to us.
    hostname: str = ""
    #: Senders may have their mail servers at private addresses.
    private: bool = False

    @property
    def names(self) -> frozenset[str]:
        """All names of this host that are known."""
        return self.backup_hosts | {self.hostname.lower()} - {""}


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderQuestion:
    """One message, as far as it bears on its sender."""

    reverse_path: str
    #: The client that the backup saw, from the spool's record; never from a header.
    client: str = ""
    helo: str = ""
    login: str = ""
    arrived: datetime
    #: With CRLF line ends; the header section alone when there is more than allowed.
    content: bytes = b""
    #: The content is the header section alone.
    cut: bool = False
