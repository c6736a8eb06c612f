"""The export process: project what the ledger holds, until the drain is over."""

import logging
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from drainer.config.telemetry import unknown_protocol
from drainer.errors import LedgerError
from drainer.ledger.reader import LedgerReader
from drainer.runtime.databases import reason
from drainer.runtime.redaction import redact, redact_url
from drainer.telemetry import LAST_WORDS, ExportOrder
from drainer.telemetry.file_exporter import FileExporter
from drainer.telemetry.log_lines import LogProjection, LogWriter
from drainer.telemetry.projection import SpanProjection
from drainer.telemetry.projector import (
    Exporter,
    ExportFailure,
    Projector,
    lock_cursor,
)
from drainer.telemetry.spans import Attributes, TraceSpan, make_resource
from drainer.telemetry.tree import TreeExporter

POLL = 2.0
"""Seconds between two looks at the ledger: many small batches cost more than a few."""
RETRY = 0.5
"""Seconds after which an exporter that failed is tried again, at first."""
MAX_WAIT = 10.0
"""Seconds after which an exporter that failed is tried again, at most."""
FEW = 500
"""Decisions that are worth a request at once; fewer wait for POLL."""
RECENT = 60_000_000
"""Microseconds: a log that starts has what happened in this time before."""


def serve(link: socket.socket, order: ExportOrder, _: object) -> int:
    """Project until the link closes, then the rest; 0 = all was sent (workers.JOBS)."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we report it below
    exports: list[_Export] = []
    locks = []
    complete = True
    for what, name, make in _wanted(order):
        try:
            lock = lock_cursor(Path(order.locks), name)
            if lock is None:
                continue  # another drain's export serves this cursor
            locks.append(lock)
            exports.append(_Export(what, make(order, name)))
        except (LedgerError, OSError) as error:
            report(f"no {what}: {reason(error)}")
            complete = False
    try:
        return 0 if _run(exports, link) and complete else 1
    finally:
        for each in exports:
            each.projector.close()


def _wanted(
    order: ExportOrder,
) -> Iterator[tuple[str, str, Callable[[ExportOrder, str], Projector[Any]]]]:
    """Yield what is exported: what it is, the name of its cursor, its projector."""
    if order.traces == "otlp" and (setting := unknown_protocol("TRACES")):
        report(f"no traces: {setting}, and drainer sends http/protobuf only")
    elif order.traces == "otlp":
        yield "traces", f"otlp {redact_url(order.endpoint)}", _trace_projector
    elif order.traces != "off":
        yield "traces", order.traces, _trace_projector
    if order.logs != "off":
        yield "log lines", f"logs {order.logs}", _log_projector


def report(text: str) -> None:
    """Print what an operator must know, without secrets."""
    print(f"drainer: {redact(text)}", file=sys.stderr)  # noqa: T201


def _trace_projector(order: ExportOrder, name: str) -> Projector[TraceSpan]:
    url, salt, identity = _ledger_of(order)
    projection = SpanProjection(
        salt, plain=order.addresses == "plain", rehearsal=order.rehearsal
    )
    resource = make_resource(identity, rehearsal=order.rehearsal)
    exporter = make_exporter(order, resource.attributes)
    return Projector(url, exporter, projection.spans, name)


def _log_projector(order: ExportOrder, name: str) -> Projector[dict[str, Any]]:
    url, salt, _ = _ledger_of(order)
    projection = LogProjection(salt, plain=order.addresses == "plain")
    projector = Projector(url, LogWriter(order.logs), projection.lines, name)
    if not projector.is_known:  # operators want no lines of the past
        projector.skip(time.time_ns() // 1000 - RECENT)
    return projector


def _ledger_of(order: ExportOrder) -> tuple[URL, bytes, str]:
    url = make_url(order.ledger)
    with LedgerReader(url) as reader:
        return url, reader.salt(), reader.identity()


def make_exporter(order: ExportOrder, resource: Attributes) -> Exporter[TraceSpan]:
    """Return the exporter that ``[telemetry] traces`` names."""
    if order.traces == "otlp":
        # Imported only for this exporter: it brings protobuf and an HTTP client.
        from drainer.telemetry.otlp import OtlpExporter  # noqa: PLC0415

        return OtlpExporter(order.endpoint, resource, report)
    if order.traces == "console":
        return TreeExporter()
    return FileExporter(Path(order.traces.removeprefix("file:")), resource)


def _run(exports: Sequence["_Export"], link: socket.socket) -> bool:
    """Project until the drain is over; return whether everything was sent."""
    deadline: float | None = None
    while True:
        exported = [each.step() for each in exports]
        if deadline is not None:
            if not any(exported):
                return True
            if max(exported) <= 0 or time.monotonic() > deadline:
                return False
        elif max(exported, default=0) < FEW and _is_over(link, POLL):
            deadline = time.monotonic() + LAST_WORDS
            for each in exports:
                each.hurry()


def _is_over(link: socket.socket, wait: float) -> bool:
    """Wait a little; True when the drain has closed its end."""
    readable, _, _ = select.select([link], [], [], wait)
    return bool(readable) and not link.recv(1)


class _Export:
    """One exporter: what it could not send is tried again, less and less often."""

    def __init__(self, what: str, projector: Projector[Any]) -> None:
        self.projector = projector
        self._what = what
        self._complaint = ""
        self._wait, self._next = RETRY, 0.0

    def step(self) -> int:
        """Export one batch; return how many decisions it held, -1 if that failed."""
        if time.monotonic() < self._next:
            return -1
        try:
            exported = self.projector.step()
        except (ExportFailure, OSError, SQLAlchemyError) as error:
            words = reason(error)
            if words != self._complaint:  # once, not at every try
                report(f"{self._what} wait: {words}")
            self._complaint = words
            self._wait = min(self._wait * 2, MAX_WAIT)
            self._next = time.monotonic() + self._wait
            return -1
        if exported and self._complaint:
            report(f"{self._what} are sent again")
            self._complaint = ""
        self._wait = RETRY
        return exported

    def hurry(self) -> None:
        """Try at once: the drain is over."""
        self._next = 0.0
        self.projector.hurry()
