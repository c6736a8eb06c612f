"""For which domains each route is, and which servers it means, when a run starts."""

from typing import NamedTuple

from drainer.config import Config
from drainer.config.build.spools import with_domains
from drainer.delivery.build import NOWHERE, make_admission
from drainer.delivery.console import print_domains
from drainer.delivery.mx_hosts import with_mx_hosts
from drainer.delivery.mx_refresh import MxSettings
from drainer.policy.admission.admit import Admission
from drainer.policy.recipient.mapping import AddressMapping
from drainer.sources.protocol import HoldingSource, Source


class ResolvedRoutes(NamedTuple):
    """A configuration that names domains and servers, and the rules that follow."""

    config: Config
    admission: Admission
    #: The routes that go by MX; None = none does.
    mx: MxSettings | None


def resolve_routes(
    config: Config,
    sources: list[Source],
    redirect: AddressMapping = NOWHERE,
    *,
    scans: bool = True,
) -> ResolvedRoutes:
    """Find out for which domains each route is, and which servers; it may block.

    A running server may name the domains, and DNS the servers: drainer asks before
    anything else uses them. A run that scans nothing sends only what drainer holds, so
    that the server may run. Raises UsageError for a running server that may not be
    drained, PrimaryNotReady if no server is known.
    """
    for source in sources:
        if scans or not isinstance(source, HoldingSource):
            source.refuse_if_live()
    asked = config.primary.domains
    config = with_domains(config, sources)
    if config.primary.domains != asked:
        print_domains(config.primary.domains)
    found = with_mx_hosts(config)
    found.warn()
    config, no_route, unanswered, mx = found
    rules = make_admission(config, redirect, no_route, unanswered)
    return ResolvedRoutes(config, rules, mx)
