"""The server's settings: where it listens, who may access it, and its time limits."""

import ipaddress
from datetime import timedelta
from pathlib import Path

from msgspec import Struct, field

from drainer.errors import UsageError
from drainer.policy.pacing.rate import Rate
from drainer.watch.http.auth import HookKeys


class HookSettings(Struct, frozen=True, kw_only=True):
    """The settings of a server that may start: beyond loopback it has a secret."""

    #: An address, and a port; 0 takes any free one.
    host: str
    port: int
    #: Names under which a reverse proxy in front of it is reached, in lower case.
    names: frozenset[str] = frozenset()
    keys: HookKeys = field(default_factory=HookKeys)
    #: Certificate and key, PEM.
    tls: tuple[Path, Path] | None = None
    #: Rate of one client.
    rate: Rate = field(default_factory=lambda: Rate(per_second=2, burst=20))
    #: [retry] lifetime, for what expires first.
    lifetime: timedelta = timedelta(days=5)
    #: Seconds for the head of a request, and for its body.
    patience: float = 10.0

    def __post_init__(self) -> None:
        """Raise UsageError for a server that any client could command."""
        if self.loopback or self.keys.hooks:
            return
        message = f"[hook] listen = {self.host}: beyond loopback a token is needed"
        hint = "set [hook] token_file or hmac_file, or listen on 127.0.0.1"
        raise UsageError(message, hint=hint)

    @property
    def loopback(self) -> bool:
        """Return whether only this host reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def cautions(self) -> tuple[str, ...]:
        """Return what an operator should know before it is started, as text."""
        found = []
        if not self.loopback and self.tls is None:
            found.append(
                "[hook] listens beyond loopback without TLS: tokens go unencrypted"
                " unless a proxy in front has TLS; set tls_cert and tls_key"
            )
        if not self.keys.operator:
            found.append(
                "[hook] operator_token_file is not set: the status page cannot pause,"
                " resume or throttle"
            )
        return tuple(found)
