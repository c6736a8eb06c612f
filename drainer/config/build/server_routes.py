"""Routes from what the backup's own server knows."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from drainer.config import Config
from drainer.config.host import is_socket
from drainer.config.primary import BY_MX
from drainer.config.route_section import RouteSection
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
    return config.model_copy(update={"routes": tuple(sections), "primary": primary})


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
        where = "their MX records"
        if host:
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
    return _toml(
        where=postfix.directory,
        helo=postfix.hostname,
        nexthops=postfix.nexthops(),
        url=f"postfix:live={postfix.directory}",
    )


def exim_toml(file: str) -> str:
    """Return a drainer.toml with what an Exim configuration file says of primaries.

    Raises SourceError when Exim is not here, or cannot read or evaluate the file.
    """
    exim = EximConfiguration(file)
    nexthops = exim.nexthops()
    return _toml(
        where=exim.file,
        helo=exim.hostname,
        nexthops=nexthops,
        url=f"exim:{exim.spool}",
        doubts=[f"drainer cannot list the domains of {each}" for each in exim.unlisted],
    )


def _toml(
    *, where: str, helo: str, nexthops: Nexthops, url: str, doubts: Iterable[str] = ()
) -> str:
    parts = [f"# Routes of {where}: review them, then run `drainer check`.\n"]
    parts += (f"# REVIEW: {printable(each)}.\n" for each in doubts)
    parts.append(f"\n[primary]\nhelo = {json.dumps(helo)}\n")
    for nexthop, domains in nexthops.items():
        named = _names(nexthop.host, domains)
        if not named:
            continue
        parts.append("\n")
        if nexthop.doubt:
            parts.append(f"# REVIEW: {printable(nexthop.doubt)}.\n")
        keys = {"domains": named} | _keys(nexthop)
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        parts.append(f"[[routes]]\n{''.join(lines)}")
    parts.append(f"\n[sources.backup]\nurl = {json.dumps(url)}\n")
    return "".join(parts)
