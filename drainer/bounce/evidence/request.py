"""The settings and the question of a check of a sender."""

from datetime import datetime

from msgspec import Struct

MAX_CONTENT_BYTES = 32 * 1024 * 1024
"""Bytes of a message that has its signatures checked; rule V4 skips larger ones."""
MAX_HEADER_BYTES = 256 * 1024
"""Bytes of a header section that are read."""


class DnsServers(Struct, frozen=True, kw_only=True):
    """Which DNS servers are asked, and for how long."""

    #: Addresses; none means those of the system.
    addresses: tuple[str, ...] = ()
    port: int = 53
    #: Seconds for one question, including all servers and repetitions.
    timeout: float = 5.0
    #: Seconds for all questions about one message.
    budget: float = 20.0
    #: Seconds for all questions to one organisation's domains in a quarter of an hour.
    domain_budget: float = 10.0


class EvidenceSettings(Struct, frozen=True, kw_only=True):
    """The settings of a whole run."""

    servers: DnsServers = DnsServers()
    #: Server names in the Authentication-Results that count.
    authserv_ids: frozenset[str] = frozenset()
    #: Other names of this host.
    backup_hosts: frozenset[str] = frozenset()
    #: Our own name: mail to it would come back to us.
    hostname: str = ""
    #: Senders may have their mail servers at private addresses.
    private: bool = False

    @property
    def names(self) -> frozenset[str]:
        """Return all names of this host that are known."""
        return self.backup_hosts | {self.hostname.lower()} - {""}


class SenderQuestion(Struct, frozen=True, kw_only=True):
    """One message, as far as it concerns its sender."""

    reverse_path: str
    #: The client that the backup saw, from the spool's record; never from a header.
    client: str = ""
    helo: str = ""
    login: str = ""
    arrived: datetime
    #: With CRLF line ends; only the header section if the content exceeds the limit.
    content: bytes = b""
    #: The content is only the header section.
    cut: bool = False
