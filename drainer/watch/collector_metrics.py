"""The metrics of a ledger for a collector, while a drain or a watch runs.

The rows are those of a text file: what the ledger alone knows (docs/metrics.md).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

from drainer.config import Config
from drainer.config.build.paths import LedgerURL
from drainer.config.telemetry import metrics_interval, unknown_protocol
from drainer.errors import DrainerError
from drainer.ledger.reader import LedgerReader
from drainer.runtime.redaction import redact, redact_url
from drainer.telemetry.otlp_metrics import GaugeValues, OtlpMetricsExporter
from drainer.watch.metrics import LEDGER_METRICS, LedgerInputs
from drainer.watch.textfile import ledger_inputs

_log = logging.getLogger(__name__)


class CollectorMetrics:
    """Sends the metrics of one ledger."""

    def __init__(self, config: Config, url: LedgerURL) -> None:
        self._config, self._url = config, url
        self._endpoint = config.telemetry.metrics_endpoint
        self._exporter = OtlpMetricsExporter(self._endpoint)
        self._complaint = ""

    def send(self) -> None:
        """Send the values of now; a failure is a warning, once at each change."""
        try:
            with LedgerReader(self._url) as reader:
                identity = reader.identity()
            seen = ledger_inputs(self._config, self._url)
            words = self._exporter.export(identity, _gauges(seen))
        except DrainerError as error:
            words = str(error)
        if words and words != self._complaint:
            _log.warning(redact(f"no metrics to {redact_url(self._endpoint)}: {words}"))
        self._complaint = words

    async def run(self) -> None:
        """Send without end; run it as a task."""
        while True:
            await asyncio.sleep(metrics_interval())
            await asyncio.to_thread(self.send)


def _gauges(seen: LedgerInputs) -> Iterator[GaugeValues]:
    for metric in LEDGER_METRICS:
        values = [
            (dict(zip(metric.labels, labels, strict=True)), float(value))
            for labels, value in metric.samples(seen)
        ]
        yield GaugeValues(metric.name, metric.help, values)


@asynccontextmanager
async def export_metrics(config: Config, url: LedgerURL) -> AsyncIterator[None]:
    """Send the metrics of a ledger while the block runs, and at its end."""
    if setting := unknown_protocol("METRICS"):
        _log.warning(f"no metrics: {setting}, and drainer sends http/protobuf only")
        yield
        return
    metrics = CollectorMetrics(config, url)
    task = asyncio.create_task(metrics.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(metrics.send)
