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
    return sorted(found, key=_begun)


def tree(spans: Iterable[Span]) -> Iterator[str]:
    """Yield the lines of the tree; a span whose parent is not there is a root."""
    spans = list(spans)
    ids = {span["spanId"] for span in spans}
    children: dict[str, list[Span]] = {}
    for span in spans:
        parent = span.get("parentSpanId", "")
        children.setdefault(parent if parent in ids else "", []).append(span)
    for root in children.get("", []):
        yield _line(root, _begun(root))
        yield from _below(root, children, "", _begun(root))


def _below(
    span: Span, children: dict[str, list[Span]], indent: str, start: int
) -> Iterator[str]:
    below = children.get(span["spanId"], [])
    # An attempt that did not simply deliver has its stages as spans and as events.
    events = [e for e in span.get("events", []) if not below or e["name"] == "classify"]
    items = sorted([*below, *events], key=_begun)
    for number, item in enumerate(items, 1):
        last = number == len(items)
        line = _line(item, start) if "spanId" in item else _event(item, start)
        yield f"{indent}{'└─ ' if last else '├─ '}{line}"
        if "spanId" in item:
            deeper = indent + ("   " if last else "│  ")
            yield from _below(item, children, deeper, start)


def _begun(item: Span) -> int:
    return int(item.get("startTimeUnixNano") or item["timeUnixNano"])


def _line(span: Span, start: int) -> str:
    begun, ended = _begun(span), int(span["endTimeUnixNano"])
    mark = " ✗" if span["status"].get("code") == 2 else ""  # STATUS_CODE_ERROR
    offset, took = (begun - start) / 1e6, (ended - begun) / 1e6
    words = _words(span)
    return f"{span['name']}{mark}  +{offset:.0f} ms, took {took:.1f} ms{words}"


def _event(event: Span, start: int) -> str:
    offset = (_begun(event) - start) / 1e6
    return f"· {event['name']}  +{offset:.0f} ms{_words(event)}"


def _words(item: Span) -> str:
    """Return the attributes that tell most, shortened."""
    known = {
        each["key"].removeprefix("drainer."): next(iter(each["value"].values()))
        for each in item.get("attributes", [])
    }
    keys = ("native_id", "recipient", "verdict", "rule", "reply")
    shown = [str(known[key]) for key in keys if known.get(key)]
    return "".join(f"  {text[:72]}" for text in shown)
