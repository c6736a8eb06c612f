"""Trace and span ids, derived so that attempts hours apart join one trace."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from opentelemetry.trace import SpanContext, TraceFlags

from drainer.ledger.records import DecisionKind

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_LATELY = 4096
"""Messages and runs whose spans are asked for again and again."""


def trace_of(id_: str) -> int:
    """Return the trace id of a message or a run: its own 128-bit id."""
    return int(id_, 16) or 1


def _derived(*parts: str) -> int:
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") or 1


@lru_cache(_LATELY)
def message_span(message: str) -> int:
    """Return the id of a message's root span."""
    return _derived("message", message)


@lru_cache(_LATELY)
def run_span(run: str) -> int:
    """Return the id of a run's root span."""
    return _derived("drain", run)


def attempt_span(attempt: int) -> int:
    """Return the id of an attempt's span: the attempt's own number."""
    return attempt


def part_span(parent: int, name: str, n: int) -> int:
    """Return the id of a span below another one."""
    return _derived(f"{parent:x}", name, str(n))


def order_of(n: int) -> str:
    """Return the id that replaces a run's when an override belongs to no run."""
    return hashlib.sha256(f"order\0{n}".encode()).hexdigest()[:32]


def decision_name(row: Mapping[str, Any]) -> str:
    """Return the name of the span of a decision that no attempt's span shows."""
    match row["kind"]:
        case DecisionKind.OPERATOR:
            return str(row["rule"]).replace("-", ".", 1)
        case DecisionKind.ACKNOWLEDGED:
            return "source.acknowledge"
        case DecisionKind.BOUNCE if str(row["rule"]).startswith("report-"):
            return "bounce.send"
        case _:
            return "classify"


def decision_span(row: Mapping[str, Any], message: str) -> int:
    """Return the id of the span that shows a decision about a message."""
    if row["attempt"] and row["kind"] == DecisionKind.VERDICT:
        return attempt_span(row["attempt"])
    return part_span(message_span(message), decision_name(row), row["id"])


def context(trace: int, span: int) -> SpanContext:
    """Return a sampled span context."""
    return SpanContext(
        trace_id=trace,
        span_id=span,
        is_remote=False,
        trace_flags=_SAMPLED,
    )
