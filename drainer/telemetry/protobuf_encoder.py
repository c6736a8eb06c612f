"""Spans as OTLP/protobuf: an ExportTraceServiceRequest, field by field.

To make an object of the protobuf library for each attribute takes five times as long as
everything else of an export. So a span is put together of encoded fields: of messages
in a row, a reader takes the sum (protobuf, "Encoding", "Last One Wins"). The same few
attributes come with every message, so that their encoded form is kept.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
)
from opentelemetry.proto.trace.v1 import trace_pb2

from drainer.telemetry.spans import (
    CLIENT,
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

_PLACE = struct.Struct(">2s16s2s8s")
"""trace_id and span_id, with their tags and lengths."""
_TIMES = struct.Struct("<cQcQ")
"""start_time_unix_nano and end_time_unix_nano, with their tags."""
_TIME = struct.Struct("<cQ")
_PARENT = b"\x22\x08"


def _tag(field: int) -> bytes:
    """Return the tag of a field that has a length."""
    return bytes(((field << 3) | 2,))


_ATTRIBUTES, _EVENTS, _LINKS = map(_tag, (9, 11, 13))
_EVENT_ATTRIBUTES = _tag(3)
_FIRST, _SECOND = map(_tag, (1, 2))


class ProtobufEncoder:
    """Encodes the spans of one resource."""

    def __init__(self, resource: Attributes) -> None:
        """Put these attributes of a resource into every request."""
        name, version = SCOPE
        scope = InstrumentationScope(name=name, version=version)
        self._resource = _field(_FIRST, _joined(_FIRST, resource))
        self._scope = _field(_FIRST, scope.SerializeToString())

    def request(self, spans: Iterable[bytes]) -> bytes:
        """Return a request of some encoded spans; little more than their bytes."""
        scope_spans = _field(_SECOND, b"".join((self._scope, *spans)))
        return _field(_FIRST, self._resource + scope_spans)


def encode(span: TraceSpan) -> bytes:
    """Return a span as a field of the ScopeSpans of a request."""
    trace, own, parent = span.place
    start, end = span.times
    parts = [
        _PLACE.pack(b"\x0a\x10", trace.to_bytes(16), b"\x12\x08", own.to_bytes(8)),
        _TIMES.pack(b"\x39", start * 1000, b"\x41", max(start, end) * 1000),
        _rest(span.name, span.kind, span.words[:MAX_STATUS] if span.error else None),
    ]
    parts += [_joined(_ATTRIBUTES, each) for each in span.groups()]
    if parent:
        parts.append(_PARENT + parent.to_bytes(8))
    parts += [_event(each) for each in span.events]
    parts += [_link(each) for each in span.links]
    return _field(_SECOND, b"".join(parts))


@lru_cache(1024)
def _rest(name: str, kind: int, words: str | None) -> bytes:
    """Return name, kind, flags and status; no words are no error."""
    status = trace_pb2.Status()
    if words is not None:
        status.code, status.message = status.STATUS_CODE_ERROR, words
    kinds = trace_pb2.Span.SPAN_KIND_INTERNAL, trace_pb2.Span.SPAN_KIND_CLIENT
    rest = trace_pb2.Span(
        name=name, kind=kinds[kind == CLIENT], flags=KNOWN, status=status
    )
    return bytes(rest.SerializeToString())


def _event(event: SpanEvent) -> bytes:
    name, at, attributes = event
    time = _TIME.pack(b"\x09", at * 1000)
    return _field(_EVENTS, time + _name(name) + _joined(_EVENT_ATTRIBUTES, attributes))


@lru_cache
def _name(event: str) -> bytes:
    return _field(_SECOND, event.encode())


@lru_cache
def _link(link: SpanLink) -> bytes:
    trace, span, is_remote = link
    made = trace_pb2.Span.Link(
        trace_id=trace.to_bytes(16),
        span_id=span.to_bytes(8),
        flags=KNOWN | (REMOTE if is_remote else 0),
    )
    return _field(_LINKS, made.SerializeToString())


def _joined(tag: bytes, attributes: Attributes) -> bytes:
    """Return attributes as fields with this tag."""
    if type(attributes) is SharedAttributes:
        return _shared(tag, attributes)
    return _pairs(tag, attributes)


@lru_cache(1024)
def _shared(tag: bytes, attributes: SharedAttributes) -> bytes:
    return _pairs(tag, attributes)


def _pairs(tag: bytes, attributes: Attributes) -> bytes:
    fields = []
    for key, value in attributes.items():
        if type(value) is str:  # most are
            known = _field(_FIRST, value.encode())
        else:
            known = _any(value).SerializeToString()
        fields.append(_field(tag, _key(key) + _field(_SECOND, known)))
    return b"".join(fields)


@lru_cache
def _key(key: str) -> bytes:
    return _field(_FIRST, key.encode())


def _any(value: Any) -> AnyValue:  # noqa: ANN401
    match value:
        case str():
            return AnyValue(string_value=value)
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case _:
            return AnyValue(array_value=ArrayValue(values=map(_any, value)))


def _field(tag: bytes, data: bytes) -> bytes:
    return tag + _varint(len(data)) + data


@lru_cache(4096)
def _varint(number: int) -> bytes:
    """Return a length: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:  # noqa: PLR2004
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
