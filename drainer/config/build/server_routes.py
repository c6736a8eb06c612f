"""Routes from what the backup's own server knows."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from drainer.config import Config
from drainer.config.host import is_socket
from drainer.config.primary import BY_MX, PrimarySection
from drainer.config.route_section import RouteSection, route_configs
from drainer.errors import UsageError
from drainer.mail.envelope import AddressError, domain_of, parse_mailbox
from drainer.mail.reply import printable
from drainer.sources.exim.configuration import EximConfiguration
from drainer.sources.postfix.instance import PostfixInstance
from drainer.sources.protocol import LiveSource, Nexthop, Source

Nexthops = Mapping[Nexthop, Sequence[str]]


def with_server_routes(config: Config, sources: Iterable[Source]) -> Config:
    """Take the routes from a running server if no host and no domain is configured.

    Raises UsageError when drainer cannot do as the server does.
    """
    if config.routes or config.primary.is_named or config.primary.domains:
        return config
    live = [source for source in sources if isinstance(source, LiveSource)]
    sections = [each for one in live for each in _sections(one.nexthops())]
    names = (*config.primary.backup_names, *(one.hostname for one in live))
    primary = config.primary.model_copy(update={"backup_names": names})
    found = config.model_copy(update={"routes": tuple(sections), "primary": primary})
    try:
        route_configs(found)
    except ValueError as error:
        hint = "give --to, or write a configuration with `drainer init --from-postfix`"
        message = f"drainer cannot take the routes of the backup's server: {error}"
        raise UsageError(message, hint=hint) from None
    return found


def _sections(nexthops: Nexthops) -> Iterator[RouteSection]:
    for nexthop, domains in nexthops.items():
        if named := _names(nexthop.host, domains):
            yield RouteSection.model_validate({"domains": named, **_keys(nexthop)})


def _keys(nexthop: Nexthop) -> dict[str, Any]:
    """Return the keys of a route; the protocol follows from a Unix socket."""
    host = nexthop.host
    if not host:
        return {"hosts": BY_MX}
    if is_socket(host):
        return {"host": host}
    keys: dict[str, Any] = {"host": host, "port": nexthop.port}
    if tiers := nexthop.tiers:
        keys = {"hosts": [list(each) if each[1:] else each[0] for each in tiers]}
    is_smtp = nexthop.protocol == "smtp"
    return keys if is_smtp else keys | {"protocol": nexthop.protocol}


def _names(host: str, domains: Sequence[str]) -> list[str]:
    """Return the domains of a route; by MX, subdomains must be named."""
    return [domain for domain in domains if host or not domain.startswith(".")]


def describe_routes(config: Config) -> Iterator[str]:
    """Yield each route of a configuration in words."""
    for each in config.routes:
        host = getattr(each, "host", None) or ""
        hosts = getattr(each, "hosts", None)
        where = "their MX records"
        if isinstance(hosts, tuple):
            where = ", ".join(h if isinstance(h, str) else "|".join(h) for h in hosts)
        elif host:
            port = "" if is_socket(host) else f":{getattr(each, 'port', 25)}"
            by_lmtp = is_socket(host) or getattr(each, "protocol", None)
            where = f"{host}{port}{' by LMTP' if by_lmtp else ''}"
        names = [domain for domain in each.domains if not domain.startswith(".")]
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")  # noqa: PLR2004
        yield f"{shown} to {where}"


def postfix_toml(directory: str) -> str:
    """Return a drainer.toml with what a Postfix instance knows of its primaries.

    Raises SourceError when there is no such instance, or it cannot be read.
    """
    postfix = PostfixInstance(directory)
    server = _Server(
        where=postfix.directory,
        hostname=postfix.hostname,
        url=f"postfix:live={postfix.directory}",
        nexthops=postfix.nexthops(),
        doubts=_address_doubts(postfix),
        recipients=postfix.relay_recipients(),
    )
    return _toml(server)


def _address_doubts(postfix: PostfixInstance) -> Iterator[str]:
    """Yield what Postfix does for an address: routes are by domain."""
    found: dict[str, list[str]] = {}
    for table, address in postfix.address_transports():
        found.setdefault(table, []).append(address)
    for table, addresses in found.items():
        first, *more = sorted(addresses)
        if not first:
            yield f"drainer cannot list {table}: it may have transports for addresses"
        else:
            others = f" and {len(more)} more" if more else ""
            yield f"{table} has a transport for {first}{others}; routes are by domain"


def exim_toml(file: str) -> str:
    """Return a drainer.toml with what an Exim configuration file says of primaries.

    Raises SourceError when Exim is not here, or cannot read or evaluate the file.
    """
    exim = EximConfiguration(file)
    server = _Server(
        where=exim.file,
        hostname=exim.hostname,
        url=f"exim:{exim.spool}",
        nexthops=exim.nexthops(),
        doubts=(f"drainer cannot list the domains of {x}" for x in exim.unlisted),
    )
    return _toml(server)


class _Server(NamedTuple):
    #: Its configuration.
    where: str
    hostname: str
    #: Of its spool.
    url: str
    nexthops: Nexthops
    #: What a person must look at.
    doubts: Iterable[str] = ()
    #: Addresses that must exist at a primary.
    recipients: Iterable[str] = ()


def _toml(server: _Server) -> str:
    known = _known_good(server.recipients)
    parts = [f"# Routes of {server.where}: review them, then run `drainer check`.\n"]
    parts += (f"# REVIEW: {printable(each)}.\n" for each in server.doubts)
    parts.append(f"\n[primary]\nhelo = {json.dumps(server.hostname)}\n")
    servers: set[str] = set()
    for nexthop, doubts, named in _merge(server.nexthops):
        parts.append("\n")
        parts += (f"# REVIEW: {printable(doubt)}.\n" for doubt in doubts)
        keys = {"domains": named} | _keys(nexthop)
        own = PrimarySection.model_validate(_keys(nexthop)).servers
        parts += (
            f"# REVIEW: another route has the server {each}, too: make them one.\n"
            for each in sorted(own & servers)
        )
        servers |= own
        if accept := next((known[each] for each in named if each in known), ""):
            keys["accept"] = [accept]
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        parts.append(f"[[routes]]\n{''.join(lines)}")
    parts.append(f"\n[sources.backup]\nurl = {json.dumps(server.url)}\n")
    return "".join(parts)


def _merge(
    nexthops: Nexthops,
) -> Iterator[tuple[Nexthop, Sequence[str], Sequence[str]]]:
    """Yield each next hop with its doubts and its domains: a server has one route."""
    found: dict[Nexthop, tuple[dict[str, None], list[str]]] = {}
    for nexthop, domains in nexthops.items():
        key = nexthop._replace(doubt="") if nexthop.host else nexthop
        doubts, named = found.setdefault(key, ({}, []))
        doubts |= dict.fromkeys(filter(None, (nexthop.doubt,)))
        named += _names(nexthop.host, domains)
    for key, (doubts, named) in found.items():
        if named:
            yield key, list(doubts), named


def _known_good(recipients: Iterable[str]) -> dict[str, str]:
    """Return an address of each domain that must exist, postmaster if it is listed."""
    known: dict[str, str] = {}
    for address in recipients:
        with suppress(AddressError):
            parse_mailbox(address)
            domain = domain_of(address)
            if address.lower() == f"postmaster@{domain}":
                known[domain] = address
            known.setdefault(domain, address)
    return known
