"""The file of JSON lines: a line is never cut, and anybody may rotate it."""

from pathlib import Path

import pytest

from drainer.telemetry.file_exporter import FileExporter
from drainer.telemetry.json_encoder import JsonEncoder
from drainer.telemetry.spans import SpanPlace, TraceSpan
from tests.support.web.collector import spans_of_file

RESOURCE = {"service.name": "drainer"}
SPANS = [
    TraceSpan("message", SpanPlace(1, 9), (10, 20), {"drainer.reply": "250 ok"})
] * 2


def test_a_file_that_was_renamed_is_not_written_any_more(tmp_path: Path) -> None:
    """Whoever rotates logs needs to tell drainer nothing; no line is lost or cut."""
    path, old = tmp_path / "traces.jsonl", tmp_path / "traces.jsonl.1"
    exporter = FileExporter(path, RESOURCE)
    exporter.export(SPANS)
    path.rename(old)
    exporter.export(SPANS)
    exporter.export(SPANS)
    path.unlink()
    exporter.export(SPANS)
    exporter.close()
    assert len(spans_of_file(old)) == len(spans_of_file(path)) == 2
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("end", ['{"half', ""])
def test_a_line_that_was_cut_stays_alone(tmp_path: Path, end: str) -> None:
    """A run died while it wrote: the next line starts on a line of its own."""
    path = tmp_path / "traces.jsonl"
    path.write_text(f"first\n{end}")
    exporter = FileExporter(path, RESOURCE)
    exporter.export(SPANS)
    exporter.close()
    lines = path.read_text().splitlines()
    assert lines[:-1] == ["first", end] if end else ["first"]
    assert f"{lines[-1]}\n".encode() == JsonEncoder(RESOURCE).request(SPANS)
