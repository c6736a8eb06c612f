"""What Prometheus reads, one table row each (docs/metrics.md).

`/metrics` has all of it. A text file for the node exporter has what the ledger knows.
No label contains an address or a domain, and every label has few values.
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
    def primary(self) -> str:
        """The route."""
        return self.watch["primary"]

    @property
    def breaker(self) -> str:
        """The state of the circuit breaker of the route."""
        return self.watch["breaker"]["state"]


class LedgerInputs(NamedTuple):
    """The sources of the values that no watch is needed for."""

    ledger: LedgerFacts
    primary: str

    @property
    def breaker(self) -> str:
        """The state of the circuit breaker of the route."""
        for breaker in self.ledger.facts.get("breakers", ()):
            if breaker["route"] == self.primary and breaker["scope"] == "route":
                return str(breaker["state"])
        return "closed"


AnyInputs = MetricInputs | LedgerInputs


class Metric(NamedTuple):
    """One name, and how its values are found."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    samples: Callable[[Any], Iterable[Sample]]


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


def _latency(seen: MetricInputs) -> Iterator[Sample]:
    for key, value in seen.watch["latency"].items():
        if isinstance(value, float | int):
            yield (key.removesuffix("_ms"),), value / 1000


def _breakers(seen: AnyInputs) -> Iterator[Sample]:
    yield ("route", seen.breaker), 1
    states = Counter(
        breaker["state"]
        for breaker in seen.ledger.facts.get("breakers", ())
        if breaker["route"] == seen.primary and breaker["scope"] != "route"
    )
    for state, count in states.items():
        yield ("domain", state), count


def _reasons(seen: AnyInputs) -> Iterator[Sample]:
    for reason in seen.ledger.facts.get("reasons", ()):
        yield (reason["state"], reason["rule"]), reason["recipients"]


def _states(seen: AnyInputs) -> Iterator[Sample]:
    for state, count in seen.ledger.facts.get("states", {}).items():
        yield (state,), count


def _messages(seen: AnyInputs) -> Iterator[Sample]:
    for part in ("finished", "remaining"):
        if seen.ledger.facts:
            yield (part,), seen.ledger.facts["messages"][part]


def _controls(seen: MetricInputs) -> Iterator[Sample]:
    controls = seen.watch["controls"]
    yield ("pause",), controls["pause"] is not None
    yield ("throttle",), controls["throttle"] is not None


def _checks(seen: MetricInputs) -> Iterator[Sample]:
    for finding in seen.watch["checks"]:
        yield (finding["stage"],), finding["verdict"] != "fail"


LEDGER_METRICS: Final = (
    Metric(
        "drainer_info",
        "gauge",
        ("version", "primary"),
        "always 1; the labels name this drainer and its primary",
        lambda seen: [((__version__, seen.primary), 1)],
    ),
    Metric(
        "drainer_breakers",
        "gauge",
        ("scope", "state"),
        "circuit breakers of the route and of recipient domains, by state",
        _breakers,
    ),
    Metric(
        "drainer_ledger_readable",
        "gauge",
        (),
        "whether the ledger could be read; its values are absent if not",
        lambda seen: _one(not seen.ledger.error),
    ),
    Metric(
        "drainer_spooled_recipients",
        "gauge",
        (),
        "recipients that scans have recorded",
        _facts("spooled"),
    ),
    Metric(
        "drainer_recipients",
        "gauge",
        ("state",),
        "recipients by state (docs/states.md)",
        _states,
    ),
    Metric(
        "drainer_balanced",
        "gauge",
        (),
        "whether the states add up to what was recorded; 0 is a defect",
        _facts("balanced"),
    ),
    Metric(
        "drainer_messages",
        "gauge",
        ("part",),
        "messages that are finished, and those with something left to do",
        _messages,
    ),
    Metric(
        "drainer_waiting_recipients",
        "gauge",
        ("state", "rule"),
        "recipients that wait, by the rule that decided last (docs/refusals.md)",
        _reasons,
    ),
    Metric(
        "drainer_first_expiry_seconds",
        "gauge",
        (),
        "lifetime left of the recipient that expires first; absent if none is deferred",
        _facts("expires_first", "left"),
    ),
    Metric(
        "drainer_last_run_exit",
        "gauge",
        (),
        "exit status of the last drain that ended",
        _facts("run", "exit"),
    ),
)
"""What the ledger alone knows."""

METRICS: Final = (
    *LEDGER_METRICS,
    Metric(
        "drainer_watch_state",
        "gauge",
        ("state",),
        "1 for the state that the watch is in (docs/states.md)",
        lambda seen: [((seen.watch["state"],), 1)],
    ),
    Metric(
        "drainer_watch_state_since_seconds",
        "gauge",
        (),
        "when the state started, in seconds since 1970",
        lambda seen: _one(_moment(seen.watch["since"])),
    ),
    Metric(
        "drainer_check_ok",
        "gauge",
        ("stage",),
        "whether the last health check of the primary was good, by stage",
        _checks,
    ),
    Metric(
        "drainer_controls",
        "gauge",
        ("kind",),
        "whether an operator's pause or throttle is in force",
        _controls,
    ),
    Metric(
        "drainer_run_active",
        "gauge",
        (),
        "whether a drain runs",
        lambda seen: _one(seen.watch["run"] is not None),
    ),
    Metric(
        "drainer_run_messages",
        "gauge",
        (),
        "messages that the drain that runs has sent",
        _run("sent"),
    ),
    Metric(
        "drainer_run_bytes",
        "gauge",
        (),
        "bytes of the messages that the drain that runs has sent",
        _run("bytes"),
    ),
    Metric(
        "drainer_run_connections",
        "gauge",
        (),
        "sessions that are open to the primary",
        _run("connections"),
    ),
    Metric(
        "drainer_rate_messages_per_second",
        "gauge",
        (),
        "messages sent in the last second",
        _run("rate_now"),
    ),
    Metric(
        "drainer_rate_limit_messages_per_second",
        "gauge",
        (),
        "what may be sent in a second; absent without a limit",
        _run("limit"),
    ),
    Metric(
        "drainer_primary_latency_seconds",
        "gauge",
        ("stage",),
        "recent mean time that the primary takes to answer: connect, rcpt, dot",
        _latency,
    ),
    Metric(
        "drainer_hook_answers",
        "counter",
        ("path", "status"),
        "answers to hooks and orders, by path and HTTP status",
        lambda seen: [(labels, count) for labels, count in seen.answers.items()],
    ),
)


class _Once(Collector):
    """Gives the values of one moment."""

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
