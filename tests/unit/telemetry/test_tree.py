"""The console exporter: a trace as a tree."""

import pytest

from drainer.telemetry.spans import SpanPlace, TraceSpan
from drainer.telemetry.tree import TreeExporter

MESSAGE, OTHER = 0xA0, 0xB0


def test_spans_stand_below_their_parents(capfd: pytest.CaptureFixture[str]) -> None:
    """By trace, then by time, indented as deep as they lie; whatever came first."""
    spans = [
        TraceSpan(name, SpanPlace(trace, span, parent), (at, at + 1), {})
        for name, trace, span, parent, at in (
            ("smtp.rcpt", MESSAGE, 3, 2, 30),
            ("attempt", MESSAGE, 2, 1, 20),
            ("elsewhere", OTHER, 9, 8, 25),
            ("smtp.mail", MESSAGE, 4, 2, 21),
            ("message", MESSAGE, 1, 0, 10),
        )
    ]
    TreeExporter().export(spans)
    lines = [line.rstrip() for line in capfd.readouterr().err.splitlines()]
    told = [(len(x) - len(x.lstrip()), x.split()[1]) for x in lines]
    assert told == [
        (0, "message"),
        (2, "attempt"),
        (4, "smtp.mail"),
        (4, "smtp.rcpt"),
        (2, "elsewhere"),
    ]
