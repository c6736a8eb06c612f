"""The export process: project what the ledger holds, until the drain is over."""

import logging
import select
import socket
import sys
import time
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from drainer.config.telemetry import unknown_protocol
from drainer.errors import LedgerError
from drainer.ledger.reader import LedgerReader
from drainer.runtime.databases import reason
from drainer.runtime.redaction import redact, redact_url
from drainer.telemetry import LAST_WORDS, ExportOrder
from drainer.telemetry.file_exporter import FileExporter
from drainer.telemetry.projection import SpanProjection
from drainer.telemetry.projector import (
    Exporter,
    ExportFailure,
    Projector,
    exclusive,
)
from drainer.telemetry.spans import make_resource
from drainer.telemetry.tree import TreeExporter

POLL = 0.25
"""Seconds between two looks at the ledger."""
MAX_WAIT = 10.0
"""Seconds after which an exporter that failed is tried again, at most."""
FEW = 100
"""Decisions that are worth a request at once; fewer wait for POLL."""


def serve(link: socket.socket, order: ExportOrder, _: object) -> int:
    """Project until the link closes, then the rest; 0 = all was sent (workers.JOBS)."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we report it below
    if order.traces == "otlp" and (setting := unknown_protocol()):
        report(f"no traces: {setting}, and drainer sends http/protobuf only")
        return 1
    name = order.traces
    if order.traces == "otlp":
        name = f"{order.traces} {redact_url(order.endpoint)}"
    try:
        lock = exclusive(Path(order.locks), name)
    except OSError as error:
        report(f"no traces: {error.strerror}")
        return 1
    if lock is None:
        return 0  # another drain's export serves this cursor
    try:
        projector = _projector(order, name)
    except LedgerError as error:
        report(f"traces wait: {error}")
        return 1
    try:
        return _Export(projector, link).run()
    finally:
        projector.close()


def report(text: str) -> None:
    """Print what an operator must know, without secrets."""
    print(f"drainer: {redact(text)}", file=sys.stderr)  # noqa: T201


def _projector(order: ExportOrder, name: str) -> Projector[ReadableSpan]:
    url = make_url(order.ledger)
    with LedgerReader(url) as reader:
        salt, identity = reader.salt(), reader.identity()
    resource = make_resource(identity, rehearsal=order.rehearsal)
    projection = SpanProjection(salt, resource, plain=order.addresses == "plain")
    return Projector(url, make_exporter(order), projection.spans, name)


def make_exporter(order: ExportOrder) -> Exporter[ReadableSpan]:
    """Return the exporter that ``[telemetry] traces`` names."""
    if order.traces == "otlp":
        # Imported only for this exporter: it brings protobuf and an HTTP client.
        from drainer.telemetry.otlp import OtlpExporter  # noqa: PLC0415

        return OtlpExporter(order.endpoint, report)
    if order.traces == "console":
        return TreeExporter()
    return FileExporter(Path(order.traces.removeprefix("file:")))


class _Export:
    """Projects until the drain is over and everything is sent."""

    def __init__(self, projector: Projector[ReadableSpan], link: socket.socket) -> None:
        self._projector, self._link = projector, link
        self._deadline: float | None = None
        self._complaint = ""
        self._wait = POLL

    def run(self) -> int:
        """Return 0 when all was sent, 1 when the time is over before."""
        while True:
            exported = self._step()
            if self._deadline is not None:
                if exported == 0:
                    return 0
                if exported < 0 or time.monotonic() > self._deadline:
                    return 1
            elif exported < FEW and self._is_over(self._wait):
                self._deadline = time.monotonic() + LAST_WORDS
                self._projector.hurry()

    def _step(self) -> int:
        """Export one batch; return -1 when that failed."""
        try:
            exported = self._projector.step()
        except (ExportFailure, OSError, SQLAlchemyError) as error:
            words = reason(error)
            if words != self._complaint:  # once, not at every try
                report(f"traces wait: {words}")
            self._complaint = words
            self._wait = min(self._wait * 2, MAX_WAIT)
            return -1
        if exported and self._complaint:
            report("traces are sent again")
            self._complaint = ""
        self._wait = POLL
        return exported

    def _is_over(self, wait: float) -> bool:
        """Wait a little; True when the drain has closed its end."""
        readable, _, _ = select.select([self._link], [], [], wait)
        return bool(readable) and not self._link.recv(1)
