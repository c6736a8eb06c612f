"""OTLP/protobuf: what the official encoder says, for spans of every size."""

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

from drainer.telemetry.protobuf_encoder import ProtobufEncoder, encode
from drainer.telemetry.spans import SpanEvent, SpanPlace, TraceSpan
from tests.support.web.sdk_spans import RESOURCE, SPANS, official_request


def parsed(spans: list[TraceSpan]) -> ExportTraceServiceRequest:
    """Encode spans, and read them with the official library."""
    request = ExportTraceServiceRequest()
    request.ParseFromString(ProtobufEncoder(RESOURCE).request(map(encode, spans)))
    return request


def test_a_request_is_what_the_official_encoder_says() -> None:
    """Every type of value, links, events, an error."""
    assert parsed(SPANS) == official_request(SPANS)


@pytest.mark.parametrize("size", [1, 126, 127, 128, 129, 16_383, 16_384, 3_000_000])
def test_a_length_of_any_size_is_read_again(size: int) -> None:
    """Lengths have seven bits a byte: each limit, of values, events and spans."""
    events = [SpanEvent("smtp.dot", 5, {"drainer.reply": "y" * size})]
    place, values = SpanPlace(2**127, 2**63), {"drainer.reply": "x" * size}
    spans = [TraceSpan("attempt", place, (1, 2), values, events=events)]
    assert parsed(spans) == official_request(spans)
