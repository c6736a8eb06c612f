"""The spans of a run: `drain`, health checks, connections, throttle, breaker; a watch.

A run has a trace of its own. So has every period that a watch spends in one state.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from drainer.ledger.columns import from_json
from drainer.ledger.records import RUN_DIED, DecisionKind
from drainer.telemetry import names
from drainer.telemetry.facts import Row, SpanFacts
from drainer.telemetry.ids import (
    connection_span,
    decision_name,
    derive_trace,
    part_span,
    root_span,
    run_trace,
)
from drainer.telemetry.privacy import AddressView
from drainer.telemetry.spans import (
    CLIENT,
    INTERNAL,
    SpanLink,
    SpanPlace,
    TraceSpan,
    codes_of,
    drop_empty,
    flatten,
    run_link,
    server_of,
)

_FAILED = {1: "defect", 4: "stopped"}
"""Exit statuses of a run that are an error, and their error.type."""
_BAD = frozenset(("stop", "fail"))
_CLIENTS = frozenset((DecisionKind.CONNECTION.value, DecisionKind.HEALTH.value))
_OPENING = ("ehlo", "starttls", "auth")
_SUMMARY = {
    "exit": names.EXIT,
    "messages": names.MESSAGES,
    "bytes": names.BYTES,
    "commits": names.COMMITS,
}


class RunSpans:
    """Makes the spans of runs and watches."""

    def __init__(self, view: AddressView) -> None:
        """Show addresses like this."""
        self._view = view
        self.marks: dict[str, Any] = {}

    def spans(self, row: Row, facts: SpanFacts) -> Iterator[TraceSpan]:
        """Yield the spans of a decision that is about no message."""
        evidence = from_json(row["evidence"]) if row["evidence"] else {}
        if row["kind"] == DecisionKind.WATCH:
            yield from self._period(row, evidence)
        elif not row["run"]:
            yield self._order(row, evidence)
        elif row["kind"] == DecisionKind.RUN_ENDED:
            yield self._drain(row, evidence, facts)
        elif row["kind"] == DecisionKind.CONNECTION:
            yield from self._connection(row, evidence)
        else:
            yield self._part(row, evidence)

    def _drain(self, row: Row, evidence: Row, facts: SpanFacts) -> TraceSpan:
        run = facts.runs.get(row["run"], {})
        started = int(run.get("started") or row["at"])
        known = from_json(run.get("facts") or "{}")
        died = row["verdict"] == RUN_DIED
        ended = int(evidence.get("last_seen") or row["at"])
        attributes = self.marks | drop_empty(
            {
                names.RUN: row["run"],
                names.ROUTE: run.get("route"),
                names.VERSION: known.get("version"),
            }
        )
        for key, name in _SUMMARY.items():
            if key in evidence:
                attributes[name] = evidence[key]
        states: Mapping[str, int] = evidence.get("states", {})
        for state, count in states.items():
            attributes[names.RECIPIENTS + state] = count
        if states:
            attributes[names.RECIPIENTS + "total"] = sum(states.values())
        seconds = (ended - started) / 1e6
        if seconds > 0 and names.MESSAGES in attributes:
            attributes[names.RATE] = round(attributes[names.MESSAGES] / seconds, 3)
        if row["verdict"]:
            attributes[names.VERDICT] = row["verdict"]
        error = RUN_DIED if died else _FAILED.get(evidence.get("exit", 0), "")
        words = str(evidence.get("reason", "") or f"exit status {evidence.get('exit')}")
        trace = run_trace(row["run"])
        return TraceSpan(
            "drain",
            SpanPlace(trace, root_span(trace)),
            (started, ended),
            attributes,
            links=_caller(known),
            error=error,
            words=words,
        )

    def _part(self, row: Row, evidence: Row) -> TraceSpan:
        """Return a decision of a run as a span below its root."""
        trace, name = run_trace(row["run"]), decision_name(row)
        root = root_span(trace)
        seconds = float(evidence.pop("seconds", 0.0))
        attributes = dict(server_of(str(evidence.pop("address", ""))))
        attributes |= self._attributes(row, evidence)
        kind = CLIENT if row["kind"] in _CLIENTS else INTERNAL
        error, words = self._failure(row)
        return TraceSpan(
            name,
            SpanPlace(trace, part_span(root, name, row["id"]), root),
            (row["at"] - int(seconds * 1e6), row["at"]),
            attributes,
            kind,
            error=error,
            words=words,
        )

    def _failure(self, row: Row) -> tuple[str, str]:
        """Return what error.type is, and the words; two times '' for no error."""
        bad = row["verdict"] in _BAD or (
            row["kind"] == DecisionKind.CONNECTION and bool(row["verdict"])
        )
        return (row["rule"], self._view.text(row["reply"])) if bad else ("", "")

    def _order(self, row: Row, evidence: Row) -> TraceSpan:
        """Return what belongs to no run as a trace of its own."""
        trace = derive_trace("order", row["id"])
        place, times = SpanPlace(trace, root_span(trace)), (row["at"], row["at"])
        return TraceSpan(
            decision_name(row), place, times, self._attributes(row, evidence)
        )

    def _attributes(self, row: Row, evidence: Row) -> dict[str, Any]:
        found = drop_empty(
            {
                names.RUN: row["run"],
                names.ROUTE: evidence.pop("route", ""),
                names.RULE: row["rule"],
                names.VERDICT: row["verdict"],
                names.REPLY: self._view.text(row["reply"]),
            }
        )
        found |= codes_of(row["reply"])
        return found | flatten(self._view.tree(evidence), names.EVIDENCE)

    def _connection(self, row: Row, evidence: Row) -> Iterator[TraceSpan]:
        """Yield a session that was opened, and its EHLO, STARTTLS and AUTH below it."""
        steps = evidence.pop("steps", [])
        session = str(evidence.pop("session", "") or row["id"])
        trace, span = run_trace(row["run"]), connection_span(row["run"], session)
        root = root_span(trace)
        address, tls = str(evidence.pop("address", "")), evidence.pop("tls", {})
        host, protocol = (str(evidence.pop(key, "")) for key in ("host", "protocol"))
        attributes = dict(server_of(address, host, protocol))
        attributes |= _tls(tls)
        attributes |= self._attributes(row, evidence)
        at = row["at"] - sum(micros for _, micros, _ in steps)
        error, words = self._failure(row)
        yield TraceSpan(
            "smtp.connect",
            SpanPlace(trace, span, root),
            (at, row["at"]),
            attributes,
            CLIENT,
            error=error,
            words=words,
        )
        for n, (stage, micros, answer) in enumerate(steps):
            if stage in _OPENING:
                place = SpanPlace(trace, part_span(span, stage, n), span)
                yield self._step(stage, place, (at, at + micros), answer)
            at += micros

    def _step(
        self, stage: str, place: SpanPlace, times: tuple[int, int], answer: str
    ) -> TraceSpan:
        text = self._view.text(answer)
        codes = codes_of(answer)
        good = answer[:1] in ("2", "3")
        error = "" if good else str(codes.get(names.CODE, answer.partition(" ")[0]))
        attributes = {**drop_empty({names.REPLY: text}), **codes}
        name = f"smtp.{stage}"
        return TraceSpan(
            name, place, times, attributes, CLIENT, error=error, words=text
        )

    def _period(self, row: Row, evidence: Row) -> Iterator[TraceSpan]:
        """Yield the period that ended with this change of a watch's state."""
        state, since = evidence.pop("from", ""), evidence.pop("since", 0)
        if not state or not since:
            return
        evidence["next"] = row["rule"].removeprefix("watch-")
        evidence.pop("why", None)  # it is about the next period
        evidence.pop("until", None)
        runs = evidence.pop("runs", [])
        trace = derive_trace("watch", row["run"], since)
        attributes: dict[str, Any] = {names.RUN: row["run"], names.STATE: state}
        attributes |= flatten(self._view.tree(evidence), names.EVIDENCE)
        links = [run_link(run) for run in runs]
        place = SpanPlace(trace, root_span(trace))
        times = (int(since), row["at"])
        yield TraceSpan(f"watch.{state}", place, times, attributes, links=links)


def _tls(facts: object) -> dict[str, Any]:
    if not isinstance(facts, Mapping):
        return {names.TLS_ESTABLISHED: bool(facts)}
    version = str(facts.get("version", "")).removeprefix("TLSv")
    found = {names.TLS_VERSION: version, names.TLS_CIPHER: facts.get("cipher", "")}
    return {names.TLS_ESTABLISHED: bool(facts)} | drop_empty(found)


def _caller(facts: Mapping[str, Any]) -> list[SpanLink]:
    """Return a link to the span of who started the run, if TRACEPARENT named one."""
    carrier = {
        key: str(facts[key]) for key in ("traceparent", "tracestate") if key in facts
    }
    found = TraceContextTextMapPropagator().extract(carrier)
    span = get_current_span(found).get_span_context()
    if not span.is_valid:
        return []
    return [SpanLink(span.trace_id, span.span_id, is_remote=True)]
