"""Spans as text: a tree for each trace, as the console and `drainer why` show it."""

import os
from collections.abc import Iterable, Iterator, Sequence

from drainer.mail.reply import printable
from drainer.telemetry.projector import Exporter
from drainer.telemetry.spans import Attributes, TraceSpan

MAX_VALUE = 80
"""Characters of a value."""


class TreeExporter(Exporter[TraceSpan]):
    """Prints spans on stderr, events indented below them."""

    def export(self, records: Iterable[TraceSpan]) -> None:
        """Print the spans of each trace together."""
        os.write(2, "".join(tree_of(records)).encode("utf-8", "backslashreplace"))


def tree_of(spans: Iterable[TraceSpan]) -> Iterator[str]:
    """Yield the lines of a tree for each trace, each ending in LF."""
    traces: dict[int, list[TraceSpan]] = {}
    for span in sorted(spans, key=lambda each: each.times[0]):
        traces.setdefault(span.place.trace, []).append(span)
    for those in traces.values():
        for span, depth in _nest(those):
            yield from _lines(span, depth)


def _nest(spans: Sequence[TraceSpan]) -> Iterator[tuple[TraceSpan, int]]:
    """Yield spans of one trace, each below its parent, with their depth.

    A span whose parent was, or will be, exported at another time is one deep.
    """
    known = {span.place.span for span in spans}
    below: dict[int, list[TraceSpan]] = {}
    for span in spans:
        parent = span.place.parent
        below.setdefault(parent if parent in known else 0, []).append(span)
    waiting = [
        (span, int(bool(span.place.parent))) for span in reversed(below.get(0, []))
    ]
    while waiting:
        span, depth = waiting.pop()
        yield span, depth
        waiting += [
            (each, depth + 1) for each in reversed(below.get(span.place.span, []))
        ]


def _lines(span: TraceSpan, depth: int) -> Iterator[str]:
    start, end = span.times
    indent = "  " * depth
    failed = " ERROR" if span.error else ""
    took = max(0, end - start) / 1000
    head = f"{indent}{span.place.trace:032x} {span.name} {took:.1f} ms"
    yield f"{head}{failed} {_words(span.groups())}\n"
    for event in span.events:
        offset = (event.at - start) / 1000
        words = _words([event.attributes])
        yield f"{indent}  +{offset:.1f} ms {event.name} {words}\n"


def _words(groups: Sequence[Attributes]) -> str:
    return " ".join(
        f"{key.removeprefix('drainer.')}={printable(_text(value), MAX_VALUE)}"
        for attributes in groups
        for key, value in attributes.items()
    )


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
