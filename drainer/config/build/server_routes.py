"""Routes from what the backup's own server knows."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from drainer.config import Config
from drainer.config.primary import BY_MX
from drainer.config.route_section import RouteSection
from drainer.sources.postfix.instance import PostfixInstance
from drainer.sources.protocol import LiveSource, Source

Nexthops = Mapping[tuple[str, int], Sequence[str]]


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
    for (host, port), domains in nexthops.items():
        where = {"host": host, "port": port} if host else {"hosts": BY_MX}
        if named := _names(host, domains):
            yield RouteSection.model_validate({"domains": named, **where})


def _names(host: str, domains: Sequence[str]) -> list[str]:
    """Return the domains of a route; by MX, subdomains must be named."""
    return [domain for domain in domains if host or not domain.startswith(".")]


def describe_routes(config: Config) -> Iterator[str]:
    """Yield each route of a configuration in words."""
    for each in config.routes:
        host = getattr(each, "host", None)
        where = f"{host}:{getattr(each, 'port', 25)}" if host else "their MX records"
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
    for nexthop, domains in postfix.relay_nexthops().items():
        named = _names(nexthop.host, domains)
        if not named:
            continue
        parts.append("\n")
        if nexthop.doubt:
            parts.append(f"# REVIEW: {nexthop.doubt}.\n")
        parts.append(f"[[routes]]\ndomains = {json.dumps(named)}\n")
        if nexthop.host:
            parts.append(f"host = {json.dumps(nexthop.host)}\nport = {nexthop.port}\n")
        else:
            parts.append('hosts = "mx"\n')
    parts.append(f'\n[sources.backup]\nurl = "postfix:live={postfix.directory}"\n')
    return "".join(parts)
