"""The file of JSON lines: as the official protobufs read it, and rotated by anybody."""

from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind

from drainer.telemetry.file_exporter import FileExporter, otlp_json
from drainer.telemetry.ids import context
from drainer.telemetry.spans import (
    SpanDetails,
    SpanMaker,
    SpanPlace,
    event,
    make_resource,
)
from tests.support.web.collector import request_of_json, spans_of_file

MAKE = SpanMaker(make_resource("0" * 32, rehearsal=True))
REMOTE = SpanContext(3, 4, is_remote=True)


def spans() -> list[ReadableSpan]:
    """Return a span with everything, and one with nothing."""
    values = {"text": '\u4e2d\x1b"', "whole": 2**40, "part": 0.25, "yes": True,
              "list": ["a", "b"], "numbers": [1, 2]}  # fmt: skip
    details = SpanDetails(
        kind=SpanKind.CLIENT,
        events=[event("smtp.mail", 12, {"drainer.smtp.code": 250})],
        links=[Link(context(5, 6)), Link(REMOTE)],
        error="held",
        words="550 no",
    )
    return [
        MAKE("attempt", SpanPlace(1, 2, 9), (10, 20), values, details),
        MAKE("message", SpanPlace(1, 9), (10, 20), {}),
    ]


def test_a_line_is_what_the_official_encoder_says() -> None:
    """The same message, field by field."""
    assert request_of_json(otlp_json(spans()).decode()) == encode_spans(spans())


def test_a_file_that_was_renamed_is_not_written_any_more(tmp_path: Path) -> None:
    """Whoever rotates logs needs to tell drainer nothing; no line is lost or cut."""
    path, old = tmp_path / "traces.jsonl", tmp_path / "traces.jsonl.1"
    exporter = FileExporter(path)
    exporter.export(spans())
    path.rename(old)
    exporter.export(spans())
    exporter.export(spans())
    path.unlink()
    exporter.export(spans())
    exporter.close()
    assert len(spans_of_file(old)) == len(spans_of_file(path)) == 2
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("end", ['{"half', ""])
def test_a_line_that_was_cut_stays_alone(tmp_path: Path, end: str) -> None:
    """A run died while it wrote: the next line starts on a line of its own."""
    path = tmp_path / "traces.jsonl"
    path.write_text(f"first\n{end}")
    exporter = FileExporter(path)
    exporter.export(spans())
    exporter.close()
    lines = path.read_text().splitlines()
    assert lines[:-1] == ["first", end] if end else ["first"]
    assert request_of_json(lines[-1]) == encode_spans(spans())
