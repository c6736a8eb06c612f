"""Metrics to a collector: OTLP over HTTP, by the SDK's exporter."""

import logging
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from drainer import __version__
from drainer.telemetry.otlp import METRICS, TIMEOUT, CollectorSession, read_setting
from drainer.telemetry.spans import make_resource


class GaugeValues(NamedTuple):
    """A gauge of this moment: a value for each set of attributes."""

    name: str
    help: str
    values: Iterable[tuple[Mapping[str, str], float]]


class OtlpMetricsExporter:
    """Sends gauges to a collector."""

    def __init__(self, endpoint: str) -> None:
        """Connect to nothing yet."""
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # callers report
        self._session = CollectorSession(METRICS, interval=0.0)
        self._sdk = OTLPMetricExporter(
            endpoint=endpoint,
            session=self._session,
            timeout=None if read_setting(METRICS, "TIMEOUT") else TIMEOUT,
            compression=Compression.NoCompression,
        )

    def export(self, ledger: str, gauges: Iterable[GaugeValues]) -> str:
        """Send the gauges of a ledger, by its identity; return why not, '' if sent."""
        now = time.time_ns()
        metrics = [
            Metric(
                name=gauge.name,
                description=gauge.help,
                unit="",
                data=Gauge(
                    [
                        NumberDataPoint(attributes, 0, now, value)
                        for attributes, value in gauge.values
                    ]
                ),
            )
            for gauge in gauges
        ]
        scope = ScopeMetrics(InstrumentationScope("drainer", __version__), metrics, "")
        resource = make_resource(ledger, rehearsal=False)
        self._session.forget()
        data = MetricsData([ResourceMetrics(resource, [scope], "")])
        is_sent = self._sdk.export(data) is MetricExportResult.SUCCESS
        return "" if is_sent else self._session.failure()
