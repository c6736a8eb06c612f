"""The spans of one message: `message`, `scanned`, its attempts, and other decisions.

A message has one trace for life; the root span `message` is made once, when the last
recipient is final.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanKind

from drainer.ledger.columns import from_json
from drainer.mail.envelope import domain_of
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.state import State
from drainer.telemetry import names
from drainer.telemetry.facts import Row, SpanFacts
from drainer.telemetry.ids import (
    TraceIds,
    attempt_span,
    connection_span,
    context,
    decision_name,
    part_span,
    root_span,
    run_trace,
)
from drainer.telemetry.privacy import AddressView
from drainer.telemetry.spans import (
    SpanDetails,
    SpanMaker,
    SpanPlace,
    codes_of,
    event,
    flattened,
    run_link,
    server_of,
)

MAX_EVENTS = 500
"""Recipients of an attempt that have an event of their own."""
WORST = tuple(
    state.value
    for state in (State.BOUNCED, State.QUARANTINED, State.DISCARDED, State.HELD)
)
"""The states that are an error of a message, the worst first."""
_DELIVERED, _DELIVER = State.DELIVERED.value, Verdict.DELIVER.value
_BAD = frozenset(("hold", "bounce", "stop", "unknown"))
_SENT_TO = "sent_to"


class MessageSpans:
    """Makes the spans of messages."""

    def __init__(self, make: SpanMaker, view: AddressView, ids: TraceIds) -> None:
        """Use these ids, and show addresses like this."""
        self._make, self._view, self._ids = make, view, ids
        self.marks: dict[str, Any] = {}

    def message(self, row: Row, ended: int, facts: SpanFacts) -> ReadableSpan:
        """Return the root span of a message that is final."""
        recipients = list(facts.recipients.get(row["seq"], {}).values())
        counts = _counts(each["state"] for each in recipients)
        state = next((s for s in WORST if s in counts), _DELIVERED)
        done = [r["since"] for r in recipients if r["state"] == _DELIVERED]
        attributes = self._about(row)
        attributes[names.STATE] = state
        attributes[names.ATTEMPTS] = max((r["attempts"] for r in recipients), default=0)
        attributes[names.RECIPIENTS + "total"] = len(recipients)
        for name, count in counts.items():
            attributes[names.RECIPIENTS + name] = count
        if done:
            attributes[names.AGE] = round(max(done) / 1e6 - row["arrived"] / 1e6, 3)
        domains = sorted({domain_of(each["forward_path"]) for each in recipients})
        if shown := [self._view.value(each) for each in domains[:MAX_EVENTS] if each]:
            attributes[names.DOMAINS] = shown
        trace = self._ids.trace(row["id"])
        error = state if state in WORST else ""
        place = SpanPlace(trace, root_span(trace))
        details = SpanDetails(error=error, words=_words(counts) if error else "")
        return self._make(
            "message", place, (row["scanned"], ended), attributes, details
        )

    def scanned(self, row: Row) -> ReadableSpan:
        """Return the first span of a message that is not final yet."""
        trace = self._ids.trace(row["id"])
        root = root_span(trace)
        place = SpanPlace(trace, part_span(root, "scanned", 0), root)
        times = (row["scanned"], row["scanned"])
        error = State.HELD.value if row["problem"] else ""
        details = SpanDetails(error=error, words=row["problem"])
        return self._make("scanned", place, times, self._about(row), details)

    def _about(self, row: Row) -> dict[str, Any]:
        found = {
            **self.marks,
            names.MESSAGE_ID: row["id"],
            names.NATIVE_ID: self._view.text(row["native_id"]),
            names.SOURCE: self._source(row["source"]),
            names.SENDER: self._view.address(row["reverse_path"]),
            names.SYSTEM: "smtp",
            names.OPERATION: "send",
            names.BODY_SIZE: row["size"],
        }
        if row["queue"]:
            found[names.QUEUE] = self._view.text(row["queue"])
        if row["message_id"]:
            found[names.MESSAGING_ID] = self._view.value(row["message_id"])
        return found

    def _source(self, url: str) -> str:
        """Return a source without the addresses in its path; a server's user stays."""
        return url if "://" in url else self._view.text(url)

    # --- an attempt

    def attempt(
        self, attempt: Row, rows: Sequence[Row], facts: SpanFacts
    ) -> Iterator[ReadableSpan]:
        """Yield the span of an attempt, and of its stages if it did not just deliver.

        ``rows`` are its decisions, one for each recipient.
        """
        message = facts.messages[attempt["message"]]
        trace, span = self._ids.trace(message["id"]), attempt_span(attempt["id"])
        start, stages = attempt["started"], from_json(attempt["stages"] or "[]")
        bad = next((row for row in rows if row["verdict"] != _DELIVER), None)
        own = self._own(message, rows, facts)
        address, session, host = [*attempt["connection"].split(" ", 2), "", ""][:3]
        attributes: dict[str, Any] = {names.MESSAGE_ID: message["id"]}
        attributes |= server_of(address, host)
        if route := _route(facts, attempt):
            attributes[names.ROUTE] = route
        attributes[names.RUN] = attempt["run"]
        attributes |= self._outcome(rows, facts, own)
        place = SpanPlace(trace, span, root_span(trace))
        details = SpanDetails(
            kind=SpanKind.CLIENT,
            events=self._events(start, stages, rows, (facts, own)),
            links=_links(attempt["run"], session),
            error=bad["rule"] if bad else "",
            words=self._view.text(bad["reply"], own) if bad else "",
        )
        times = (start, attempt["ended"] or rows[-1]["at"])
        yield self._make("attempt", place, times, attributes, details)
        if bad:
            yield from self._stages(place, start, stages, own)

    def _outcome(
        self, rows: Sequence[Row], facts: SpanFacts, own: Sequence[str]
    ) -> dict[str, Any]:
        if len(rows) == 1:
            return self._attributes(rows[0], facts, own)
        counts = _counts(row["verdict"] for row in rows)
        found: dict[str, Any] = {
            names.VERDICTS + verdict: count for verdict, count in counts.items()
        }
        if len(rows) > MAX_EVENTS:
            found[names.TRUNCATED] = f"events of {len(rows) - MAX_EVENTS} recipients"
        return found | {names.RECIPIENTS + "total": len(rows)}

    def _events(
        self,
        start: int,
        stages: Sequence[Sequence[Any]],
        rows: Sequence[Row],
        about: tuple[SpanFacts, Sequence[str]],
    ) -> list[Event]:
        facts, own = about
        events = [
            event(_stage_name(name), start + offset, self._said(name, reply, own))
            for name, offset, reply in stages
        ]
        if len(rows) > 1:
            events += [
                event("classify", row["at"], self._attributes(row, facts, own))
                for row in rows[:MAX_EVENTS]
            ]
        return events

    def _said(self, stage: str, reply: str, own: Sequence[str]) -> dict[str, Any]:
        """Return a reply as attributes; its codes as well if it is not positive."""
        if stage == "throttle.wait":
            return {names.WAIT: float(reply.removesuffix(" s"))}
        text = self._view.text(reply, own)
        if not text:
            return {}
        codes = {} if _is_good(reply) else codes_of(reply)
        return {names.REPLY: text, **codes}

    def _stages(
        self,
        attempt: SpanPlace,
        start: int,
        stages: Sequence[Sequence[Any]],
        own: Sequence[str],
    ) -> Iterator[ReadableSpan]:
        before = start
        for n, (name, offset, reply) in enumerate(stages):
            if _is_ours(name):
                continue
            end = start + offset
            said = self._said(name, reply, own)
            code = said.get(names.CODE)
            error = (
                ""
                if _is_good(reply)
                else str(code or reply.partition(" ")[0] or "lost")
            )
            yield self._make(
                _stage_name(name),
                SpanPlace(
                    attempt.trace, part_span(attempt.span, name, n), attempt.span
                ),
                (min(before, end), end),
                said,
                SpanDetails(
                    kind=SpanKind.CLIENT, error=error, words=said.get(names.REPLY, "")
                ),
            )
            before = end

    # --- other decisions

    def decision(self, row: Row, facts: SpanFacts) -> ReadableSpan:
        """Return a decision outside of an attempt as a span of its own."""
        message = facts.messages[row["message"]]
        trace, span = self._ids.decision(row, message["id"])
        own = (
            self._own(message, [row], facts) if row["reply"] or row["evidence"] else ()
        )
        attributes = {names.MESSAGE_ID: message["id"]}
        attributes |= self._attributes(row, facts, own)
        links = (run_link(row["run"]),) if row["run"] in facts.runs else ()
        words = attributes.get(names.REPLY) or attributes.get(
            names.EVIDENCE + "reason", ""
        )
        error = row["rule"] if row["verdict"] in _BAD else ""
        return self._make(
            decision_name(row),
            SpanPlace(trace, span, root_span(trace)),
            (row["at"], row["at"]),
            attributes,
            SpanDetails(links=links, error=error, words=words),
        )

    def _attributes(
        self, row: Row, facts: SpanFacts, own: Sequence[str]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {names.RULE: row["rule"]}
        if row["verdict"]:
            found[names.VERDICT] = row["verdict"]
        if row["reply"]:
            found[names.REPLY] = self._view.text(row["reply"], own)
            found |= codes_of(row["reply"])
        if row["n"] is not None:
            recipient = facts.recipients.get(row["message"], {}).get(row["n"])
            path = recipient["forward_path"] if recipient else ""
            found[names.RECIPIENT] = self._view.address(path)
        return found | self.evidence(row["evidence"], own)

    def evidence(self, text: str, own: Sequence[str] = ()) -> dict[str, Any]:
        """Return a decision's evidence as attributes."""
        if not text:
            return {}
        if self._view.text(text, own) == text:
            return _parsed(text)  # most say the same, and quote no address
        values = from_json(text)
        sent_to = values.pop(_SENT_TO, "")
        found = _flat(self._view.tree(values, own))
        if sent_to:
            found[names.EVIDENCE + _SENT_TO] = self._view.address(sent_to)
        return found

    def _own(
        self, message: Row, rows: Sequence[Row], facts: SpanFacts
    ) -> tuple[str, ...]:
        """Return the addresses that a reply to this message may quote."""
        if self._view.plain:
            return ()
        known: Mapping[int, Row] = facts.recipients.get(message["seq"], {})
        paths = [known[r["n"]]["forward_path"] for r in rows if r["n"] in known]
        return tuple(filter(None, (message["reverse_path"], *paths[:MAX_EVENTS])))


@lru_cache(1024)
def _parsed(text: str) -> dict[str, Any]:
    return _flat(from_json(text))


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    state = values.pop("state", "")
    found = flattened(values, names.EVIDENCE)
    return {names.STATE: state, **found} if state else found


def _links(run: str, session: str) -> list[Link]:
    """Return the links of an attempt: to its run, and to its connection."""
    if not session:
        return [run_link(run)]
    connection = context(run_trace(run), connection_span(run, session))
    return [run_link(run), Link(connection)]


def _route(facts: SpanFacts, attempt: Row) -> str:
    """Return the name of the route of an attempt; '' if it is not known."""
    tried = facts.recipients.get(attempt["message"], {}).values()
    routes = [row["route"] for row in tried if row["attempt"] == attempt["id"]]
    routes += [row["route"] for row in tried]
    return next(iter(routes), "")


def _counts(words: Iterable[str]) -> dict[str, int]:
    """Return how often each comes: faster than a Counter, for most come once."""
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return found


def _is_good(reply: str) -> bool:
    return reply[:1] in ("2", "3")


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _is_ours(stage: str) -> bool:
    """Return whether a stage is no SMTP command: an event only."""
    return "." in stage or stage in ("died", "reserve")


def _stage_name(stage: str) -> str:
    return stage if _is_ours(stage) else f"smtp.{stage}"
