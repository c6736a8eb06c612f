"""Committed decisions -> spans. Pure: rows in, spans out."""

from collections.abc import Iterable, Iterator

from drainer.telemetry import names
from drainer.telemetry.facts import Row, SpanFacts
from drainer.telemetry.ids import TraceIds, is_of_attempt
from drainer.telemetry.message_spans import MessageSpans
from drainer.telemetry.privacy import AddressView
from drainer.telemetry.run_spans import RunSpans
from drainer.telemetry.spans import TraceSpan


class SpanProjection:
    """Makes the spans of one ledger."""

    def __init__(self, salt: bytes, *, plain: bool, rehearsal: bool = False) -> None:
        """Derive ids, and hash addresses unless ``plain``, with the ledger's salt."""
        view = AddressView(salt, plain=plain)
        self._messages = MessageSpans(view, TraceIds(salt))
        self._runs = RunSpans(view)
        if rehearsal:
            self._messages.marks = self._runs.marks = {names.REHEARSAL: True}

    def spans(self, decisions: Iterable[Row], facts: SpanFacts) -> Iterator[TraceSpan]:
        """Yield the spans of some decisions, in the order of the ledger.

        The decisions of an attempt come together. A message that the ledger does not
        know any more has no spans.
        """
        attempts: dict[int, list[Row]] = {}
        for row in decisions:
            if not row["message"]:
                yield from self._runs.spans(row, facts)
            elif message := facts.messages.get(row["message"]):
                if row["id"] in facts.first:
                    yield self._messages.scanned(message)
                if is_of_attempt(row) and row["attempt"] in facts.attempts:
                    attempts.setdefault(row["attempt"], []).append(row)
                else:
                    yield self._messages.decision(row, facts)
                if row["id"] in facts.finishing:
                    yield self._messages.message(message, row["at"], facts)
        for attempt, rows in attempts.items():
            yield from self._messages.attempt(facts.attempts[attempt], rows, facts)
