"""A trace as a tree, from the OTLP-JSON file that ``traces = "file:PATH"`` writes."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Span = dict[str, Any]


def spans_of(path: Path, trace_id: str) -> list[Span]:
    """Return the spans of one trace, the earliest first."""
    found = [
        span
        for line in path.read_text("utf-8").splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
        if span["traceId"] == trace_id
    ]
    return sorted(found, key=lambda span: (int(span["startTimeUnixNano"]), span["spanId"]))


def tree(spans: Iterable[Span]) -> Iterator[str]:
    """Yield the lines of the tree; a span whose parent is not there is a root."""
    spans = list(spans)
    ids = {span["spanId"] for span in spans}
    children: dict[str, list[Span]] = {}
    for span in spans:
        parent = span.get("parentSpanId", "")
        children.setdefault(parent if parent in ids else "", []).append(span)
    for root in children.get("", []):
        yield _line(root, int(root["startTimeUnixNano"]))
        yield from _below(root, children, "", int(root["startTimeUnixNano"]))


def _below(
    span: Span, children: dict[str, list[Span]], indent: str, start: int
) -> Iterator[str]:
    below = children.get(span["spanId"], [])
    events = [] if below else span.get("events", [])
    items: list[tuple[Span, bool]] = [(event, False) for event in events]
    items += [(child, True) for child in below]
    for number, (item, is_span) in enumerate(items, 1):
        last = number == len(items)
        line = _line(item, start) if is_span else _event(item, start)
        yield f"{indent}{'└─ ' if last else '├─ '}{line}"
        if is_span:
            deeper = indent + ("   " if last else "│  ")
            yield from _below(item, children, deeper, start)


def _line(span: Span, start: int) -> str:
    begun, ended = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
    mark = " ✗" if span["status"].get("code") == 2 else ""  # STATUS_CODE_ERROR
    offset, took = (begun - start) / 1e6, (ended - begun) / 1e6
    words = _words(span)
    return f"{span['name']}{mark}  +{offset:.0f} ms, took {took:.1f} ms{words}"


def _event(event: Span, start: int) -> str:
    offset = (int(event["timeUnixNano"]) - start) / 1e6
    return f"· {event['name']}  +{offset:.0f} ms{_words(event)}"


def _words(item: Span) -> str:
    """Return the attributes that tell most, shortened."""
    known = {
        each["key"].removeprefix("drainer."): next(iter(each["value"].values()))
        for each in item.get("attributes", [])
    }
    shown = [
        str(known[key]) for key in ("verdict", "rule", "reply", "native_id") if known.get(key)
    ]
    return "".join(f"  {text[:72]}" for text in shown)
