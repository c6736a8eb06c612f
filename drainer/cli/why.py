"""`why`: every decision about one message, in order, and the next step."""

import json
from datetime import UTC, datetime
from typing import Any

import typer

from drainer.cli.options import (
    ConfigOption,
    IdArgument,
    JsonOption,
    LedgerOption,
    reading,
)
from drainer.cli.output import clean, print_json, stdout
from drainer.ledger.filters import Filters
from drainer.ledger.known_messages import PASSING
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row, from_micros
from drainer.mail.message import PROBLEMS
from drainer.policy.recipient.state import FINAL, State
from drainer.runtime.units import describe_duration
from drainer.telemetry.ids import decision_span, trace_of


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why")(why)


def why(
    id_: IdArgument,
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Print every decision about one message in order, and the next step.

    Example: drainer why 4bX1Yz3Qk2z
    """
    with reading(path, ledger) as report:
        id_ = report.resolve(id_)
        paths = {r["n"]: r for r in report.recipients(Filters(messages=[id_]))}
        message = report.message(id_)
        decisions = decisions_of(report, id_, paths)
    states = {row["forward_path"]: row["state"] for row in paths.values()}
    step = next_step(list(paths.values()))
    if json_:
        facts = {"state": _overall(states), "states": states, "next": step}
        print_json({"id": id_, "decisions": decisions, **facts})
        return
    tell_decisions(id_, message, decisions)
    stdout().print(f"next: {clean(step, 400)}")


def decisions_of(
    report: LedgerReader, id_: str, paths: dict[int, Row]
) -> list[dict[str, Any]]:
    """Return every decision about a message; ``paths`` maps numbers to recipients."""
    numbers = report.attempt_numbers(id_)
    return [_decision(row, id_, numbers, paths) for row in report.decisions(id_)]


def _decision(
    row: Row,
    message: str,
    numbers: dict[int, int],
    paths: dict[int, Row],
) -> dict[str, Any]:
    attempt = row["attempt"]
    recipient = paths.get(row["n"]) if row["n"] is not None else None
    return {
        "at": from_micros(row["at"]).isoformat(),
        "attempt": numbers.get(attempt) if attempt else None,
        "kind": row["kind"],
        "forward_path": recipient["forward_path"] if recipient else None,
        "rule": row["rule"],
        "verdict": row["verdict"] or None,
        "reply": row["reply"] or None,
        "evidence": json.loads(row["evidence"]) if row["evidence"] else {},
        "trace_id": f"{trace_of(message):032x}",
        "span_id": f"{decision_span(row, message):016x}",
    }


def _overall(states: dict[str, str]) -> str:
    """Return the one state of a message: the least final one of its recipients."""
    order = [s.value for s in State if s not in FINAL] + [s.value for s in FINAL]
    found = sorted(set(states.values()), key=order.index)
    return found[0] if found else "done"


def tell_decisions(id_: str, message: Row, decisions: list[dict[str, Any]]) -> None:
    """Print the decisions about a message, in order."""
    console = stdout()
    arrived = f"{from_micros(message['arrived']):%Y-%m-%d %H:%M:%S}Z"
    console.print(
        f"message {id_[:12]} ({clean(message['native_id'])}) from"
        f" {clean(message['reverse_path'] or '<>')}, arrived {arrived}"
    )
    for fact in decisions:
        at = datetime.fromisoformat(fact["at"])
        attempt = f"attempt {fact['attempt']}, " if fact["attempt"] else ""
        who = f"{clean(fact['forward_path'])}: " if fact["forward_path"] else ""
        verdict = fact["verdict"] or fact["kind"]
        console.print(
            f"{at:%H:%M:%S} {attempt}{who}[bold]{verdict}[/] by {fact['rule']}"
        )
        reason = fact["evidence"].get("reason")
        if reason:
            console.print(f"         because {clean(reason, 300)}")
        if sent_to := fact["evidence"].get("sent_to"):
            console.print(f"         sent to {clean(sent_to)}, as the redirect says")
        if fact["reply"]:
            console.print(f"         {clean(fact['reply'], 300)}")


def next_step(rows: list[Row]) -> str:
    """Return what happens next, and what the operator can do."""
    now = datetime.now(UTC)
    words = []
    for row in rows:
        state = State(row["state"])
        if state in FINAL:
            continue
        due = from_micros(row["due"]) if row["due"] else None
        wait = max(0.0, (due - now).total_seconds()) if due else 0.0
        step = _next_held(row["rule"]) if state is State.HELD else _NEXT[state]
        step = step.replace("{wait}", describe_duration(wait))
        words.append(f"{row['forward_path']} {step}")
    return "; ".join(dict.fromkeys(words)) or "nothing: every recipient is final"


_NEXT = {
    State.PENDING: "will be sent by the next `drainer drain`",
    State.IN_FLIGHT: "is being sent now",
    State.DEFERRED: "is due in {wait}; a drain that runs then tries it again",
    State.UNKNOWN: "may have arrived; drainer sends it again, alone, in {wait}; search"
    " the primary's log for the Message-ID, and `drainer discard` it if it is there",
    State.BOUNCE_PENDING: "was refused, and is due for confirmation in {wait}:"
    " by the next drain, or `drainer bounces run`; if the refusal is wrong, `drainer"
    " requeue`; `drainer bounces show` says whether the sender would get a bounce, and"
    " `drainer bounces approve` does not wait",
}


_LOCAL = "local-"
"""How the rules of our own problems begin."""


def _next_held(rule: str) -> str:
    """Say what lifts a hold: it depends on the rule that made it."""
    code = rule.removeprefix(_LOCAL)
    if not rule.startswith(_LOCAL) or PROBLEMS.get(code, ("", True))[1]:
        return "waits for an operator: `drainer release` or `drainer discard`"
    if rule in PASSING:
        why = PROBLEMS[code][0]
        return f"is sent by the first `drainer drain` that finds this gone: {why}"
    if code in _CHANGED_BY:
        return f"cannot be released: {_CHANGED_BY[code]}, then `drainer requeue`"
    return (
        f"cannot be released ({PROBLEMS[code][0]}): deliver it by hand, or `drainer"
        " discard` it"
    )


_PRIMARY = "the primary must take such mail"
_CHANGED_BY = {
    "bare-newline": 'set `[primary] bare_newlines` to "space"',
    "too-large": _PRIMARY,
    "needs-smtputf8": _PRIMARY,
    "needs-8bitmime": _PRIMARY,
    "defect": "install a release of drainer that handles it",
}
"""What an operator changes before a problem of this code no longer holds a message."""
