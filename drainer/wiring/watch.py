"""From a Config to what a watch goes by."""

from dataclasses import dataclass

from drainer.config import Config
from drainer.errors import UsageError
from drainer.policy.hours import Hours, parse_hours
from drainer.policy.watch import Settings
from drainer.smtp import Route
from drainer.smtp.check import Probe
from drainer.sources import Source
from drainer.wiring.hosts import make_probe, make_route
from drainer.wiring.orders import make_orders
from drainer.wiring.places import LedgerURL, ledger_url
from drainer.wiring.sources import make_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One configuration, as a watch goes by it."""

    config: Config
    #: As they were named; opened again for every drain.
    names: tuple[str, ...]
    sources: tuple[Source, ...]
    route: Route
    probe: Probe
    url: LedgerURL
    settings: Settings
    hours: Hours

    @property
    def urls(self) -> list[str]:
        """The sources by URL."""
        return [source.url for source in self.sources]

    def drains_like(self, other: "Plan") -> bool:
        """Whether a drain by the other one would do the same."""
        ours, theirs = (
            plan.config.model_dump(exclude={"watch", "hook"}) for plan in (self, other)
        )
        return self.names == other.names and ours == theirs


def make_plan(config: Config, names: tuple[str, ...]) -> Plan:
    """Return what a watch of these sources goes by; all named ones if none is given.

    Raises UsageError for what no drain could follow either.
    """
    names = names or tuple(config.sources)
    if not names:
        message = "no source is named"
        raise UsageError(message, hint="give a SOURCE, or a [sources.NAME] table")
    make_orders(config, explicit=False, acknowledge=True)
    health = config.health
    return Plan(
        config=config,
        names=names,
        sources=tuple(make_sources(config, list(names), ())),
        route=make_route(config),
        probe=make_probe(config),
        url=ledger_url(config),
        settings=Settings(
            successes=health.successes,
            over=health.over,
            interval=health.interval,
            longest=health.longest,
            forget=health.forget,
        ),
        hours=parse_hours(config.watch.windows),
    )
