"""Which route the mail of a recipient domain takes."""

from collections.abc import Sequence

from msgspec import Struct, field

OTHERS = "."
"""Stands for every domain that no other entry names."""


class RouteTable(Struct, frozen=True, kw_only=True):
    """The routes of a run by recipient domain.

    The name of a domain goes before suffixes, and a longer suffix before a shorter one.
    """

    #: In lower case: ``example.org``, or ``.example.org`` for the domains below it, or
    #: ``.`` for all others; each with the name of its route.
    domains: dict[str, str] = field(default_factory=dict)
    #: The route of what an operator sends although its domain has none.
    fallback: str = ""
    #: Domains that no server takes mail for, each with the reason.
    no_route: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of all routes."""
        return list(dict.fromkeys(self.domains.values()))

    def find(self, domain: str) -> str | None:
        """Return the entry that a domain falls under; None = it has no route.

        An address without a domain falls under the first entry.
        """
        if domain in self.no_route:
            return None
        if not domain:
            return next(iter(self.domains), None)
        if domain in self.domains:
            return domain
        while domain:
            _, dot, domain = domain.partition(".")
            if dot + domain in self.domains:
                return dot + domain
        return OTHERS if OTHERS in self.domains else None

    def route_of(self, domain: str) -> str | None:
        """Return the name of a domain's route; None = it has no route."""
        entry = self.find(domain)
        return None if entry is None else self.domains[entry]


def single_route(name: str, domains: Sequence[str] = ()) -> RouteTable:
    """Return the table of one route for these domains; without any, for all."""
    return RouteTable(domains=dict.fromkeys(domains or (OTHERS,), name), fallback=name)
