"""Build a route from host names and the [primary] section."""

import re
from pathlib import Path

from drainer.config import Config, own_hostname
from drainer.errors import UsageError
from drainer.mail.envelope import ascii_form, domain_of
from drainer.runtime.private_files import read_password
from drainer.runtime.redaction import redact_url
from drainer.smtp.health_check import HealthProbe
from drainer.smtp.route import Login, Route, Timeouts

MAX_HOST, MAX_PORT = 253, 65535

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_HOST_PORT = re.compile(
    rf"(?:\[([0-9A-Fa-f:.%]+)\]|({_NAME}|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?=$)))"
    r"(?::([0-9]{1,5}))?"
)


def make_route(config: Config) -> Route:
    """Return the route to the primary; UsageError when none is named."""
    primary = config.primary
    if not primary.host:
        message = "no primary is named"
        raise UsageError(message, hint="give --to HOST[:PORT], or set [primary] host")
    login = login_of(
        primary.username, primary.password_file, primary.password.get_secret_value()
    )
    return Route(
        host=primary.host,
        port=primary.port,
        helo=primary.helo or own_hostname(),
        tls=primary.tls,
        tls_minimum=primary.tls_minimum,
        verify=primary.verify,
        login=login,
        forward_client=primary.forward_client,
        ignore_extensions=frozenset(map(str.lower, primary.ignore_extensions)),
        allow_own_name=primary.allow_own_name,
        timeouts=_timeouts(config),
        max_messages=primary.max_messages,
        max_age=primary.max_age.total_seconds(),
        max_recipients=primary.max_recipients,
        bare_newlines=primary.bare_newlines,
    )


def _timeouts(config: Config) -> Timeouts:
    primary = config.primary
    command = primary.command_timeout.total_seconds()
    return Timeouts(
        connect=primary.connect_timeout.total_seconds(),
        banner=primary.banner_timeout.total_seconds(),
        ehlo=primary.banner_timeout.total_seconds(),
        mail=command,
        rcpt=command,
        data=primary.data_timeout.total_seconds(),
        body=primary.body_timeout.total_seconds(),
        dot=primary.dot_timeout.total_seconds(),
        idle=primary.idle_timeout.total_seconds(),
    )


def login_of(username: str, password_file: str, password: str) -> Login | None:
    """Return the login; None = no login. UsageError when the file has no password."""
    if not username:
        return None
    if not password_file:
        return Login(username=username, password=password)
    try:
        lines = read_password(Path(password_file)).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read the password file: {error}"
        raise UsageError(message) from None
    if not lines or not lines[0]:
        message = f"the password file {password_file} is empty"
        raise UsageError(message)
    return Login(username=username, password=lines[0])


def split_host(text: str) -> tuple[str, int | None]:
    """Return host and port of HOST, HOST:PORT or [IPV6]:PORT; UsageError if bad."""
    match = _HOST_PORT.fullmatch(text.strip())
    host, port = (match[1] or match[2], match[3]) if match else ("", None)
    if not host or len(host) > MAX_HOST or (port and not 0 < int(port) <= MAX_PORT):
        message = f"{redact_url(text)[:60]!r} is not a valid host"
        raise UsageError(message, hint="write HOST, HOST:PORT or [IPv6]:PORT")
    return host, int(port) if port else None


def make_probe(config: Config) -> HealthProbe:
    """Return the questions of the health check."""
    domains = config.primary.domains
    known = (domain_of(address) for address in config.health.accept)
    return HealthProbe(
        accept=tuple(map(ascii_form, config.health.accept)),
        reject=bool(config.health.reject),
        reject_domain=domains[0].lstrip(".") if domains else next(known, ""),
        sender=ascii_form(config.health.sender),
    )
