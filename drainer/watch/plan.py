"""Build the plan of a watch from a Config."""

from msgspec import Struct

from drainer.bounce.build import make_via
from drainer.config import Config
from drainer.config.build.paths import LedgerURL, ledger_url
from drainer.config.build.routes import make_probe, make_route
from drainer.config.build.spools import make_sources, with_domains
from drainer.delivery.build import build_settings, make_admission
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
    route: Route
    probe: HealthProbe
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

    def drains_like(self, other: "WatchPlan") -> bool:
        """Return whether a drain by the other plan would do the same."""
        return (self.urls, self.drain_settings) == (other.urls, other.drain_settings)

    def replace(self, old: "WatchPlan") -> None:
        """Replace another plan; UsageError if a watch cannot change in this way."""
        new, before = self.route, old.route
        if (new.host, new.port, self.url) != (before.host, before.port, old.url):
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
    return WatchPlan(
        config=config,
        names=names,
        sources=sources,
        route=make_route(config),
        probe=make_probe(config),
        url=ledger_url(config),
        settings=health.values_for(WatchSettings),
        admission=make_admission(with_domains(config, sources)),
        hours=parse_hours(config.watch.windows),
        drain_settings=build_settings(config, explicit=False, acknowledge=True),
    )
