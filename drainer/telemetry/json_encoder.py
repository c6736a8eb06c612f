"""Spans as OTLP/JSON: ids in hex, 64-bit numbers as texts (OTLP 1.5, "JSON Protobuf").

A collector's file exporter writes it, and its file receiver reads it. What many spans
share is encoded once.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from msgspec import json

from drainer.telemetry.spans import (
    ERROR,
    KNOWN,
    MAX_STATUS,
    REMOTE,
    SCOPE,
    Attributes,
    SharedAttributes,
    SpanEvent,
    SpanLink,
    TraceSpan,
)

_TAIL = "]}]}]}\n"


class JsonEncoder:
    """Encodes the spans of one resource."""

    def __init__(self, resource: Attributes) -> None:
        """Put these attributes of a resource into every request."""
        name, version = map(_text, SCOPE)
        self._head = (
            f'{{"resourceSpans":[{{"resource":{{"attributes":[{_join(resource)}]}},'
            f'"scopeSpans":[{{"scope":{{"name":{name},"version":{version}}},"spans":['
        )

    def request(self, spans: Iterable[TraceSpan]) -> bytes:
        """Return an ExportTraceServiceRequest of some spans as a line; b"" of none."""
        encoded = ",".join(map(_span, spans))
        return f"{self._head}{encoded}{_TAIL}".encode() if encoded else b""


def _span(span: TraceSpan) -> str:
    trace, own, parent = span.place
    start, end = span.times
    rest = f',"parentSpanId":"{parent:016x}"' if parent else ""
    if span.events:
        rest += f',"events":[{",".join([_event(each) for each in span.events])}]'
    if span.links:
        rest += f',"links":[{",".join([_link(each) for each in span.links])}]'
    status = ""
    if span.error:
        status = f'"code":{ERROR},"message":{_text(span.words[:MAX_STATUS])}'
    attributes = ",".join(filter(None, map(_join, span.groups())))
    return (
        f'{{"traceId":"{trace:032x}","spanId":"{own:016x}","name":{_name(span.name)},'
        f'"kind":{span.kind},"startTimeUnixNano":"{start}000",'
        f'"endTimeUnixNano":"{max(start, end)}000",'
        f'"attributes":[{attributes}],'
        f'"status":{{{status}}},"flags":{KNOWN}{rest}}}'
    )


def _event(event: SpanEvent) -> str:
    name, at, attributes = event
    return (
        f'{{"timeUnixNano":"{at}000","name":{_name(name)},'
        f'"attributes":[{_join(attributes)}]}}'
    )


@lru_cache
def _link(link: SpanLink) -> str:
    trace, span, is_remote = link
    flags = KNOWN | (REMOTE if is_remote else 0)
    return f'{{"traceId":"{trace:032x}","spanId":"{span:016x}","flags":{flags}}}'


@lru_cache
def _name(name: str) -> str:
    return _text(name)


def _join(attributes: Attributes) -> str:
    if type(attributes) is SharedAttributes:
        return _encode_shared(attributes)
    return _pairs(attributes)


@lru_cache(1024)
def _encode_shared(attributes: SharedAttributes) -> str:
    return _pairs(attributes)


def _pairs(attributes: Attributes) -> str:
    return ",".join(
        [
            f'{{"key":{_name(key)},"value":{_value(value)}}}'
            for key, value in attributes.items()
        ]
    )


def _value(value: Any) -> str:  # noqa: ANN401
    if type(value) is str:  # the first, for most are
        return f'{{"stringValue":{_text(value)}}}'
    match value:
        case bool():
            return f'{{"boolValue":{_text(value)}}}'
        case int():
            return f'{{"intValue":"{value}"}}'
        case float():
            return f'{{"doubleValue":{_text(value)}}}'
        case _:
            values: Sequence[Any] = value
            return f'{{"arrayValue":{{"values":[{",".join(map(_value, values))}]}}}}'


def _text(value: object) -> str:
    return json.encode(value).decode()
