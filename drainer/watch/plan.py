"""Build the plan of a watch from a Config."""

from msgspec import Struct

from drainer.bounce.build import make_via
from drainer.config import Config
from drainer.config.build.paths import LedgerURL, ledger_url
from drainer.config.build.routes import make_probe, make_route
from drainer.config.build.spools import make_sources, with_domains
from drainer.config.route_section import route_configs
from drainer.delivery.build import build_settings, make_admission
from drainer.delivery.mx_hosts import with_mx_hosts
from drainer.delivery.settings import DrainSettings
from drainer.errors import UsageError
from drainer.policy.admission.admit import Admission
from drainer.policy.watch.machine import WatchSettings
from drainer.policy.watch.windows import DrainWindows, parse_hours
from drainer.smtp.health_check import HealthProbe
from drainer.smtp.route import Route
from drainer.sources.protocol import Source


class WatchPlan(Struct, frozen=True, kw_only=True):
    """One configuration, as a watch uses it."""

    config: Config
    #: As they were named; opened again for every drain.
    names: tuple[str, ...]
    sources: tuple[Source, ...]
    #: The primaries and their health checks; the first is the one of the watch.
    checks: tuple[tuple[Route, HealthProbe], ...]
    url: LedgerURL
    settings: WatchSettings
    hours: DrainWindows
    #: Which part of the sources is for this primary.
    admission: Admission
    #: The settings of a drain, without what a running server adds.
    drain_settings: DrainSettings

    @property
    def urls(self) -> list[str]:
        """Return the sources by URL."""
        return [source.url for source in self.sources]

    @property
    def route(self) -> Route:
        """Return the route that hooks and overrides of this watch are given for."""
        return self.checks[0][0]

    def drains_like(self, other: "WatchPlan") -> bool:
        """Return whether a drain by the other plan would do the same."""
        return (self.urls, self.drain_settings) == (other.urls, other.drain_settings)

    def replace(self, old: "WatchPlan") -> None:
        """Replace another plan; UsageError if a watch cannot change in this way."""
        if (str(self.route), self.url) != (str(old.route), old.url):
            message = "another primary, or another ledger, needs a watch of its own"
            raise UsageError(message, hint="restart the watch")


def make_plan(config: Config, names: tuple[str, ...]) -> WatchPlan:
    """Return the plan for these sources; without any, for all named ones.

    Raises UsageError for settings that no drain could follow either.
    """
    names = names or tuple(config.sources)
    if not names:
        message = "no source is named"
        raise UsageError(message, hint="give a SOURCE, or a [sources.NAME] table")
    if config.watch.digest:
        make_via(config)  # that no digest can be sent is reported at once
    health = config.health
    sources = tuple(make_sources(config, list(names), ()))
    whole, no_route, unanswered, _ = with_mx_hosts(with_domains(config, sources))
    admission = make_admission(whole, no_route=no_route, unanswered=unanswered)
    return WatchPlan(
        config=config,
        names=names,
        sources=sources,
        checks=tuple(
            (make_route(each), make_probe(each)) for each in route_configs(whole)
        ),
        url=ledger_url(config),
        settings=health.values_for(WatchSettings),
        admission=admission,
        hours=parse_hours(config.watch.windows),
        drain_settings=build_settings(
            whole, admission=admission, explicit=False, acknowledge=True
        ),
    )
