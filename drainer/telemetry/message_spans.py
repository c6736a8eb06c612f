"""The spans of one message: `message`, `scanned`, its attempts, and other decisions.

A message has one trace for life; the root span `message` is made once, when the last
recipient is final.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from drainer.ledger.columns import from_json
from drainer.mail.envelope import domain_of
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.state import State
from drainer.telemetry import names
from drainer.telemetry.facts import Row, SpanFacts
from drainer.telemetry.ids import (
    TraceIds,
    connection_span,
    decision_name,
    part_span,
    root_span,
    run_trace,
)
from drainer.telemetry.privacy import AddressView, OwnMailboxes
from drainer.telemetry.spans import (
    CLIENT,
    Attributes,
    SharedAttributes,
    SpanEvent,
    SpanLink,
    SpanPlace,
    TraceSpan,
    codes_of,
    flatten,
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

    def __init__(self, view: AddressView, ids: TraceIds) -> None:
        """Use these ids, and show addresses like this."""
        self._view, self._ids = view, ids
        self._spool = lru_cache(self._place_of)
        self.marks: dict[str, Any] = {}

    def message(self, row: Row, ended: int, facts: SpanFacts) -> TraceSpan:
        """Return the root span of a message that is final."""
        counts: dict[str, int] = {}
        attempts = delivered = 0
        domains = set()
        for each in facts.recipients.get(row["seq"], {}).values():
            counts[each["state"]] = counts.get(each["state"], 0) + 1
            attempts = max(attempts, each["attempts"])
            domains.add(domain_of(each["forward_path"]))
            if each["state"] == _DELIVERED:
                delivered = max(delivered, each["since"])
        attributes = self._about(row)
        if delivered:
            attributes[names.AGE] = round((delivered - row["arrived"]) / 1e6, 3)
        domains.discard("")
        if domains:
            some = sorted(domains)[:MAX_EVENTS]
            attributes[names.DOMAINS] = tuple(map(self._view.value, some))
        outcome = _outcome(attempts, tuple(counts.items()))
        error = outcome[names.STATE]
        trace = self._ids.trace(row["id"])
        return TraceSpan(
            "message",
            SpanPlace(trace, root_span(trace)),
            (row["scanned"], ended),
            attributes,
            error="" if error == _DELIVERED else error,
            words="" if error == _DELIVERED else _words(counts),
            shared=(self._spool(row["source"], row["queue"]), outcome),
        )

    def scanned(self, row: Row) -> TraceSpan:
        """Return the first span of a message that is not final yet."""
        trace = self._ids.trace(row["id"])
        root = root_span(trace)
        place = SpanPlace(trace, part_span(root, "scanned", 0), root)
        times = (row["scanned"], row["scanned"])
        error = State.HELD.value if row["problem"] else ""
        return TraceSpan(
            "scanned",
            place,
            times,
            self._about(row),
            error=error,
            words=row["problem"],
            shared=(self._spool(row["source"], row["queue"]),),
        )

    def _about(self, row: Row) -> dict[str, Any]:
        found = {
            names.MESSAGE_ID: row["id"],
            names.NATIVE_ID: self._view.text(row["native_id"]),
            names.SENDER: self._view.address(row["reverse_path"]),
            names.BODY_SIZE: row["size"],
        }
        if row["message_id"]:
            found[names.MESSAGING_ID] = self._view.value(row["message_id"])
        return found

    def _place_of(self, source: str, queue: str) -> SharedAttributes:
        """Return what many messages share.

        A source loses the addresses in its path; the user of a server stays.
        """
        where = source if "://" in source else self._view.text(source)
        found = SharedAttributes(self.marks)
        found |= {names.SYSTEM: "smtp", names.OPERATION: "send", names.SOURCE: where}
        if queue:
            found[names.QUEUE] = self._view.text(queue)
        return found

    def attempt(
        self, attempt: Row, rows: Sequence[Row], facts: SpanFacts
    ) -> Iterator[TraceSpan]:
        """Yield the span of an attempt, and of its stages if it did not just deliver.

        ``rows`` are its decisions, one for each recipient.
        """
        message = facts.messages[attempt["message"]]
        trace, span = self._ids.trace(message["id"]), attempt["id"]
        start, stages = attempt["started"], from_json(attempt["stages"] or "[]")
        bad = next((row for row in rows if row["verdict"] != _DELIVER), None)
        own = self._own(message, rows, facts)
        run, connection = attempt["run"], attempt["connection"]
        attributes = {names.MESSAGE_ID: message["id"]}
        shared = _session(run, connection, _route(facts, attempt))
        place = SpanPlace(trace, span, root_span(trace))
        events = self._events(start, stages, own)
        if len(rows) == 1:
            attributes |= self._recipient(rows[0], facts)
            groups = shared, self._judgement(rows[0], own)
        else:
            groups = shared, _verdicts(rows)
            events += [
                self._classification_event(row, facts, own) for row in rows[:MAX_EVENTS]
            ]
        yield TraceSpan(
            "attempt",
            place,
            (start, attempt["ended"] or rows[-1]["at"]),
            attributes,
            CLIENT,
            events=events,
            links=_links(run, connection),
            error=bad["rule"] if bad else "",
            words=self._view.text(bad["reply"], own) if bad else "",
            shared=groups,
        )
        if bad:
            yield from self._stages(place, start, stages, own)

    def _events(
        self, start: int, stages: Sequence[Sequence[Any]], own: OwnMailboxes
    ) -> list[SpanEvent]:
        return [
            SpanEvent(
                _stage_name(name),
                start + offset,
                self._reply_attributes(name, reply, own),
            )
            for name, offset, reply in stages
        ]

    def _classification_event(
        self, row: Row, facts: SpanFacts, own: OwnMailboxes
    ) -> SpanEvent:
        """Return the decision about one of several recipients."""
        about = {**self._recipient(row, facts), **self._judgement(row, own)}
        return SpanEvent("classify", row["at"], about)

    def _reply_attributes(
        self, stage: str, reply: str, own: OwnMailboxes
    ) -> Attributes:
        """Return a reply as attributes; its codes as well if it is not positive."""
        if stage == "throttle.wait":
            return {names.WAIT: float(reply.removesuffix(" s"))}
        text = self._view.text(reply, own)
        if _is_good(reply):
            return _positive(text)
        return {names.REPLY: text, **codes_of(reply)} if text else {}

    def _stages(
        self,
        attempt: SpanPlace,
        start: int,
        stages: Sequence[Sequence[Any]],
        own: OwnMailboxes,
    ) -> Iterator[TraceSpan]:
        before = start
        for n, (name, offset, reply) in enumerate(stages):
            if _is_ours(name):
                continue
            end = start + offset
            said = self._reply_attributes(name, reply, own)
            code = said.get(names.CODE)
            error = (
                ""
                if _is_good(reply)
                else str(code or reply.partition(" ")[0] or "lost")
            )
            place = part_span(attempt.span, name, n)
            yield TraceSpan(
                _stage_name(name),
                SpanPlace(attempt.trace, place, attempt.span),
                (min(before, end), end),
                said,
                CLIENT,
                error=error,
                words=said.get(names.REPLY, ""),
            )
            before = end

    def decision(self, row: Row, facts: SpanFacts) -> TraceSpan:
        """Return a decision outside of an attempt as a span of its own."""
        message = facts.messages[row["message"]]
        trace, span = self._ids.decision(row, message["id"])
        own = (
            self._own(message, [row], facts) if row["reply"] or row["evidence"] else ()
        )
        attributes = {names.MESSAGE_ID: message["id"], **self._recipient(row, facts)}
        judgement = self._judgement(row, own)
        links = (run_link(row["run"]),) if row["run"] in facts.runs else ()
        reason = judgement.get(names.EVIDENCE + "reason", "")
        return TraceSpan(
            decision_name(row),
            SpanPlace(trace, span, root_span(trace)),
            (row["at"], row["at"]),
            attributes,
            links=links,
            error=row["rule"] if row["verdict"] in _BAD else "",
            words=judgement.get(names.REPLY) or reason,
            shared=(judgement,),
        )

    def _recipient(self, row: Row, facts: SpanFacts) -> dict[str, Any]:
        if row["n"] is None:
            return {}
        recipient = facts.recipients.get(row["message"], {}).get(row["n"])
        path = recipient["forward_path"] if recipient else ""
        return {names.RECIPIENT: self._view.address(path)}

    def _judgement(self, row: Row, own: OwnMailboxes) -> SharedAttributes:
        """Return what was decided, and why; most of it is often the same."""
        reply, evidence = row["reply"], row["evidence"]
        words = row["rule"], row["verdict"], reply, self._view.text(reply, own)
        if self._view.text(evidence, own) == evidence:
            return _verdict_attributes(*words, evidence)
        found = SharedAttributes(_verdict_attributes(*words, ""))
        values = from_json(evidence)
        sent_to = values.pop(_SENT_TO, "")
        found |= _flat(self._view.tree(values, own))
        if sent_to:
            found[names.EVIDENCE + _SENT_TO] = self._view.address(sent_to)
        return found

    def _own(self, message: Row, rows: Sequence[Row], facts: SpanFacts) -> OwnMailboxes:
        """Return the addresses that a reply to this message may quote."""
        known: Mapping[int, Row] = facts.recipients.get(message["seq"], {})
        paths = [known[r["n"]]["forward_path"] for r in rows if r["n"] in known]
        return self._view.own((message["reverse_path"], *paths[:MAX_EVENTS]))


@lru_cache(1024)
def _positive(reply: str) -> SharedAttributes:
    return SharedAttributes({names.REPLY: reply})


@lru_cache(1024)
def _verdict_attributes(
    rule: str, verdict: str, reply: str, shown: str, evidence: str
) -> SharedAttributes:
    found = SharedAttributes({names.RULE: rule})
    if verdict:
        found[names.VERDICT] = verdict
    if reply:
        found[names.REPLY] = shown
        found |= codes_of(reply)
    if evidence:
        found |= _flat(from_json(evidence))
    return found


def _verdicts(rows: Sequence[Row]) -> SharedAttributes:
    """Return how often each verdict came, if there are several recipients."""
    counts: dict[str, int] = {}
    for row in rows:
        name = names.VERDICTS + row["verdict"]
        counts[name] = counts.get(name, 0) + 1
    found = SharedAttributes(counts)
    if len(rows) > MAX_EVENTS:
        found[names.TRUNCATED] = f"events of {len(rows) - MAX_EVENTS} recipients"
    found[names.RECIPIENTS + "total"] = len(rows)
    return found


@lru_cache
def _outcome(attempts: int, counts: Sequence[tuple[str, int]]) -> SharedAttributes:
    """Return how a message ended; its state is the worst of its recipients'."""
    states = dict(counts)
    found = SharedAttributes()
    found[names.STATE] = next((each for each in WORST if each in states), _DELIVERED)
    found[names.ATTEMPTS] = attempts
    found[names.RECIPIENTS + "total"] = sum(states.values())
    found |= {names.RECIPIENTS + name: count for name, count in counts}
    return found


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    state = values.pop("state", "")
    found = flatten(values, names.EVIDENCE)
    return {names.STATE: state, **found} if state else found


@lru_cache(1024)
def _links(run: str, connection: str) -> Sequence[SpanLink]:
    """Return the links of an attempt: to its run, and to its connection."""
    session = connection.partition(" ")[2].partition(" ")[0]
    if not session:
        return [run_link(run)]
    return [run_link(run), SpanLink(run_trace(run), connection_span(run, session))]


@lru_cache(1024)
def _session(run: str, connection: str, route: str) -> SharedAttributes:
    """Return what the attempts of a session share."""
    address, _, host, protocol = [*connection.split(" "), "", "", "", ""][:4]
    found = SharedAttributes(server_of(address, host, protocol))
    if route:
        found[names.ROUTE] = route
    found[names.RUN] = run
    return found


def _route(facts: SpanFacts, attempt: Row) -> str:
    """Return the name of the route of an attempt; '' if it is not known."""
    tried = facts.recipients.get(attempt["message"], {}).values()
    routes = [row["route"] for row in tried if row["attempt"] == attempt["id"]]
    routes += [row["route"] for row in tried]
    return next(iter(routes), "")


def _is_good(reply: str) -> bool:
    return reply[:1] in ("2", "3")


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


@lru_cache
def _is_ours(stage: str) -> bool:
    """Return whether a stage is no SMTP command: an event only."""
    return "." in stage or stage in ("died", "reserve")


@lru_cache
def _stage_name(stage: str) -> str:
    return stage if _is_ours(stage) else f"smtp.{stage}"
