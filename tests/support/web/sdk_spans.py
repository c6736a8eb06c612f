"""Spans as the SDK has them, and what its own encoder makes of them."""

from collections.abc import Iterable
from typing import Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from drainer.telemetry.spans import (
    CLIENT,
    SCOPE,
    SpanEvent,
    SpanLink,
    SpanPlace,
    TraceSpan,
    make_resource,
)

RESOURCE: Final = make_resource("0" * 32, rehearsal=True).attributes
SPANS: Final = [
    TraceSpan(
        "attempt",
        SpanPlace(1, 2, 9),
        (10, 20),
        {"text": '\u4e2d\x1b"\\', "whole": 2**40, "less": -7, "none": 0, "part": 0.25,
         "yes": True, "no": False, "list": ("a", "b"), "numbers": (1, 2)},
        CLIENT,
        events=[
            SpanEvent("smtp.mail", 12, {"drainer.smtp.code": 250}),
            SpanEvent("smtp.dot", 15, {}),
        ],
        links=[SpanLink(5, 6), SpanLink(3, 4, is_remote=True)],
        error="held",
        words="550 no " * 100,
    ),
    TraceSpan("attempt", SpanPlace(1, 3, 9), (10, 20), {"a": 1}, error="x"),
    TraceSpan("message", SpanPlace(2**128 - 1, 2**64 - 1), (1_700_000_000_123_456, 7),
         {}),
]  # fmt: skip
"""With everything, with an error without words, and with nothing and a bad clock."""


def official_request(spans: Iterable[TraceSpan]) -> ExportTraceServiceRequest:
    """Return what the SDK's encoder makes of the same spans."""
    return encode_spans([_official(span) for span in spans])


def _official(span: TraceSpan) -> ReadableSpan:
    trace, own, parent = span.place
    error = {"error.type": span.error} if span.error else {}
    events = [Event(name, values, at * 1000) for name, at, values in span.events]
    links = [
        Link(SpanContext(other, target, is_remote=is_remote))
        for other, target, is_remote in span.links
    ]
    return ReadableSpan(
        span.name,
        context=SpanContext(trace, own, is_remote=False),
        parent=SpanContext(trace, parent, is_remote=False) if parent else None,
        resource=Resource(RESOURCE),
        attributes={**span.attributes, **error},
        events=events,
        links=links,
        kind=SpanKind.CLIENT if span.kind == CLIENT else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR, span.words[:300]) if span.error else Status(),
        start_time=span.times[0] * 1000,
        end_time=max(span.times) * 1000,
        instrumentation_scope=InstrumentationScope(*SCOPE),
    )
