"""Spans as OTLP/protobuf: an ExportTraceServiceRequest, field by field.

The protobuf library takes several times as long for the attributes as for everything
else. So their fields are encoded here, and follow what the library makes of the
span: a reader takes the sum (protobuf, "Encoding", "Last One Wins"). What many spans
share is encoded once.
"""

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

_UNSET = trace_pb2.Status()
_KINDS = trace_pb2.Span.SPAN_KIND_INTERNAL, trace_pb2.Span.SPAN_KIND_CLIENT


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
        self._resource = _field(_FIRST, _join(_FIRST, resource))
        self._scope = _field(_FIRST, scope.SerializeToString())

    def request(self, spans: Iterable[bytes]) -> bytes:
        """Return a request of some encoded spans; little more than their bytes."""
        scope_spans = _field(_SECOND, b"".join((self._scope, *spans)))
        return _field(_FIRST, self._resource + scope_spans)


def encode(span: TraceSpan) -> bytes:
    """Return a span as a field of the ScopeSpans of a request."""
    trace, own, parent = span.place
    start, end = span.times
    plain = trace_pb2.Span(
        trace_id=trace.to_bytes(16),
        span_id=own.to_bytes(8),
        parent_span_id=parent.to_bytes(8) if parent else b"",
        name=span.name,
        kind=_KINDS[span.kind == CLIENT],
        start_time_unix_nano=start * 1000,
        end_time_unix_nano=max(start, end) * 1000,
        flags=KNOWN,
        status=_status(span.words[:MAX_STATUS]) if span.error else _UNSET,
    )
    parts = [plain.SerializeToString()]
    parts += [_join(_ATTRIBUTES, each) for each in span.groups()]
    parts += [_event(each) for each in span.events]
    parts += [_link(each) for each in span.links]
    return _field(_SECOND, b"".join(parts))


def _status(words: str) -> trace_pb2.Status:
    return trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message=words)


def _event(event: SpanEvent) -> bytes:
    name, at, attributes = event
    plain = trace_pb2.Span.Event(name=name, time_unix_nano=at * 1000)
    known = plain.SerializeToString() + _join(_EVENT_ATTRIBUTES, attributes)
    return _field(_EVENTS, known)


@lru_cache
def _link(link: SpanLink) -> bytes:
    trace, span, is_remote = link
    made = trace_pb2.Span.Link(
        trace_id=trace.to_bytes(16),
        span_id=span.to_bytes(8),
        flags=KNOWN | (REMOTE if is_remote else 0),
    )
    return _field(_LINKS, made.SerializeToString())


def _join(tag: bytes, attributes: Attributes) -> bytes:
    if type(attributes) is SharedAttributes:
        return _encode_shared(tag, attributes)
    return _pairs(tag, attributes)


@lru_cache(1024)
def _encode_shared(tag: bytes, attributes: SharedAttributes) -> bytes:
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
