"""Routes by MX records: which servers they mean now.

It replaces ``hosts = "mx"`` in a configuration by the servers that DNS names. Domains
with the same servers become one route, so that these have one rate limit. A server that
several routes could have goes to one of them: what DNS says must not end the run.
"""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from drainer.bounce.evidence.request import DnsServers
from drainer.config import Config, own_hostname
from drainer.config.build.routes import route_name
from drainer.config.primary import BY_MX, DANE
from drainer.config.route_section import RouteSection, own_keys, route_configs
from drainer.delivery.mx_refresh import MxSettings
from drainer.errors import PrimaryNotReady, UsageError
from drainer.mail.envelope import domain_of
from drainer.policy.admission.mx import MxGroup, divide_servers

if TYPE_CHECKING:
    from drainer.bounce.evidence.dns import Resolver

_log = logging.getLogger(__name__)

MAX_DOMAINS = 10_000
"""Domains that are looked up for one run."""


class MxRoutes(NamedTuple):
    """A configuration whose routes have servers, and what is left without."""

    config: Config
    #: Domains that have no server, each with the reason: their mail is held.
    no_route: dict[str, str]
    #: Domains whose servers DNS does not name now: their mail waits.
    unanswered: dict[str, str]
    #: The routes that go by MX; None = none does.
    settings: MxSettings | None = None

    def warn(self) -> None:
        """Warn of domains without servers; PrimaryNotReady if no route has any."""
        reasons = [*self.no_route.values(), *self.unanswered.values()]
        for reason in reasons:
            _log.warning(f"{reason}; its mail waits")
        if reasons and not self.config.routes and not self.config.primary.is_named:
            hint = "check DNS, or name the hosts"
            raise PrimaryNotReady(reasons[0], hint=hint)


def routes_now(config: Config) -> list[Config]:
    """Return a configuration for each route, with the servers that DNS names now.

    Raises PrimaryNotReady if DNS names none.
    """
    found = with_mx_hosts(config)
    found.warn()
    return route_configs(found.config)


def with_mx_hosts(config: Config) -> MxRoutes:
    """Look up the MX records of routes that want it; it may block.

    Raises UsageError for such a route without domains, and for one that is for
    subdomains: their names are not known.
    """
    if not any(each.primary.hosts == BY_MX for each in route_configs(config)):
        return MxRoutes(config, {}, {})
    # dnspython takes a sixth of a start; most drains ask no DNS.
    from drainer.bounce.evidence.dns import Resolver  # noqa: PLC0415
    from drainer.bounce.evidence.mx import MxTargets, mx_of  # noqa: PLC0415

    resolver = Resolver(_servers(config))
    primary = config.primary
    ours = _our_names(config)
    no_route: dict[str, str] = {}
    unanswered: dict[str, str] = {}
    sections: list[RouteSection] = []
    by_mx: set[str] = set()
    taken = {name for each in route_configs(config) for name in each.primary.servers}
    for section in _sections(config):
        if getattr(section, "hosts", ()) != BY_MX:
            sections.append(section)
            continue
        proven = (getattr(section, "tls", None) or primary.tls) == DANE
        found: dict[str, tuple[tuple[str, ...], ...]] = {}
        for domain in _named(section.domains):
            servers = mx_of(resolver, domain, ours, proven=proven)
            if not isinstance(servers, MxTargets):
                found[domain] = servers
            elif servers.later:
                unanswered[domain] = servers.problem
            else:
                no_route[domain] = servers.problem
        groups, conflicts = _divide(config, section, found, taken)
        sections += [_at(section, each) for each in groups]
        by_mx.update(name for each in groups for name in each.domains)
        unanswered |= conflicts
    if primary.hosts == BY_MX:
        primary = primary.model_copy(update={"hosts": (), "domains": ()})
    changed = {"routes": tuple(sections), "primary": primary}
    whole = config.model_copy(update=changed)
    settings = _settings(config, resolver, route_configs(whole), by_mx)
    return MxRoutes(whole, no_route, unanswered, settings)


def _settings(
    config: Config, resolver: "Resolver", routes: list[Config], by_mx: set[str]
) -> MxSettings:
    """Return what a drain needs to ask again; ``by_mx`` are the domains."""
    from drainer.bounce.evidence.mx import mx_ttl  # noqa: PLC0415 - likewise

    domains = {
        route_name(each): each.primary.domains
        for each in routes
        if not by_mx.isdisjoint(each.primary.domains)
    }
    proven = frozenset(route_name(r) for r in routes if r.primary.tls == DANE)
    return MxSettings(
        servers=_servers(config),
        ours=_our_names(config),
        domains=domains,
        proven=proven,
        ttl=min((mx_ttl(resolver, domain) for domain in by_mx), default=0.0),
    )


def _our_names(config: Config) -> frozenset[str]:
    primary = config.primary
    return frozenset((primary.helo or own_hostname(), *primary.backup_names))


def _servers(config: Config) -> DnsServers:
    bounce = config.bounce
    return bounce.values_for(
        DnsServers, prefix="dns_", addresses=bounce.dns_servers, budget=60.0 * 60.0
    )


def _sections(config: Config) -> Iterable[RouteSection]:
    """Yield the routes, that of [primary] too if it goes by MX."""
    if config.primary.hosts == BY_MX:
        domains = _named(config.primary.domains)
        own = own_keys(config)
        yield RouteSection.model_validate({"domains": domains, "hosts": BY_MX} | own)
    yield from config.routes


def _named(domains: tuple[str, ...]) -> tuple[str, ...]:
    if not domains or any(domain.startswith(".") for domain in domains):
        message = 'hosts = "mx" needs the names of the domains'
        hint = "set domains, without subdomains that are not named"
        raise UsageError(message, hint=hint)
    if len(domains) > MAX_DOMAINS:
        message = f'hosts = "mx" for {len(domains)} domains, at most {MAX_DOMAINS}'
        raise UsageError(message)
    return domains


def _divide(
    config: Config,
    section: RouteSection,
    found: dict[str, tuple[tuple[str, ...], ...]],
    taken: set[str],
) -> tuple[list[MxGroup], dict[str, str]]:
    """Return groups with servers of their own, and domains without, with reasons.

    ``taken`` are the servers of other routes as HOST:PORT; those of the groups join.
    """
    unnamed = config.primary.model_copy(update={"host": "", "hosts": (), "domains": ()})
    only = config.model_copy(update={"routes": (section,), "primary": unnamed})
    port = route_configs(only)[0].primary.port
    suffix = f":{port}"
    barred = [each.removesuffix(suffix) for each in taken if each.endswith(suffix)]
    groups, conflicts = divide_servers(found, barred)
    taken.update(f"{h}{suffix}" for each in groups for tier in each.tiers for h in tier)
    words = "is a server of another route: name the domain there"
    reasons = {d: f"the MX of {d}, {host}, {words}" for d, host in conflicts.items()}
    return groups, reasons


def _at(section: RouteSection, group: MxGroup) -> RouteSection:
    """Return the route to a group; it does not know the addresses of others."""
    others = {*section.domains} - {*group.domains}
    known = getattr(section, "accept", None) or ()
    update = {
        "hosts": group.tiers,
        "domains": group.domains,
        "accept": tuple(each for each in known if domain_of(each) not in others),
    }
    changed = section.model_copy(update=update)
    changed.model_fields_set.update(update)
    return changed
