"""Traces to a collector: sizes, refusals, partial success, causes in words."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)

from drainer.telemetry import otlp
from drainer.telemetry.names import TRUNCATED
from drainer.telemetry.otlp import OtlpExporter
from drainer.telemetry.projector import ExportFailure
from drainer.telemetry.spans import SpanEvent, SpanPlace, TraceSpan
from tests.support.tls.certificates import self_signed
from tests.support.web.collector import Answer, Collector, Received, accept

RESOURCE = {"service.name": "drainer"}


def spans(count: int, text: str = "words", first: int = 1) -> list[TraceSpan]:
    """Return some spans, each with a text."""
    return [
        TraceSpan("attempt", SpanPlace(7, n), (n, n + 1), {"drainer.reply": text})
        for n in range(first, first + count)
    ]


@pytest.fixture
def said() -> list[str]:
    """Return the list of what an exporter reports."""
    return []


@pytest.fixture
def exporting(said: list[str]) -> Iterator[Callable[..., OtlpExporter]]:
    """Make exporters, in a hurry, and close them."""
    made: list[OtlpExporter] = []

    def make(endpoint: str) -> OtlpExporter:
        made.append(OtlpExporter(endpoint, RESOURCE, said.append))
        made[-1].hurry()
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_requests_are_compressed_and_limited(
    exporting: Callable[..., OtlpExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By gzip, and by their bytes before compression; every span comes once."""
    monkeypatch.setattr(otlp, "MAX_BYTES", 20_000)
    with Collector(0) as collector:
        exporting(collector.endpoint).export(spans(500, "x" * 200))
    assert sorted(int(s.span_id, 16) for s in collector.spans) == list(range(1, 501))
    assert len(collector.requests) > 5
    for request in collector.requests:
        assert request.headers["content-encoding"] == "gzip"
        assert request.sizes[1] <= 20_000
        assert request.sizes[0] < request.sizes[1]
    assert collector.faults == []


@pytest.mark.parametrize("status", [413, 400, 429])
def test_a_request_that_is_too_large_for_the_collector_is_halved(
    exporting: Callable[..., OtlpExporter],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    """It says so by 413, by 400, or by the code of gRPC for a spent resource."""
    monkeypatch.setattr(otlp, "TIMEOUT", 0.5)  # the SDK repeats after 429
    body = Status(code=8, message="too large").SerializeToString()

    def answer(request: Received) -> Answer:
        if len(request.spans) > 3:
            return Answer(status, body if status == 429 else b"too large")
        return accept(request)

    with Collector(0, answer) as collector:
        exporting(collector.endpoint).export(spans(10))
    assert sorted(int(s.span_id, 16) for s in collector.spans) == list(range(1, 11))


def test_one_span_that_is_too_large_is_shortened_and_says_so(
    exporting: Callable[..., OtlpExporter],
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
) -> None:
    """It loses texts and events; those around it lose nothing."""
    monkeypatch.setattr(otlp, "MAX_BYTES", 20_000)
    long = {"drainer.reply": "y" * 500}
    events = [SpanEvent("classify", n, long) for n in range(300)]
    place, text = SpanPlace(7, 99), {"drainer.reply": "z" * 30_000}
    large = TraceSpan("attempt", place, (1, 2), text, events=events)
    with Collector(0) as collector:
        exporting(collector.endpoint).export([*spans(3), large, *spans(3, first=10)])
    assert len(collector.spans) == 7
    (found,) = [span for span in collector.spans if span.span_id == f"{99:016x}"]
    assert "280 events" in found.attributes[TRUNCATED]
    assert len(found.attributes["drainer.reply"]) == otlp.SHORT_TEXT
    assert [text for text in said if "too large" in text]


def test_a_span_that_the_collector_cannot_read_blocks_no_other(
    exporting: Callable[..., OtlpExporter], said: list[str]
) -> None:
    """It is skipped and counted, for others were taken."""

    def answer(request: Received) -> Answer:
        if any(span.span_id == f"{5:016x}" for span in request.spans):
            return Answer(400, b"span 5 is malformed")
        return accept(request)

    with Collector(0, answer) as collector:
        exporting(collector.endpoint).export(spans(10))
    assert len(collector.spans) == 9
    assert said == ["the collector rejects 1 spans: HTTP 400: span 5 is malformed"]


def test_a_collector_that_takes_nothing_loses_nothing(
    exporting: Callable[..., OtlpExporter],
) -> None:
    """No span is skipped before one was taken: the next run sends them all."""
    with Collector(0, lambda _: Answer(400, b"no")) as collector:
        exporter = exporting(collector.endpoint)
        with pytest.raises(ExportFailure, match="HTTP 400: no"):
            exporter.export(spans(8))
        collector.answer = accept
        exporter.export(spans(8))
    assert len(collector.spans) == 8


def test_what_a_partial_success_rejects_is_counted(
    exporting: Callable[..., OtlpExporter], said: list[str]
) -> None:
    """Reported once with the collector's words, and the sum at the end."""
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 2
    response.partial_success.error_message = "quota\x1b[31m"
    with Collector(0, lambda _: Answer(200, response.SerializeToString())) as collector:
        exporter = exporting(collector.endpoint)
        exporter.export(spans(3))
        exporter.export(spans(3))
        exporter.close()
    assert said == [
        "the collector rejects 2 spans: quota\\x1b[31m",
        "the collector rejected 4 spans in all",
    ]


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "HTTP 404: .*/v1/traces"), (401, "HTTP 401: .*OTEL_EXPORTER_OTLP_HEADERS"),
     (403, "HTTP 403"), (500, "HTTP 500")],
)  # fmt: skip
def test_a_failure_names_its_cause(
    exporting: Callable[..., OtlpExporter], status: int, words: str
) -> None:
    """With what to do about it, and the collector's own words."""
    with Collector(0, lambda _: Answer(status, b"sorry")) as collector:
        exporter = exporting(collector.endpoint)
        with pytest.raises(ExportFailure, match=words) as failure:
            exporter.export(spans(1))
    assert "sorry" in str(failure.value)
    assert collector.endpoint in str(failure.value)


def test_a_collector_that_is_away_is_named(
    exporting: Callable[..., OtlpExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens, or no TLS is spoken there."""
    monkeypatch.setattr(otlp, "TIMEOUT", 0.5)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        closed = listener.getsockname()[1]
        with pytest.raises(ExportFailure, match="connection refused"):
            exporting(f"http://127.0.0.1:{closed}/v1/traces").export(spans(1))
    with Collector(0) as collector:
        secure = f"https://127.0.0.1:{collector.port}/v1/traces"
        with pytest.raises(ExportFailure, match="TLS"):
            exporting(secure).export(spans(1))


def test_the_environment_sets_headers_and_compression(
    exporting: Callable[..., OtlpExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for every OpenTelemetry SDK."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    with Collector(0) as collector:
        exporting(collector.endpoint).export(spans(1))
    (request,) = collector.requests
    assert request.headers["authorization"] == "Bearer x"
    assert "content-encoding" not in request.headers


def test_the_environment_sets_the_certificate(
    exporting: Callable[..., OtlpExporter],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It outranks the certificates that the environment gives to every program."""
    ours, other = self_signed(tmp_path), self_signed(tmp_path, "other")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(ours.certificate))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.certificate))
    with Collector(0, tls=ours.server_context()) as collector:
        url = f"https://localhost:{collector.port}/v1/traces"
        exporting(url).export(spans(1))
    assert len(collector.spans) == 1


def test_requests_are_at_most_four_a_second(said: list[str]) -> None:
    """While a drain runs; at its end there is no pause."""
    with Collector(0) as collector:
        exporter = OtlpExporter(collector.endpoint, RESOURCE, said.append)
        begun = time.monotonic()  # an arrival may be late, but never early
        for n in range(4):
            exporter.export(spans(1, first=n + 1))
        exporter.close()
    late = [request.at - begun for request in collector.requests]
    assert [n for n, at in enumerate(late) if at < n * otlp.INTERVAL] == []
    assert len(late) == 4
