"""What LMTP changes in ``[primary]``: the port, and what a Unix socket cannot do."""

from typing import Literal, Protocol

from drainer.config.host import is_socket, split_server
from drainer.errors import UsageError
from drainer.smtp.route import LMTP, SMTP_PORT

LMTP_PORT = 24
"""Where LMTP usually listens: that of any private mail system."""


class _Primary(Protocol):
    """What is needed of the section."""

    @property
    def named_hosts(self) -> tuple[str, ...]: ...
    @property
    def hosts(self) -> object: ...
    @property
    def port(self) -> int: ...
    @property
    def protocol(self) -> Literal["smtp", "lmtp"]: ...
    @property
    def tls(self) -> str: ...
    @property
    def verify(self) -> bool: ...
    @property
    def username(self) -> str: ...
    @property
    def tls_pin(self) -> tuple[str, ...]: ...
    @property
    def model_fields_set(self) -> set[str]: ...


def settle_lmtp(primary: _Primary) -> None:
    """Set protocol and port to what follows from the hosts; ValueError if nothing does.

    LMTP never goes to port 25, where a relay would take it for SMTP (RFC 2033 5).
    """
    given = primary.model_fields_set
    sockets = list(filter(is_socket, primary.named_hosts))
    if sockets and "protocol" not in given:
        primary.__dict__["protocol"] = LMTP  # frozen for others
    if sockets and primary.protocol != LMTP:
        raise ValueError(f'{sockets[0]} is a Unix socket: set protocol = "lmtp"')
    if sockets:
        _refuse_tls(primary, sockets[0])
    if primary.protocol != LMTP:
        return
    if "port" not in given and primary.tls != "implicit":
        primary.__dict__["port"] = LMTP_PORT
    _refuse_smtp_servers(primary)


def _refuse_tls(primary: _Primary, path: str) -> None:
    """Raise ValueError if TLS is required: drainer starts none on a Unix socket."""
    needs = {
        "username": primary.username,
        "verify": primary.verify,
        "tls_pin": primary.tls_pin,
        f'tls = "{primary.tls}"': primary.tls in ("required", "implicit", "dane"),
    }
    for name, is_set in needs.items():
        if is_set:
            remedy = 'set tls = "off"' if name.startswith("tls =") else "remove it"
            raise ValueError(
                f"{name} requires TLS, which a Unix socket ({path}) does not have:"
                f" {remedy}, or name the socket in a table of its own"
            )


def _refuse_smtp_servers(primary: _Primary) -> None:
    """Raise ValueError for hosts that speak SMTP."""
    if primary.hosts == "mx":
        raise ValueError(
            'hosts = "mx" names SMTP servers: name the LMTP hosts, or remove protocol'
        )
    for text in primary.named_hosts:
        try:
            port = split_server(text)[1]
        except UsageError:  # host is checked where the route is built
            continue
        port = primary.port if port is None else port
        if port == SMTP_PORT and not is_socket(text):
            raise ValueError(
                f"LMTP must not go to port 25 of {text} (RFC 2033 section 5): name the"
                " LMTP port, usually 24, or remove protocol"
            )
