"""Where spans go: a JSON-lines file, a console tree, or a collector.

The file holds one OTLP ExportTraceServiceRequest a line, in the JSON encoding of
the OTLP specification (ids in hex, 64-bit numbers as strings), as the collector's
own file exporter writes it.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Raw, json
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from drainer.mail.reply import printable
from drainer.runtime.private_files import open_private

_KINDS = {
    SpanKind.INTERNAL: 1,
    SpanKind.SERVER: 2,
    SpanKind.CLIENT: 3,
    SpanKind.PRODUCER: 4,
    SpanKind.CONSUMER: 5,
}


def make_exporter(traces: str, endpoint: str) -> SpanExporter:
    """Return the exporter that ``[telemetry] traces`` names."""
    if traces == "otlp":
        # Imported only for this exporter: it brings protobuf and an HTTP client.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )

        return OTLPSpanExporter(endpoint=endpoint, timeout=5)
    if traces == "console":
        return TreeExporter()
    return FileExporter(Path(traces.removeprefix("file:")))


class FileExporter(SpanExporter):
    """Appends OTLP/JSON lines to a private file."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet; OSError comes with the first export."""
        self._path = path
        self._descriptor: int | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append a request that holds all the spans."""
        if self._descriptor is None:
            self._descriptor = self._open()
        descriptor = self._descriptor
        before = os.fstat(descriptor).st_size
        data = memoryview(json.encode(otlp_request(spans)) + b"\n")
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError:
            with contextlib.suppress(OSError):  # it may be a pipe
                os.ftruncate(descriptor, before)  # no half line may stay
            raise
        return SpanExportResult.SUCCESS

    def _open(self) -> int:
        descriptor = open_private(self._path, os.O_RDWR | os.O_APPEND)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")  # a previous run died in mid-line
        return descriptor

    def shutdown(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is held back."""
        del timeout_millis
        return True


def otlp_request(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """Return spans of one resource and scope as an OTLP/JSON request."""
    resource = spans[0].resource
    scope = spans[0].instrumentation_scope
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource.attributes)},
                "scopeSpans": [
                    {
                        "scope": {
                            "name": scope.name if scope else "",
                            "version": (scope.version or "") if scope else "",
                        },
                        # One at a time: a batch of dicts leaves the caches.
                        "spans": [Raw(json.encode(_otlp_span(span))) for span in spans],
                    }
                ],
            }
        ]
    }


def _otlp_span(span: ReadableSpan) -> dict[str, Any]:
    ids = span.context
    assert ids is not None  # noqa: S101 - we made it
    known: dict[str, Any] = {
        "traceId": f"{ids.trace_id:032x}",
        "spanId": f"{ids.span_id:016x}",
        "name": span.name,
        "kind": _KINDS[span.kind],
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes),
        "status": {},
    }
    if span.parent is not None:
        known["parentSpanId"] = f"{span.parent.span_id:016x}"
    if span.events:
        known["events"] = [
            {
                "timeUnixNano": str(event.timestamp),
                "name": event.name,
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        ]
    if span.links:
        known["links"] = [
            {
                "traceId": f"{link.context.trace_id:032x}",
                "spanId": f"{link.context.span_id:016x}",
            }
            for link in span.links
        ]
    if not span.status.is_unset:
        known["status"] = {"code": 2, "message": span.status.description or ""}
    return known


def _attributes(attributes: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            "value": {"stringValue": value} if type(value) is str else _value(value),
        }
        for key, value in (attributes or {}).items()
    ]


def _value(value: Any) -> dict[str, Any]:  # noqa: ANN401
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": str(value)}


class TreeExporter(SpanExporter):
    """Prints spans on stderr, events indented below them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Print the spans of each trace together."""
        traces: dict[int, list[ReadableSpan]] = {}
        for span in sorted(spans, key=lambda each: each.start_time or 0):
            assert span.context is not None  # noqa: S101 - we made it
            traces.setdefault(span.context.trace_id, []).append(span)
        for those in traces.values():
            text = "".join(_tree(span, depth) for span, depth in _nested(those))
            os.write(2, text.encode())
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing to close."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is held back."""
        del timeout_millis
        return True


def _nested(spans: Sequence[ReadableSpan]) -> Iterator[tuple[ReadableSpan, int]]:
    """Yield spans of one trace, each below its parent, with their depth.

    A span whose parent was, or will be, exported at another time is one deep.
    """
    known = {span.context.span_id for span in spans if span.context}
    below: dict[int | None, list[ReadableSpan]] = {}
    for span in spans:
        parent = span.parent.span_id if span.parent else None
        below.setdefault(parent if parent in known else None, []).append(span)
    waiting = [(span, int(bool(span.parent))) for span in reversed(below.get(None, []))]
    while waiting:
        span, depth = waiting.pop()
        yield span, depth
        own = span.context.span_id if span.context else None
        waiting += [(each, depth + 1) for each in reversed(below.get(own, []))]


def _tree(span: ReadableSpan, depth: int) -> str:
    ids = span.context
    assert ids is not None  # noqa: S101 - we made it
    start, end = span.start_time or 0, span.end_time or 0
    indent = "  " * depth
    head = f"{indent}{ids.trace_id:032x} {span.name} {(end - start) / 1e6:.1f} ms"
    lines = [f"{head} {_words(span.attributes)}"]
    for event in span.events:
        offset = (event.timestamp - start) / 1e6
        words = _words(event.attributes)
        lines.append(f"{indent}  +{offset:.1f} ms {event.name} {words}")
    return "\n".join(lines) + "\n"


def _words(attributes: Mapping[str, Any] | None) -> str:
    return " ".join(
        f"{key.removeprefix('drainer.')}={printable(str(value), 80)}"
        for key, value in (attributes or {}).items()
        if value != ""
    )
