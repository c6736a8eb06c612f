"""Committed decisions -> spans. Pure: rows in, ReadableSpans out.

A message has one trace for life, whose id is its own; the root span `message` is
made once, when the last recipient is final. A run has a trace of its own.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from msgspec import Struct
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from drainer import __version__
from drainer.ledger.columns import from_json, to_json
from drainer.ledger.records import WATCH_ENDED, DecisionKind
from drainer.telemetry import names
from drainer.telemetry.ids import (
    attempt_span,
    context,
    decision_name,
    decision_span,
    message_span,
    order_of,
    part_span,
    run_span,
    trace_of,
)

Row = Mapping[str, Any]
_SCOPE = InstrumentationScope("drainer", __version__)
_RESOURCE = Resource({"service.name": "drainer", "service.version": __version__})
_UNSET = Status()
_ROOTS = {DecisionKind.RUN_ENDED.value: "drain", WATCH_ENDED: "watch"}
"""The span of all that a run or a watch did, made at its end, by rule."""
_SENT_TO = names.EVIDENCE + "sent_to"
_OPENING = ("ehlo", "starttls", "auth")


class SpanFacts(Struct, frozen=True, kw_only=True):
    """What the rows refer to."""

    #: By seq, as all that refers to a message.
    messages: Mapping[int, Row]
    attempts: Mapping[int, Row]
    #: (message, n) -> forward-path.
    recipients: Mapping[tuple[int, int], str]
    #: Decisions that made the last recipient of their message final.
    finishing: frozenset[int]
    runs: Mapping[str, Row]


class SpanProjection:
    """Makes spans; knows how addresses are shown."""

    def __init__(self, salt: bytes, *, plain: bool) -> None:
        """Hash addresses with the ledger's own key unless ``plain``."""
        self._salt = salt
        self._plain = plain

    def address(self, mailbox: str) -> str:
        """Return how a mailbox is shown."""
        if self._plain or not mailbox:
            return mailbox or "<>"
        digest = hashlib.blake2b(mailbox.encode(), key=self._salt, digest_size=8)
        return digest.hexdigest()

    def spans(
        self, decisions: Iterable[Row], facts: SpanFacts
    ) -> Iterator[ReadableSpan]:
        """Yield the spans of some decisions, in the order of the ledger."""
        attempts: dict[int, list[Row]] = {}
        for row in decisions:
            if row["attempt"] and row["kind"] == DecisionKind.VERDICT:
                attempts.setdefault(row["attempt"], []).append(row)
            elif row["message"]:
                yield self._decision(row, facts)
            elif not row["run"]:
                yield self._order(row, facts)
            else:
                yield self._run_part(row, facts)
                yield from _connection_parts(row)
            if row["id"] in facts.finishing:
                yield self._message(facts.messages[row["message"]], row["at"])
        for attempt, rows in attempts.items():
            yield from self._attempt(facts.attempts[attempt], rows, facts)

    # --- one message

    def _message(self, row: Row, ended: int) -> ReadableSpan:
        attributes = {
            names.MESSAGE_ID: row["id"],
            names.NATIVE_ID: row["native_id"],
            names.SOURCE: row["source"],
            names.QUEUE: row["queue"],
            names.SIZE: row["size"],
            names.SENDER: self.address(row["reverse_path"]),
        }
        return _span(
            "message",
            trace=trace_of(row["id"]),
            span=message_span(row["id"]),
            times=(row["scanned"], ended),
            attributes=attributes,
        )

    def _attempt(
        self, attempt: Row, rows: list[Row], facts: SpanFacts
    ) -> Iterator[ReadableSpan]:
        message = facts.messages[attempt["message"]]["id"]
        start, end = attempt["started"], attempt["ended"]
        stages = from_json(attempt["stages"] or "[]")
        delivered = all(row["verdict"] == "deliver" for row in rows)
        events = [
            _event(_stage_name(name), start + offset, {names.REPLY: reply})
            for name, offset, reply in stages
        ]
        if len(rows) > 1:
            events += [
                _event("classify", row["at"], self._attributes(row, facts))
                for row in rows
            ]
        trace, span = trace_of(message), attempt_span(attempt["id"])
        yield _span(
            "attempt",
            trace=trace,
            span=span,
            parent=message_span(message),
            times=(start, end),
            attributes={
                names.MESSAGE_ID: message,
                names.SERVER: attempt["connection"],
                names.RUN: attempt["run"],
            }
            | ({} if len(rows) > 1 else self._attributes(rows[0], facts)),
            events=events,
            kind=SpanKind.CLIENT,
            link=attempt["run"],
            failed="" if delivered else rows[0]["reply"],
        )
        if not delivered:
            yield from _stage_spans(trace, span, start, stages)

    def _attributes(self, row: Row, facts: SpanFacts) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            names.RULE: row["rule"],
            names.VERDICT: row["verdict"],
            names.REPLY: row["reply"],
        }
        if row["n"] is not None:
            path = facts.recipients.get((row["message"], row["n"]), "")
            attributes[names.RECIPIENT] = self.address(path)
        attributes.update(_evidence(row["evidence"]))
        if _SENT_TO in attributes:  # an address, to be hashed like the others
            attributes[_SENT_TO] = self.address(attributes[_SENT_TO])
        return attributes

    def _decision(self, row: Row, facts: SpanFacts) -> ReadableSpan:
        """Return a decision outside of an attempt as a span of its own."""
        message = facts.messages[row["message"]]["id"]
        return _span(
            decision_name(row),
            trace=trace_of(message),
            span=decision_span(row, message),
            parent=message_span(message),
            times=(row["at"], row["at"]),
            attributes={names.MESSAGE_ID: message} | self._attributes(row, facts),
            link=row["run"],
        )

    def _order(self, row: Row, facts: SpanFacts) -> ReadableSpan:
        """Return an override of a route as a span: a trace of its own."""
        id_ = order_of(row["id"])
        return _span(
            decision_name(row),
            trace=trace_of(id_),
            span=run_span(id_),
            times=(row["at"], row["at"]),
            attributes=self._attributes(row, facts),
        )

    # --- one run

    def _run_part(self, row: Row, facts: SpanFacts) -> ReadableSpan:
        run = row["run"]
        attributes = self._attributes(row, facts) | {names.RUN: run}
        if root := _ROOTS.get(row["rule"]):
            begun = facts.runs[run]["started"] if run in facts.runs else row["at"]
            started = attributes.pop(names.EVIDENCE + "started", begun)
            return _span(
                root,
                trace=trace_of(run),
                span=run_span(run),
                times=(int(started), row["at"]),
                attributes=attributes,
            )
        kinds = {
            DecisionKind.WATCH: row["rule"].replace("-", ".", 1),
            DecisionKind.HEALTH: "health.check",
            DecisionKind.CONNECTION: "smtp.connect",
            DecisionKind.BREAKER: row["rule"].replace("-", ".", 1),
            DecisionKind.THROTTLE: row["rule"].replace("-", ".", 1),
        }
        name = str(kinds.get(DecisionKind(row["kind"]), row["kind"]))
        seconds = float(attributes.get(names.EVIDENCE + "seconds", 0.0))
        if row["kind"] == DecisionKind.CONNECTION:
            steps = from_json(row["evidence"]).get("steps", [])
            seconds = sum(micros for _, micros, _ in steps) / 1e6
        parent = run_span(run)
        return _span(
            name,
            trace=trace_of(run),
            span=part_span(parent, name, row["id"]),
            parent=parent,
            times=(row["at"] - int(seconds * 1e6), row["at"]),
            attributes=attributes,
            failed=row["reply"] if row["verdict"] in ("stop", "fail") else "",
        )


@lru_cache(1024)
def _evidence(text: str) -> Mapping[str, Any]:
    """Return a decision's evidence as attributes; the same comes often."""
    return {
        names.STATE if key == "state" else names.EVIDENCE + key: value
        if isinstance(value, str | int | float | bool)
        else to_json(value)
        for key, value in (from_json(text) if text else {}).items()
    }


def _connection_parts(row: Row) -> Iterator[ReadableSpan]:
    """Yield EHLO, STARTTLS and AUTH of a session as spans below `smtp.connect`."""
    if row["kind"] != DecisionKind.CONNECTION:
        return
    steps = from_json(row["evidence"]).get("steps", [])
    parent = part_span(run_span(row["run"]), "smtp.connect", row["id"])
    at = row["at"] - sum(micros for _, micros, _ in steps)
    for n, (stage, micros, answer) in enumerate(steps):
        if stage in _OPENING:
            yield _span(
                f"smtp.{stage}",
                trace=trace_of(row["run"]),
                span=part_span(parent, stage, n),
                parent=parent,
                times=(at, at + micros),
                attributes={names.REPLY: answer},
                kind=SpanKind.CLIENT,
            )
        at += micros


def _stage_spans(
    trace: int, parent: int, start: int, stages: list[tuple[str, int, str]]
) -> Iterator[ReadableSpan]:
    before = start
    for n, (name, offset, reply) in enumerate(stages):
        if "." in name:  # one of ours, over before the attempt started: an event
            continue
        end = start + offset
        yield _span(
            _stage_name(name),
            trace=trace,
            span=part_span(parent, name, n),
            parent=parent,
            times=(min(before, end), end),
            attributes={names.REPLY: reply},
            kind=SpanKind.CLIENT,
            failed="" if reply[:1] in ("2", "3") else reply,
        )
        before = end


def _stage_name(stage: str) -> str:
    return stage if "." in stage else f"smtp.{stage}"


def _event(name: str, at: int, attributes: dict[str, Any]) -> Event:
    return Event(name, attributes=attributes, timestamp=at * 1000)


@lru_cache
def _link(run: str) -> Link:
    return Link(context(trace_of(run), run_span(run)))


def _span(  # noqa: PLR0913 - a span has that many parts
    name: str,
    *,
    trace: int,
    span: int,
    times: tuple[int, int],
    attributes: dict[str, Any],
    parent: int | None = None,
    events: list[Event] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    link: str = "",
    failed: str = "",
) -> ReadableSpan:
    return ReadableSpan(
        name,
        context=context(trace, span),
        parent=context(trace, parent) if parent else None,
        resource=_RESOURCE,
        attributes=attributes,
        events=events or [],
        links=[_link(link)] if link else [],
        kind=kind,
        status=Status(StatusCode.ERROR, failed[:300]) if failed else _UNSET,
        start_time=times[0] * 1000,
        end_time=max(times) * 1000,
        instrumentation_scope=_SCOPE,
    )
