"""Spans as text: a tree for each trace, as the console and `drainer why` show it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from drainer.mail.reply import printable

MAX_VALUE = 80
"""Characters of a value."""


class TreeExporter:
    """Prints spans on stderr, events indented below them."""

    def export(self, records: Sequence[ReadableSpan]) -> None:
        """Print the spans of each trace together."""
        os.write(2, "".join(tree_of(records)).encode("utf-8", "backslashreplace"))

    def hurry(self) -> None:
        """Do nothing: it never waits."""

    def close(self) -> None:
        """Do nothing: standard error stays open."""


def tree_of(spans: Sequence[ReadableSpan]) -> Iterator[str]:
    """Yield the lines of a tree for each trace, each ending in LF."""
    traces: dict[int, list[ReadableSpan]] = {}
    for span in sorted(spans, key=lambda each: each.start_time or 0):
        assert span.context is not None  # noqa: S101 - we made it
        traces.setdefault(span.context.trace_id, []).append(span)
    for those in traces.values():
        for span, depth in _nested(those):
            yield from _lines(span, depth)


def _nested(spans: Sequence[ReadableSpan]) -> Iterator[tuple[ReadableSpan, int]]:
    """Yield spans of one trace, each below its parent, with their depth.

    A span whose parent was, or will be, exported at another time is one deep.
    """
    known = {span.context.span_id for span in spans if span.context}
    below: dict[int | None, list[ReadableSpan]] = {}
    for span in spans:
        parent = span.parent.span_id if span.parent else None
        below.setdefault(parent if parent in known else None, []).append(span)
    waiting = [(span, int(bool(span.parent))) for span in reversed(below.get(None, []))]
    while waiting:
        span, depth = waiting.pop()
        yield span, depth
        own = span.context.span_id if span.context else None
        waiting += [(each, depth + 1) for each in reversed(below.get(own, []))]


def _lines(span: ReadableSpan, depth: int) -> Iterator[str]:
    ids = span.context
    assert ids is not None  # noqa: S101 - we made it
    start, end = span.start_time or 0, span.end_time or 0
    indent = "  " * depth
    failed = "" if span.status.is_unset else " ERROR"
    head = f"{indent}{ids.trace_id:032x} {span.name} {(end - start) / 1e6:.1f} ms"
    yield f"{head}{failed} {_words(span.attributes)}\n"
    for event in span.events:
        offset = (event.timestamp - start) / 1e6
        words = _words(event.attributes)
        yield f"{indent}  +{offset:.1f} ms {event.name} {words}\n"


def _words(attributes: Mapping[str, Any] | None) -> str:
    return " ".join(
        f"{key.removeprefix('drainer.')}={printable(str(value), MAX_VALUE)}"
        for key, value in (attributes or {}).items()
    )
