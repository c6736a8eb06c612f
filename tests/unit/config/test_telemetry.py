"""[telemetry] and the environment of OpenTelemetry: which one counts."""

from pathlib import Path

import pytest

from drainer.config import load as config_file
from drainer.config.telemetry import (
    TelemetrySection,
    caller,
    metrics_interval,
    unknown_protocol,
)
from drainer.errors import UsageError

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FILE = """
[telemetry]
traces = "console"
endpoint = "http://file:4318/x"
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a configuration file in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "drainer.toml"
    path.write_text(FILE)
    return path


def telemetry() -> TelemetrySection:
    """Return what is in force."""
    return config_file.load(None, {}).telemetry


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://h:4318", "http://h:4318/v1/traces"),
        ("http://h:4318/", "http://h:4318/v1/traces"),
        ("https://h/otlp", "https://h/otlp"),
        ("http://h/v1/traces", "http://h/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
        ("http://h?key=x", "http://h/v1/traces?key=x"),
    ],
)
def test_an_endpoint_without_a_path_gets_that_of_traces(given: str, used: str) -> None:
    """So that the endpoint of a collector is enough."""
    assert TelemetrySection(endpoint=given).endpoint == used


@pytest.mark.parametrize("text", ["h:4318", "grpc://h:4317", "", "ftp://h"])
def test_an_endpoint_is_a_url_of_http(text: str) -> None:
    """Anything else is refused at the start, not at the first export."""
    with pytest.raises(ValueError, match="legal: http"):
        TelemetrySection(endpoint=text)


def test_the_file_outranks_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint of all signals gets the path; that of traces is used unchanged."""
    assert telemetry().endpoint == "http://file:4318/x"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318/sub/")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    assert telemetry().endpoint == "http://base:4318/sub/v1/traces"
    assert telemetry().traces == "otlp"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://exact:4318/")
    assert telemetry().endpoint == "http://exact:4318/"
    monkeypatch.setenv("DRAINER_TELEMETRY__ENDPOINT", "http://ours:4318")
    assert telemetry().endpoint == "http://ours:4318/v1/traces"
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert telemetry().traces == "off"


def test_disabled_outranks_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also our own variable; an empty one, and any other value, disable nothing."""
    monkeypatch.setenv("DRAINER_TELEMETRY__TRACES", "otlp")
    for value, traces in (
        ("true", "off"),
        ("TRUE", "off"),
        ("", "otlp"),
        ("1", "otlp"),
    ):
        monkeypatch.setenv("OTEL_SDK_DISABLED", value)
        assert telemetry().traces == traces


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "localhost:4317"),
    ],
)
def test_an_error_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """And not the line of the file that it outranks."""
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"environment {name}"):
        telemetry()


@pytest.mark.parametrize(
    ("value", "unknown"),
    [("", False), ("http/protobuf", False), ("grpc", True), ("http/json", True)],
)
def test_another_protocol_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str, *, unknown: bool
) -> None:
    """There is one that drainer speaks; the variable of traces goes first."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", value)
    assert bool(unknown_protocol("TRACES")) is unknown
    assert bool(unknown_protocol("METRICS")) is unknown
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    assert not unknown_protocol("TRACES")


def test_metrics_go_beside_the_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless their own variable says where; other exporters than otlp are off."""
    default = TelemetrySection().metrics_endpoint
    assert default == "http://127.0.0.1:4318/v1/metrics"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://there:4318/base/")
    assert telemetry().metrics_endpoint == "http://there:4318/base/v1/metrics"
    exact = "http://elsewhere/m?x=1"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", exact)
    assert telemetry().metrics_endpoint == exact
    for value, metrics in (("otlp", "otlp"), ("prometheus", "off"), ("none", "off")):
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", value)
        assert telemetry().metrics == metrics


def test_the_interval_of_metrics_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In milliseconds; what is no number is as if it were not set."""
    for value, seconds in (("", 60), ("5000", 5), ("0", 0.1), ("-1", 60), ("x", 60)):
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", value)
        assert metrics_interval() == seconds


def test_the_trace_of_the_caller_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As W3C Trace Context writes it, with a state of at most 512 characters."""
    monkeypatch.setenv("TRACEPARENT", PARENT)
    assert caller() == {"traceparent": PARENT}
    monkeypatch.setenv("TRACESTATE", "a=b")
    assert caller() == {"traceparent": PARENT, "tracestate": "a=b"}
    monkeypatch.setenv("TRACESTATE", "x" * 513)
    assert caller() == {"traceparent": PARENT}
    for bad in ("", "00-0-0-01", PARENT.upper(), f"{PARENT}\n{PARENT}"):
        monkeypatch.setenv("TRACEPARENT", bad)
        assert caller() == {}
