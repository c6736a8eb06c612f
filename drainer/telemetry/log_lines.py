"""One log line for each recipient of each attempt, on standard error.

Like the traces it is made of committed decisions, so that it never disagrees with the
ledger, and costs a session nothing. For a journal a line starts with its priority
(sd-daemon(3)).
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec import json

from drainer.ledger.columns import from_json
from drainer.ledger.records import from_micros
from drainer.mail.reply import printable
from drainer.policy.recipient.state import State
from drainer.telemetry import names
from drainer.telemetry.facts import Row, SpanFacts
from drainer.telemetry.ids import TraceIds, is_of_attempt
from drainer.telemetry.privacy import AddressView
from drainer.telemetry.projector import Exporter
from drainer.telemetry.spans import codes_of, drop_empty

MAX_VALUE = 500
"""Characters of a value."""
LEVELS: Final[Mapping[str, str]] = {
    State.DELIVERED.value: "info",
    State.PENDING.value: "notice",
    State.DEFERRED.value: "notice",
    State.UNKNOWN.value: "warning",
    State.HELD.value: "warning",
    State.BOUNCE_PENDING.value: "warning",
    State.BOUNCED.value: "error",
    State.QUARANTINED.value: "error",
}
"""The level of a line, by the state that the attempt led to."""
_PRIORITIES = {"info": 6, "notice": 5, "warning": 4, "error": 3}


class LogProjection:
    """Makes the facts of log lines."""

    def __init__(self, salt: bytes, *, plain: bool) -> None:
        """Derive the ids of spans, and show addresses, as the traces do."""
        self._ids, self._view = TraceIds(salt), AddressView(salt, plain=plain)

    def lines(
        self, decisions: Iterable[Row], facts: SpanFacts
    ) -> Iterator[dict[str, Any]]:
        """Yield the facts of a line, in order, with their names in JSON."""
        for row in decisions:
            attempt = facts.attempts.get(row["attempt"] or 0)
            if attempt and is_of_attempt(row) and row["message"] in facts.messages:
                yield self._line(row, attempt, facts)

    def _line(self, row: Row, attempt: Row, facts: SpanFacts) -> dict[str, Any]:
        message = facts.messages[row["message"]]
        recipient = facts.recipients.get(row["message"], {}).get(row["n"])
        path = recipient["forward_path"] if recipient else ""
        evidence = from_json(row["evidence"]) if row["evidence"] else {}
        state = str(evidence.get("state", ""))
        codes = codes_of(row["reply"])
        own = self._view.own((path, message["reverse_path"]))
        trace, span = self._ids.decision(row, message["id"])
        return drop_empty(
            {
                "time": from_micros(row["at"]).isoformat(timespec="milliseconds"),
                "level": LEVELS.get(state, "warning"),
                "state": state,
                "message": message["id"],
                "native_id": message["native_id"],
                "message_id": self._view.value(message["message_id"]),
                "from": self._view.address(message["reverse_path"]),
                "to": self._view.address(path),
                "relay": attempt["connection"].partition(" ")[0],
                "size": message["size"],
                "attempts": evidence.get("attempts"),
                "delay": round((row["at"] - message["arrived"]) / 1e6, 3),
                "verdict": row["verdict"],
                "rule": row["rule"],
                "code": codes.get(names.CODE),
                "enhanced": codes.get(names.ENHANCED),
                "reply": self._view.text(row["reply"], own),
                "run": attempt["run"],
                "trace_id": f"{trace:032x}",
                "span_id": f"{span:016x}",
            }
        )


def as_json(line: Mapping[str, Any]) -> str:
    """Return a line as one JSON object."""
    return json.encode(line).decode()


def as_logfmt(line: Mapping[str, Any]) -> str:
    """Return a line as ``key=value``; a value with blanks or quotes is quoted."""
    return " ".join(f"{key}={_quote(str(value))}" for key, value in line.items())


def as_human(line: Mapping[str, Any]) -> str:
    """Return a line for people, as a mail server writes it."""
    reply = f" ({line['reply']})" if "reply" in line else ""
    trace = line["trace_id"]
    return (
        f"{line['time']} {line['level']} {line['message'][:12]}: to=<{line['to']}>,"
        f" relay={line.get('relay', 'none')}, delay={line['delay']},"
        f" status={line.get('state')} by {line['rule']}{reply}, trace={trace}"
    )


def _quote(text: str) -> str:
    if text and not any(char in text for char in ' "=\\'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


FORMATS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "json": as_json,
    "logfmt": as_logfmt,
    "human": as_human,
}
"""By ``[telemetry] logs``."""


class LogWriter(Exporter[dict[str, Any]]):
    """Writes lines to standard error."""

    def __init__(self, style: str) -> None:
        """Write in one of FORMATS."""
        self._shown = FORMATS[style]
        self._is_journal = "JOURNAL_STREAM" in os.environ

    def export(self, records: Iterable[dict[str, Any]]) -> None:
        """Write some lines; OSError when standard error takes none."""
        text = "".join(f"{self._line(record)}\n" for record in records)
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        while data:
            data = data[os.write(2, data) :]

    def _line(self, record: dict[str, Any]) -> str:
        safe = {
            key: printable(value, MAX_VALUE) if isinstance(value, str) else value
            for key, value in record.items()
        }
        shown = self._shown(safe)
        if self._is_journal:
            return f"<{_PRIORITIES[record['level']]}>{shown}"
        return shown
