"""Edge out: sessions with the primary.

aiosmtplib opens the connection and does EHLO, STARTTLS and AUTH
(drainer.smtp.connection); then its transport is handed to our own protocol
(drainer.smtp.protocol), on which the transactions run (drainer.smtp.session).
"""

from msgspec import Struct, field

from drainer.smtp.dane import Dane
from drainer.smtp.tls import NO_FILES, TlsFiles

LMTP = "lmtp"
SMTP_PORT = 25
SOCKET_PREFIX = "unix:"
"""What the name of a host starts with if it is the path of a Unix socket."""


class Timeouts(Struct, frozen=True, kw_only=True):
    """Seconds to wait at each stage (RFC 5321 4.5.3.2).

    A shorter wait for the reply to the final dot causes duplicates.
    """

    connect: float = 30.0
    banner: float = 300.0
    ehlo: float = 300.0
    #: For MAIL and for RCPT.
    command: float = 300.0
    data: float = 120.0
    body: float = 180.0
    dot: float = 600.0
    quit: float = 10.0
    #: How long a session without work keeps its connection.
    idle: float = 10.0


class Login(Struct, frozen=True, kw_only=True):
    """Credentials; never shown."""

    username: str
    password: str = ""
    #: A command that prints an OAuth 2.0 access token, instead of a password.
    token_command: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return it without the password."""
        return f"Login(username={self.username!r})"


class Host(Struct, frozen=True, kw_only=True):
    """A server of the primary; ``unix:PATH`` has no port."""

    host: str
    port: int = 25


class Route(Struct, frozen=True, kw_only=True):
    """The way to the primary."""

    #: The preferred server; its address is the name of the route.
    host: str
    port: int = 25
    #: All servers in order of preference, if there are several; those of one tier share
    #: the load.
    tiers: tuple[tuple[Host, ...], ...] = ()
    #: One of the host's addresses, to try only that; '' = all in turn.
    address: str = ""
    #: 'smtp' or 'lmtp' (RFC 2033).
    protocol: str = "smtp"
    #: Our name for EHLO.
    helo: str = "localhost"
    #: Our own address for these connections; '' = the system chooses.
    bind: str = ""
    #: 'off', 'v1' or 'v2': the PROXY header that goes before everything else.
    proxy_protocol: str = "off"
    #: 'off', 'opportunistic', 'required', or 'implicit': TLS from the first octet.
    tls: str = "opportunistic"
    #: Lowest version of TLS, as in "1.2".
    tls_minimum: str = "1.2"
    #: Whether the certificate must be valid for the host; that requires TLS.
    verify: bool = False
    tls_files: TlsFiles = NO_FILES
    #: Let DNS say which certificate is valid, where it does (RFC 7672); None = do not.
    dane: Dane | None = None
    login: Login | None = None
    #: 'off', 'xforward', 'xclient' or 'auto': how the primary learns of the client.
    forward_client: str = "off"
    #: EHLO keywords, in lower case, that drainer does not use.
    ignore_extensions: frozenset[str] = frozenset()
    #: Whether the primary may have our own name, which is a sign of a loop.
    allow_own_name: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)
    #: Caps of one connection: messages, and age in seconds.
    max_messages: int = 1000
    max_age: float = 600.0
    #: Recipients in one transaction, unless the primary says less (RFC 9422).
    max_recipients: int = 100
    #: 'hold' or 'space': what to do about bare CR and LF.
    bare_newlines: str = "hold"

    @property
    def all_tiers(self) -> tuple[tuple[Host, ...], ...]:
        """The servers in order of preference, equal ones together."""
        return self.tiers or ((Host(host=self.host, port=self.port),),)

    @property
    def speaks_lmtp(self) -> bool:
        """Whether the primary answers the final dot once for each recipient."""
        return self.protocol == LMTP

    @property
    def hello(self) -> str:
        """The command that starts a session (RFC 2033 4.1)."""
        return "LHLO" if self.speaks_lmtp else "EHLO"

    @property
    def socket_path(self) -> str:
        """The path of the Unix socket that is the host; '' for a host of TCP."""
        is_socket = self.host.startswith(SOCKET_PREFIX)
        return self.host.removeprefix(SOCKET_PREFIX) if is_socket else ""

    @property
    def verifies(self) -> bool:
        """Whether the certificate is verified: a password goes to no other server."""
        names_key = bool(self.tls_files.pin) or self.requires_dane
        return self.verify or self.login is not None or names_key

    @property
    def requires_dane(self) -> bool:
        """Whether a server without DANE gets nothing."""
        return self.dane is not None and self.dane.settings.required

    @property
    def requires_tls(self) -> bool:
        """Whether nothing may go in the clear."""
        return self.tls in ("required", "implicit") or self.verifies

    @property
    def starts_tls(self) -> bool:
        """Whether STARTTLS is used where it is offered; a Unix socket needs no TLS."""
        if self.tls == "implicit" or self.socket_path:
            return False
        return self.tls != "off" or self.requires_tls

    def __str__(self) -> str:
        """Return ``host:port``, IPv6 in brackets; or ``unix:PATH``."""
        return self.host if self.socket_path else format_host(self.host, self.port)


def format_host(host: str, port: int) -> str:
    """Return ``host:port``, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
