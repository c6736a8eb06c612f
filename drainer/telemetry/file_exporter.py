"""A file of JSON lines: one OTLP ExportTraceServiceRequest a line.

The encoding is OTLP's own JSON (ids in hex, 64-bit numbers as strings), as a
collector's file exporter writes it and its file receiver reads it. A program that
rotates logs may rename the file at any time: the next line goes to a new one.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Raw, json
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from drainer.runtime.private_files import open_private

_KINDS = {
    SpanKind.INTERNAL: 1,
    SpanKind.SERVER: 2,
    SpanKind.CLIENT: 3,
    SpanKind.PRODUCER: 4,
    SpanKind.CONSUMER: 5,
}
_STATUS = {StatusCode.OK: 1, StatusCode.ERROR: 2}
_KNOWN, _REMOTE = 0x100, 0x200
"""Flags of a span: whether its parent is remote is known; it is."""


class FileExporter:
    """Appends OTLP/JSON lines to a private file."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet; OSError comes with the first export."""
        self._path = path
        self._descriptor: int | None = None

    def export(self, records: Sequence[ReadableSpan]) -> None:
        """Append a request that holds all the spans."""
        descriptor = self._open()
        before = os.fstat(descriptor).st_size
        data = memoryview(otlp_json(records) + b"\n")
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError:
            with contextlib.suppress(OSError):  # it may be a pipe
                os.ftruncate(descriptor, before)  # no half line may stay
            raise

    def _open(self) -> int:
        """Return the descriptor of the file that has the name now."""
        if self._descriptor is not None and not self._is_rotated(self._descriptor):
            return self._descriptor
        self.close()
        self._descriptor = open_private(self._path, os.O_RDWR | os.O_APPEND)
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")  # a previous run died in mid-line
        return self._descriptor

    def _is_rotated(self, descriptor: int) -> bool:
        try:
            there = os.lstat(self._path)
        except FileNotFoundError:
            return True
        here = os.fstat(descriptor)
        return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)

    def hurry(self) -> None:
        """Do nothing: it never waits."""

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def otlp_json(spans: Sequence[ReadableSpan]) -> bytes:
    """Return spans of one resource and scope as an OTLP/JSON request, on one line."""
    resource = spans[0].resource
    scope = spans[0].instrumentation_scope
    request = {
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
    return json.encode(request)


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
        "flags": _KNOWN,
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
        known["links"] = [_link(link.context) for link in span.links]
    if not span.status.is_unset:
        code = _STATUS[span.status.status_code]
        known["status"] = {"code": code, "message": span.status.description or ""}
    return known


def _link(context: SpanContext) -> dict[str, Any]:
    return {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "flags": _KNOWN | (_REMOTE if context.is_remote else 0),
    }


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
        case list() | tuple():
            return {"arrayValue": {"values": [_value(each) for each in value]}}
        case _:
            return {"stringValue": str(value)}
