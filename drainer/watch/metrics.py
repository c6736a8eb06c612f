"""What Prometheus reads, one table row each (docs/metrics.md).

No label contains an address, and every label has few values. A route has the name of
its first server.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from drainer import __version__
from drainer.watch.http.snapshot import StatusSnapshot
from drainer.watch.ledger_facts import LedgerFacts

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
Sample = tuple[tuple[str, ...], float]


class MetricInputs(NamedTuple):
    """The sources of the values."""

    watch: StatusSnapshot
    ledger: LedgerFacts
    #: Answers to hooks and orders: (path, status).
    answers: Counter[tuple[str, str]]

    @property
    def routes(self) -> list[str]:
        """The names of the routes."""
        return [each["route"] for each in self.watch["routes"]]

    def breaker(self, route: str) -> str:
        """Return the state of the circuit breaker of a route."""
        found = (e for e in self.watch["routes"] if e["route"] == route)
        return next(found)["breaker"]["state"]


class LedgerInputs(NamedTuple):
    """The sources of the values that no watch is needed for."""

    ledger: LedgerFacts

    @property
    def routes(self) -> list[str]:
        """The names of the routes that have mail or took part in the last run."""
        facts = self.ledger.facts
        names = (facts.get("run") or {}).get("routes") or []
        names = [*names, *(each["route"] for each in facts.get("routes", ()))]
        return [name for name in dict.fromkeys(names) if name]

    def breaker(self, route: str) -> str:
        """Return the state of the circuit breaker of a route."""
        for breaker in self.ledger.facts.get("breakers", ()):
            if breaker["route"] == route and breaker["scope"] == "route":
                return str(breaker["state"])
        return "closed"


AnyInputs = MetricInputs | LedgerInputs


class Metric(NamedTuple):
    """One name, and how its values are found."""

    name: str
    help: str
    samples: Callable[[Any], Iterable[Sample]]
    labels: tuple[str, ...] = ()
    kind: str = "gauge"


def _one(value: float | None) -> Iterator[Sample]:
    if value is not None:
        yield (), float(value)


def _moment(text: object) -> float | None:
    return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None


def _run(key: str) -> Callable[[MetricInputs], Iterable[Sample]]:
    """Return a fact of the drain that runs; 0 if none runs."""

    def samples(seen: MetricInputs) -> Iterable[Sample]:
        facts: Mapping[str, Any] = seen.watch["run"] or {}
        return _one(facts.get(key, 0))

    return samples


def _facts(*keys: str) -> Callable[[AnyInputs], Iterable[Sample]]:
    """Return a fact of the ledger, by its names; none if it is not known."""

    def samples(seen: AnyInputs) -> Iterable[Sample]:
        found: Any = seen.ledger.facts
        for key in keys:
            found = (found or {}).get(key)
        return _one(found)

    return samples


def _each(key: str) -> Callable[[MetricInputs], Iterable[Sample]]:
    """Return a fact of each route; none where there is none."""

    def samples(seen: MetricInputs) -> Iterator[Sample]:
        for route in seen.watch["routes"]:
            facts: Mapping[str, Any] = route
            if (value := facts[key]) is not None:
                yield (route["route"],), float(value)

    return samples


def _latency(seen: MetricInputs) -> Iterator[Sample]:
    for route in seen.watch["routes"]:
        for key, value in route["latency"].items():
            if isinstance(value, float | int):
                yield (route["route"], key.removesuffix("_ms")), value / 1000


def _breakers(seen: AnyInputs) -> Iterator[Sample]:
    for route in seen.routes:
        state = seen.breaker(route)
        yield (route, "route", "closed"), state == "closed"
        if state != "closed":
            yield (route, "route", state), 1
    states = Counter(
        (breaker["route"], "domain", breaker["state"])
        for breaker in seen.ledger.facts.get("breakers", ())
        if breaker["scope"] != "route"
    )
    yield from states.items()


def _reasons(seen: AnyInputs) -> Iterator[Sample]:
    for reason in seen.ledger.facts.get("reasons", ()):
        yield (reason["state"], reason["rule"]), reason["recipients"]


def _states(seen: AnyInputs) -> Iterator[Sample]:
    facts = seen.ledger.facts
    known = {each["route"]: each["states"] for each in facts.get("routes", ())}
    for route in dict.fromkeys((*seen.routes, *known)):
        for state in facts.get("states", ()):
            yield (route, state), known.get(route, {}).get(state, 0)


def _messages(seen: AnyInputs) -> Iterator[Sample]:
    for part in ("finished", "remaining"):
        if seen.ledger.facts:
            yield (part,), seen.ledger.facts["messages"][part]


def _controls(seen: MetricInputs) -> Iterator[Sample]:
    controls = seen.watch["controls"]
    yield ("pause",), controls["pause"] is not None
    yield ("throttle",), controls["throttle"] is not None


def _checks(seen: MetricInputs) -> Iterator[Sample]:
    for route in seen.watch["routes"]:
        stages: dict[str, bool] = {}
        for finding in route["checks"]:  # a stage may have several servers
            good = finding["verdict"] != "fail"
            stages[finding["stage"]] = stages.get(finding["stage"], True) and good
        for stage, good in stages.items():
            yield (route["route"], stage), good


LEDGER_METRICS: Final = (
    Metric(
        "drainer_info",
        "always 1; the label names this drainer",
        lambda _: [((__version__,), 1)],
        ("version",),
    ),
    Metric(
        "drainer_breakers",
        "circuit breakers of routes and of recipient domains, by state",
        _breakers,
        ("route", "scope", "state"),
    ),
    Metric(
        "drainer_ledger_readable",
        "whether the ledger could be read; its values are absent if not",
        lambda seen: _one(not seen.ledger.error),
    ),
    Metric(
        "drainer_spooled_recipients",
        "recipients that scans have recorded",
        _facts("spooled"),
    ),
    Metric(
        "drainer_recipients",
        "recipients by route and state (docs/states.md); no route is an empty label",
        _states,
        ("route", "state"),
    ),
    Metric(
        "drainer_balanced",
        "whether the states add up to what was recorded; 0 is a defect",
        _facts("balanced"),
    ),
    Metric(
        "drainer_messages",
        "messages that are finished, and those with something left to do",
        _messages,
        ("part",),
    ),
    Metric(
        "drainer_waiting_recipients",
        "recipients that wait, by the rule that decided last (docs/refusals.md)",
        _reasons,
        ("state", "rule"),
    ),
    Metric(
        "drainer_first_expiry_seconds",
        "lifetime left of the recipient that expires first; absent if none is deferred",
        _facts("expires_first", "left"),
    ),
    Metric(
        "drainer_last_run_exit",
        "exit status of the last drain that ended",
        _facts("run", "exit"),
    ),
)
"""What the ledger alone knows."""

METRICS: Final = (
    *LEDGER_METRICS,
    Metric(
        "drainer_watch_state",
        "1 for the state that the watch is in (docs/states.md)",
        lambda seen: [((seen.watch["state"],), 1)],
        ("state",),
    ),
    Metric(
        "drainer_watch_state_since_seconds",
        "when the state started, in seconds since 1970",
        lambda seen: _one(_moment(seen.watch["since"])),
    ),
    Metric(
        "drainer_check_ok",
        "whether the last health check of the primary was good, by stage",
        _checks,
        ("route", "stage"),
    ),
    Metric(
        "drainer_controls",
        "whether an operator's pause or throttle is in force",
        _controls,
        ("kind",),
    ),
    Metric(
        "drainer_run_active",
        "whether a drain runs",
        lambda seen: _one(seen.watch["run"] is not None),
    ),
    Metric(
        "drainer_run_messages",
        "messages that the drain that runs has sent",
        _run("sent"),
    ),
    Metric(
        "drainer_run_bytes",
        "bytes of the messages that the drain that runs has sent",
        _run("bytes"),
    ),
    Metric(
        "drainer_run_connections",
        "sessions that are open to the primary",
        _each("connections"),
        ("route",),
    ),
    Metric(
        "drainer_rate_messages_per_second",
        "messages sent in the last second",
        _each("rate_now"),
        ("route",),
    ),
    Metric(
        "drainer_rate_limit_messages_per_second",
        "what may be sent in a second; absent without a limit",
        _each("limit"),
        ("route",),
    ),
    Metric(
        "drainer_primary_latency_seconds",
        "recent mean time that the primary takes to answer: connect, rcpt, dot",
        _latency,
        ("route", "stage"),
    ),
    Metric(
        "drainer_hook_answers",
        "answers to hooks and orders, by path and HTTP status",
        lambda seen: [(labels, count) for labels, count in seen.answers.items()],
        ("path", "status"),
        kind="counter",
    ),
)


class _Once(Collector):
    def __init__(self, seen: AnyInputs) -> None:
        self._seen = seen
        self._metrics = METRICS if isinstance(seen, MetricInputs) else LEDGER_METRICS

    def collect(self) -> Iterator[Family]:
        """Yield every metric."""
        for metric in self._metrics:
            kind = (
                CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            )
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in metric.samples(self._seen):
                family.add_metric(labels, value)
            yield family


def exposition(seen: AnyInputs) -> bytes:
    """Return the values of now in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(seen))
    return generate_latest(registry)
