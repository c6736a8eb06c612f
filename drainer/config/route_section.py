"""``[[routes]]``: other ways for some recipient domains.

A route has the values of ``[primary]``, ``[health]``, ``[throttle]`` and ``[breaker]``,
but for the keys that it sets itself, its hosts, our login there and its known-good
recipients. So a route is a configuration like the whole one.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Protocol, Self, TypeVar

from pydantic import Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from drainer.config.health import HealthSection
from drainer.config.host import is_socket
from drainer.config.primary import PrimarySection
from drainer.config.section import DomainNames, Section
from drainer.config.throttle import BreakerSection, ThrottleSection

_SECTIONS: dict[str, type[Section]] = {
    "primary": PrimarySection,
    "health": HealthSection,
    "throttle": ThrottleSection,
    "breaker": BreakerSection,
}
_COMMON = {
    "primary": ("domains", "keep", "keep_size"),
    "health": ("successes", "over", "interval", "longest", "forget"),
    "throttle": ("total",),
    "breaker": (),
}
"""Keys that are the same for all routes."""
PRIMARY_OWN = (
    "username",
    "password_file",
    "password",
    "token_command",
    "tls_ca",
    "tls_pin",
    "tls_cert",
    "tls_key",
    "tls_key_password_file",
)
"""Keys of ``[primary]`` for its own hosts: another server must not see a secret."""
_OWN = {"primary": PRIMARY_OWN, "health": ("accept",)}
"""Keys that no route has from the sections."""
OWN_KEYS = tuple(key for keys in _OWN.values() for key in keys)
_HOSTS = ("host", "hosts")


def _inherited_keys() -> Iterator[tuple[str, str, Any]]:
    """Yield the keys that a route may set, with their sections and fields."""
    for name, section in _SECTIONS.items():
        for key, field in section.model_fields.items():
            if key not in _COMMON[name]:
                yield key, name, field


_PYDANTIC = "Value error, "
"""Before each message of a validator."""

SECTION_OF = {key: name for key, name, _ in _inherited_keys()}
"""The section of each key that a route may set."""


def _type_of(field: FieldInfo) -> Any:  # noqa: ANN401 - a type
    """Return the type of a field with its constraints, but without its default."""
    if not field.metadata:
        return field.annotation
    return Annotated[field.annotation, *field.metadata]


class _RouteBase(Section):
    """Another primary for some recipient domains: a table for each primary."""

    domains: DomainNames = Field(
        min_length=1,
        description="Recipient domains of this route (`.example.org` = the subdomains"
        " of example.org).",
    )


RouteSection = create_model(
    "RouteSection",
    __base__=_RouteBase,
    __doc__=_RouteBase.__doc__,
    **{  # type: ignore[call-overload]  # the names are known at run time only
        key: (_type_of(field) | None, Field(None, description=field.description))
        for key, _, field in _inherited_keys()
    },
)


class _WholeConfig(Protocol):
    """What is needed of a whole configuration."""

    @property
    def primary(self) -> PrimarySection: ...
    @property
    def routes(self) -> tuple[Any, ...]: ...
    def model_copy(self, *, update: Mapping[str, Any]) -> Self: ...


C = TypeVar("C", bound=_WholeConfig)


def route_configs(config: C) -> list[C]:
    """Return a configuration for each route, that of ``[primary]`` last.

    Each has its own domains; those of ``[primary]`` may be empty, which means all
    others. Without any host, the configuration itself is returned. Raises ValueError
    for a route that is not valid, and for a domain or a server in two of them, because
    a server has one rate.
    """
    found = [_derive(config, n) for n in range(len(config.routes))]
    if config.primary.is_named or not found:
        found.append(config)
    seen: set[str] = set()
    servers: set[str] = set()
    for each in found:
        for server in each.primary.servers:
            if server in servers:
                raise ValueError(f"two routes have the server {server}: make them one")
        servers.update(each.primary.servers)
        for domain in each.primary.domains:
            if domain in seen:
                raise ValueError(f"two routes have the domain {domain}")
            seen.add(domain)
    return found


def own_keys(config: _WholeConfig) -> dict[str, Any]:
    """Return what the sections say about the servers of ``[primary]`` only."""
    return {
        key: getattr(section, key)
        for name, keys in _OWN.items()
        for key in keys
        if key in (section := getattr(config, name)).model_fields_set
    }


def _derive(config: C, n: int) -> C:
    route = config.routes[n]
    given = {key: getattr(route, key) for key in route.model_fields_set}
    domains = given.pop("domains")
    changed: dict[str, Section] = {}
    for name, kind in _SECTIONS.items():
        base = getattr(config, name)
        own = {key: given[key] for key in given if SECTION_OF[key] == name}
        left_out = {*_OWN.get(name, ())}
        if name == "primary":
            left_out.update(_unfit_keys(own, config.primary.protocol))
            own["domains"] = domains
        values = {key: getattr(base, key) for key in base.model_fields_set - left_out}
        try:
            changed[name] = kind(**values | own)
        except ValidationError as error:
            raise ValueError(f"the route of {domains[0]}: {_words(error)}") from None
    if not getattr(changed["primary"], "is_named", False):
        raise ValueError(f"the route of {domains[0]} names no host")
    return config.model_copy(update=changed | {"routes": ()})


def _unfit_keys(own: Mapping[str, Any], protocol: str) -> Iterator[str]:
    """Yield the keys of ``[primary]`` that do not fit the hosts of a route."""
    yield from _HOSTS
    hosts = PrimarySection.model_construct(**{k: own[k] for k in _HOSTS if k in own})
    if hosts.named_hosts and all(map(is_socket, hosts.named_hosts)):
        yield from ("tls", "verify", "port", "protocol")
    elif own.get("protocol", protocol) != protocol:
        yield "port"


def _words(error: ValidationError) -> str:
    """Return what is wrong; the environment has a password for [primary] only."""
    return "; ".join(
        ": ".join(
            [
                *map(str, each["loc"][:1]),
                each["msg"].removeprefix(_PYDANTIC).partition(", or DRAINER_")[0],
            ]
        )
        for each in error.errors()
    )
