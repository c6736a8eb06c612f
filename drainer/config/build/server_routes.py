"""Routes from what the backup's own server knows."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from drainer.config import Config
from drainer.config.host import is_socket
from drainer.config.primary import BY_MX
from drainer.config.route_section import RouteSection
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
    host, port, protocol, _ = nexthop
    if not host:
        return {"hosts": BY_MX}
    if is_socket(host):
        return {"host": host}
    keys = {"host": host, "port": port}
    return keys if protocol == "smtp" else keys | {"protocol": protocol}


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
    parts = [
        f"# Routes of {postfix.directory}: review them, then run `drainer check`.\n",
        f"\n[primary]\nhelo = {json.dumps(postfix.hostname)}\n",
    ]
    for nexthop, domains in postfix.nexthops().items():
        named = _names(nexthop.host, domains)
        if not named:
            continue
        parts.append("\n")
        if nexthop.doubt:
            parts.append(f"# REVIEW: {nexthop.doubt}.\n")
        keys = {"domains": named} | _keys(nexthop)
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        parts.append(f"[[routes]]\n{''.join(lines)}")
    parts.append(f'\n[sources.backup]\nurl = "postfix:live={postfix.directory}"\n')
    return "".join(parts)
