"""Build a route from host names and the [primary] section."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from drainer.config import Config, own_hostname
from drainer.config.host import is_socket, split_server
from drainer.config.primary import BY_MX, DANE, IMPLICIT_PORT, PrimarySection
from drainer.config.route_section import route_configs
from drainer.errors import UsageError
from drainer.mail.envelope import ascii_form, domain_of
from drainer.policy.admission.routes import OTHERS, RouteTable
from drainer.runtime.private_files import read_password
from drainer.smtp.dane import Dane, DaneSettings
from drainer.smtp.health_check import HealthProbe
from drainer.smtp.route import Host, Login, Route, Timeouts
from drainer.smtp.tls import TlsFiles, client_context


def make_route(config: Config) -> Route:
    """Return the route to the primary; UsageError when none is named."""
    primary = config.primary
    if not primary.is_named:
        message = "no primary is named"
        raise UsageError(message, hint="give --to HOST[:PORT], or set [primary] host")
    tiers = _tiers(primary)
    return primary.values_for(
        Route,
        login=_login(primary),
        host=tiers[0][0].host,
        port=tiers[0][0].port,
        tiers=tiers if len(tiers) > 1 or len(tiers[0]) > 1 else (),
        helo=primary.helo or own_hostname(),
        tls=_tls(primary),
        dane=_dane(config),
        tls_files=_tls_files(primary),
        ignore_extensions=frozenset(map(str.lower, primary.ignore_extensions)),
        timeouts=_timeouts(primary),
    )


def _login(primary: PrimarySection) -> Login | None:
    if primary.username and primary.token_command:
        command = tuple(shlex.split(primary.token_command))
        return Login(username=primary.username, token_command=command)
    return login_of(
        primary.username, primary.password_file, primary.password.get_secret_value()
    )


def _tls(primary: PrimarySection) -> str:
    """Return how TLS starts; DANE is a way to verify it."""
    if primary.tls != DANE:
        return primary.tls
    return "implicit" if primary.port == IMPLICIT_PORT else "required"


def _dane(config: Config) -> Dane | None:
    """Return how to ask for TLSA records; CAs or pins that are required go before."""
    bounce, primary = config.bounce, config.primary
    names_key = primary.verify or bool(primary.tls_pin)
    if primary.tls == "off" or (names_key and primary.tls != DANE):
        return None
    settings = bounce.values_for(
        DaneSettings,
        prefix="dns_",
        required=primary.tls == DANE,
        addresses=bounce.dns_servers,
    )
    return Dane(settings)


def _tls_files(primary: PrimarySection) -> TlsFiles:
    """Return the files that prove either side; UsageError if they cannot be used."""
    password = ""
    if primary.tls_key_password_file:
        password = _first_line(primary.tls_key_password_file)
    files = primary.values_for(TlsFiles, prefix="tls_", key_password=password)
    named = [name for name in (files.ca, files.cert, files.key) if name]
    if not named:
        return files
    try:
        client_context(files=files)
    except (OSError, ValueError) as error:
        message = f"cannot use {' or '.join(named)}: {error}"
        hint = "see [primary] tls_ca, tls_cert and tls_key: PEM files, readable for us"
        raise UsageError(message, hint=hint) from None
    return files


def _tiers(primary: PrimarySection) -> tuple[tuple[Host, ...], ...]:
    """Return the hosts in order of preference; those of one tier share the load."""
    hosts = primary.hosts if isinstance(primary.hosts, tuple) else ()
    is_address = ":" in primary.host and not is_socket(primary.host)
    named = hosts or (f"[{primary.host}]" if is_address else primary.host,)
    return tuple(
        tuple(
            Host(host=host, port=primary.port if port is None else port)
            for host, port in map(
                split_server, (each,) if isinstance(each, str) else each
            )
        )
        for each in named
    )


def route_name(config: Config) -> str:
    """Return the name of the route to the primary; '' when none is named."""
    if not config.primary.is_named:
        return ""
    if config.primary.hosts == BY_MX:
        return BY_MX
    first = _tiers(config.primary)[0][0]
    return str(Route(host=first.host, port=first.port))


def make_route_table(
    config: Config,
    no_route: Mapping[str, str] = MappingProxyType({}),
    unanswered: Iterable[str] = (),
) -> RouteTable:
    """Return which route each recipient domain takes.

    ``no_route`` are domains without any, with the reasons. The servers of those that
    are ``unanswered`` are not known now.
    """
    domains = dict.fromkeys(unanswered, BY_MX)
    configs = route_configs(config)
    for each in configs:
        named = each.primary.domains or (OTHERS,)
        domains |= dict.fromkeys(named, route_name(each))
    return RouteTable(
        domains=domains, fallback=route_name(configs[-1]), no_route=dict(no_route)
    )


def _timeouts(primary: PrimarySection) -> Timeouts:
    return primary.values_for(
        Timeouts,
        suffix="_timeout",
        ehlo=primary.banner_timeout.total_seconds(),
        quit=min(primary.command_timeout.total_seconds(), Timeouts().quit),
    )


def login_of(username: str, password_file: str, password: str) -> Login | None:
    """Return the login; None = no login. UsageError when the file has no password."""
    if not username:
        return None
    if not password_file:
        return Login(username=username, password=password)
    return Login(username=username, password=_first_line(password_file))


def _first_line(path: str) -> str:
    """Return the password in a file; UsageError if there is none."""
    try:
        lines = read_password(Path(path)).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the password file: {error}") from None
    if not lines or not lines[0]:
        raise UsageError(f"the password file {path} is empty")
    return lines[0]


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
