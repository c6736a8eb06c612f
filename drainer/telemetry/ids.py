"""Trace and span ids, derived so that attempts hours apart join one trace.

The salt of the ledger is in the ids of messages. So a rehearsal of the same spool, and
another ledger of it, have traces of their own.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from drainer.ledger.records import DecisionKind

_LATELY = 4096
"""Runs and connections whose spans are asked for again and again."""
_OF_ATTEMPT = (DecisionKind.VERDICT.value, DecisionKind.TAKEOVER.value)
_PREFIXED = (DecisionKind.OPERATOR, DecisionKind.BREAKER, DecisionKind.THROTTLE)
_NAMES = {
    DecisionKind.RUN_STARTED.value: "drain.start",
    DecisionKind.HEALTH.value: "health.check",
    DecisionKind.CONNECTION.value: "smtp.connect",
    DecisionKind.ACKNOWLEDGED.value: "source.acknowledge",
}


class TraceIds:
    """The ids of messages of one ledger."""

    def __init__(self, salt: bytes) -> None:
        """Derive them with the ledger's own salt."""
        self._salt = salt
        #: The trace id of a message, by its drainer id: asked for at each of its spans.
        self.trace = lru_cache(_LATELY)(self._trace)

    def _trace(self, message: str) -> int:
        digest = hashlib.blake2b(
            message.encode(), key=self._salt, digest_size=16, person=b"trace"
        )
        return int.from_bytes(digest.digest(), "big") or 1

    def decision(self, row: Mapping[str, Any], message: str) -> tuple[int, int]:
        """Return the trace and the span that show a decision about a message."""
        trace = self.trace(message)
        if is_of_attempt(row):
            return trace, row["attempt"]  # the attempt's own number
        return trace, part_span(root_span(trace), decision_name(row), row["id"])


def run_trace(run: str) -> int:
    """Return the trace id of a run: its own 128-bit id."""
    return int(run, 16) or 1


def root_span(trace: int) -> int:
    """Return the id of a trace's root span: the first half of the trace's id."""
    return trace >> 64 or 1


@lru_cache(_LATELY)
def connection_span(run: str, session: str) -> int:
    """Return the id of the span of a session that a run opened."""
    return _derive(run, "smtp.connect", session)


def part_span(parent: int, name: str, n: int) -> int:
    """Return the id of a span below another one."""
    return _derive(f"{parent:x}", name, str(n))


def derive_trace(kind: str, *parts: object) -> int:
    """Return the id of a trace that belongs to no message and no run."""
    text = "\0".join((kind, *map(str, parts)))
    return int(hashlib.sha256(text.encode()).hexdigest()[:32], 16) or 1


def _derive(*parts: str) -> int:
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") or 1


def is_of_attempt(row: Mapping[str, Any]) -> bool:
    """Return whether the span of an attempt shows this decision."""
    return bool(row["attempt"]) and row["kind"] in _OF_ATTEMPT


def decision_name(row: Mapping[str, Any]) -> str:
    """Return the name of the span of a decision that no attempt's span shows."""
    kind, rule = row["kind"], str(row["rule"])
    if kind in _NAMES:
        return _NAMES[kind]
    if kind == DecisionKind.BOUNCE and rule.startswith("report-"):
        return "bounce.send"
    if kind == DecisionKind.BOUNCE:
        return "bounce.decide"
    if kind == DecisionKind.OPERATOR and rule.startswith("control-"):
        return f"control.{rule.removeprefix('control-')}"
    if kind in _PREFIXED and (row["message"] is None or kind == DecisionKind.OPERATOR):
        return f"{kind}.{rule.removeprefix(f'{kind}-')}"
    return "classify"
