"""OTLP/JSON: what the official encoder says, field by field."""

from drainer.telemetry.json_encoder import JsonEncoder
from tests.support.web.collector import request_of_json
from tests.support.web.sdk_spans import RESOURCE, SPANS, official_request


def test_a_line_is_what_the_official_encoder_says() -> None:
    """Every type of value, texts that JSON escapes, links, events, an error."""
    line = JsonEncoder(RESOURCE).request(SPANS).decode()
    assert line.index("\n") == len(line) - 1
    assert request_of_json(line) == official_request(SPANS)


def test_no_spans_are_no_request() -> None:
    """Nothing is written for decisions without spans."""
    assert JsonEncoder(RESOURCE).request([]) == b""


def test_equal_values_of_other_types_stay_apart() -> None:
    """1, 1.0 and True are equal in Python, and three values in OTLP."""
    values = {"n": 1, "part": 1.0, "yes": True, "whole": 1}
    line = JsonEncoder(values).request(SPANS)
    for each in (b'{"intValue":"1"}', b'{"doubleValue":1.0}', b'{"boolValue":true}'):
        assert each in line
