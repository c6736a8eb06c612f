"""Metrics to a collector: the rows of the text file, as the official protobufs read."""

import gzip
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from tests.integration.watch.test_textfile import values
from tests.support.command.runner import Bench
from tests.support.command.watch import prepare, watching
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, Step, View
from tests.support.web.collector import Answer, Collector


class MetricsCollector(Collector):
    """Keeps the requests, and answers with a status."""

    def __init__(self) -> None:
        """Listen on a free port."""
        super().__init__(port=0)
        self.status = 200
        self.paths: list[str] = []
        self.received: list[ExportMetricsServiceRequest] = []
        self.came = threading.Semaphore(0)

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Take one request."""
        assert headers["content-type"] == "application/x-protobuf"
        self.paths.append(path)
        request = ExportMetricsServiceRequest.FromString(gzip.decompress(body))
        self.received.append(request)
        self.came.release()
        return Answer(self.status)

    @property
    def latest(self) -> dict[tuple[str, ...], float]:
        """The values of the last request, by name and labels."""
        (resource,) = self.received[-1].resource_metrics
        (scope,) = resource.scope_metrics
        return {
            (
                metric.name,
                *sorted(each.value.string_value for each in point.attributes),
            ): point.as_double or float(point.as_int)
            for metric in scope.metrics
            for point in metric.gauge.data_points
        }

    @property
    def delivered(self) -> float:
        """The recipients that are delivered, on all routes."""
        return sum(
            value
            for (name, *labels), value in self.latest.items()
            if name == "drainer_recipients" and "delivered" in labels
        )


@pytest.fixture
def collector() -> Iterator[MetricsCollector]:
    """Give a collector of metrics."""
    with MetricsCollector() as collector:
        yield collector


@pytest.fixture
def bench(tmp_path: Path, collector: MetricsCollector) -> Bench:
    """Give a bench with two messages, whose metrics go to a collector."""
    bench = Bench(tmp_path)
    bench.add("a@example.org")
    bench.add("b@example.org")
    bench.configure(telemetry={"metrics": "otlp", "endpoint": collector.endpoint})
    return bench


def test_the_end_of_a_drain_sends_the_rows_of_the_text_file(
    bench: Bench, collector: MetricsCollector
) -> None:
    """Beside the traces of the same collector, and from the same service."""
    text = bench.root / "drainer.prom"
    bench.configure(telemetry={"textfile": str(text)})
    with PeerThread(Script()) as peer:
        bench.port = peer.port
        assert bench.drain().code == 0
    assert collector.paths == ["/v1/metrics"]
    written = values(text.read_text())
    assert collector.latest == {
        (name, *sorted(labels)): value for (name, *labels), value in written.items()
    }
    assert collector.latest["drainer_last_run_exit",] == 0
    resource = collector.received[0].resource_metrics[0].resource
    named = {each.key: each.value.string_value for each in resource.attributes}
    assert named["service.name"] == "drainer"


def test_they_are_sent_while_a_drain_runs(
    bench: Bench, collector: MetricsCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every minute, or as often as the variable of OpenTelemetry says."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")

    def answer_late(_: View) -> Step:
        assert collector.came.acquire(timeout=60)
        return "250 2.0.0 ok"

    with PeerThread(Script(dot=answer_late)) as peer:
        bench.port = peer.port
        assert bench.drain().code == 0
    assert len(collector.received) >= 3
    assert collector.delivered == 2


def test_a_collector_that_refuses_is_a_warning(
    bench: Bench, collector: MetricsCollector
) -> None:
    """The drain is what it was; the words say what to change."""
    collector.status = 404
    with PeerThread(Script()) as peer:
        bench.port = peer.port
        done = bench.drain()
    assert done.code == 0
    assert (
        "nothing takes metrics at this path; it usually is /v1/metrics" in done.stderr
    )
    assert done.stderr.count("no metrics to") == 1


def test_a_rehearsal_sends_none(bench: Bench, collector: MetricsCollector) -> None:
    """Its ledger is thrown away."""
    with PeerThread(Script()) as peer:
        bench.port = peer.port
        bench.drain("--rehearse")
    assert collector.paths == []


def test_a_watch_sends_them_too(bench: Bench, collector: MetricsCollector) -> None:
    """While it runs, and at its end."""
    with PeerThread(Script()) as peer:
        bench.port = peer.port
        prepare(bench)
        with watching(bench, OTEL_METRIC_EXPORT_INTERVAL="200") as watch:
            watch.wait_for("armed")
            assert collector.came.acquire(timeout=60)
    assert collector.delivered == 2
