"""`why`: every decision about one message, in order, and the next step."""

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from drainer.cli.options import (
    ConfigOption,
    IdArgument,
    JsonOption,
    LedgerOption,
    load,
)
from drainer.cli.output import clean, print_json, stdout
from drainer.cli.times import format_time
from drainer.config.build.paths import LedgerURL, ledger_url
from drainer.errors import UsageError
from drainer.ledger.filters import Filters
from drainer.ledger.known_messages import PASSING
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row, from_micros
from drainer.mail.message import PROBLEMS
from drainer.policy.admission.admit import FOREIGN
from drainer.policy.breaker.remedies import advice
from drainer.policy.recipient.state import FINAL, State
from drainer.runtime.units import describe_duration
from drainer.telemetry.ids import TraceIds
from drainer.telemetry.json_encoder import JsonEncoder
from drainer.telemetry.lookup import find, spans_of
from drainer.telemetry.spans import make_resource
from drainer.telemetry.tree import tree_of

POLL = 1.0
"""Seconds between two looks at the ledger with --follow."""


def why(
    id_: IdArgument,
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    trace: Annotated[
        bool, typer.Option("--trace", help="Print the spans of its trace as a tree.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", help="Print what is decided from now on too, until it is final."
        ),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Print every decision about one message in order, and the next step.

    ID may also be the id of a trace, or the hash of an address in one: drainer prints
    which address that is, and its messages.

    Example: drainer why 4bX1Yz3Qk2z
    """
    url = ledger_url(load(path, ledger=ledger))
    with LedgerReader(url) as report:
        found = _resolve(report, id_, as_json=json_)
        if found is None:
            return
        shown = _show_trace if trace else _show_decisions
        last = shown(report, url, found, 0, as_json=json_)
        while follow and not _is_final(report, found):
            time.sleep(POLL)
            last = shown(report, url, found, last, as_json=json_)


def _is_final(report: LedgerReader, id_: str) -> bool:
    rows = report.recipients(Filters(messages=[id_]))
    return all(State(row["state"]) in FINAL for row in rows)


def _resolve(report: LedgerReader, text: str, *, as_json: bool) -> str | None:
    """Return the message that an operator meant; print what a hash stands for."""
    try:
        return report.resolve(text)
    except UsageError:
        meaning = find(report, text)
        if meaning is None:
            raise
    single = meaning.messages[0] if len(meaning.messages) == 1 else None
    if not meaning.text:
        return single
    if as_json:
        facts = {"hash": text, "text": meaning.text, "messages": meaning.messages}
        if single is None:
            print_json(facts)
        return single
    stdout().print(f"{clean(text)} is {clean(meaning.text)}")
    if single is None:
        for each in meaning.messages:
            stdout().print(f"  {each}")
    return single


def _show_trace(
    report: LedgerReader, url: LedgerURL, id_: str, last: int, *, as_json: bool
) -> int:
    """Print the spans of the decisions behind a number; return the last number."""
    spans, last = spans_of(url, id_, last)
    if as_json and spans:
        resource = make_resource(report.identity(), rehearsal=False)
        print_json(json.loads(JsonEncoder(resource.attributes).request(spans)))
    elif spans:
        stdout().print(escape("".join(tree_of(spans))), end="")
    return last


def _show_decisions(
    report: LedgerReader, url: LedgerURL, id_: str, last: int, *, as_json: bool
) -> int:
    """Print the decisions behind a number, and the next step; return the last one."""
    del url
    paths = {r["n"]: r for r in report.recipients(Filters(messages=[id_]))}
    decisions, ends = decisions_of(report, id_, paths, last)
    if last and not decisions:
        return last
    states = {row["forward_path"]: row["state"] for row in paths.values()}
    step = next_step(list(paths.values()))
    if as_json:
        facts = {"state": _overall(states), "states": states, "next": step}
        print_json({"id": id_, "decisions": decisions, **facts})
        return ends
    if not last:
        show_message(id_, report.message(id_))
    print_decisions(decisions)
    stdout().print(f"next: {clean(step, 400)}")
    return ends


def decisions_of(
    report: LedgerReader, id_: str, paths: dict[int, Row], after: int = 0
) -> tuple[list[dict[str, Any]], int]:
    """Return the decisions about a message behind a number; and the last number.

    ``paths`` maps numbers to recipients.
    """
    attempts = report.attempts_of(id_)
    ids = TraceIds(report.salt())
    rows = [row for row in report.decisions(id_) if row["id"] > after]
    facts = [_decision(row, ids.decision(row, id_), attempts, paths) for row in rows]
    return facts, rows[-1]["id"] if rows else after


def _decision(
    row: Row,
    place: tuple[int, int],
    attempts: dict[int, tuple[int, str]],
    paths: dict[int, Row],
) -> dict[str, Any]:
    number, connection = attempts.get(row["attempt"], (None, ""))
    recipient = paths.get(row["n"]) if row["n"] is not None else None
    return {
        "at": from_micros(row["at"]).isoformat(),
        "attempt": number,
        "route": (recipient["route"] or None) if recipient else None,
        "server": _server(connection) or None,
        "kind": row["kind"],
        "forward_path": recipient["forward_path"] if recipient else None,
        "rule": row["rule"],
        "verdict": row["verdict"] or None,
        "reply": row["reply"] or None,
        "evidence": json.loads(row["evidence"]) if row["evidence"] else {},
        "trace_id": f"{place[0]:032x}",
        "span_id": f"{place[1]:016x}",
    }


def _server(connection: str) -> str:
    """Return the host that answered, and its address; see smtp.connection."""
    address, _, host = [*connection.split(" "), "", ""][:3]
    return address if not host or host in address else f"{host} ({address})"


def _overall(states: dict[str, str]) -> str:
    """Return the one state of a message: the least final one of its recipients."""
    order = [s.value for s in State if s not in FINAL] + [s.value for s in FINAL]
    found = sorted(set(states.values()), key=order.index)
    return found[0] if found else "done"


def show_message(id_: str, message: Row) -> None:
    """Print which message the decisions are about."""
    stdout().print(
        f"message {id_[:12]} ({clean(message['native_id'])}) from"
        f" {clean(message['reverse_path'] or '<>')}, arrived"
        f" {format_time(message['arrived'])}"
    )


def print_decisions(decisions: list[dict[str, Any]]) -> None:
    """Print the decisions about a message, in order."""
    console = stdout()
    for fact in decisions:
        attempt = f"attempt {fact['attempt']}, " if fact["attempt"] else ""
        who = f"{clean(fact['forward_path'])}: " if fact["forward_path"] else ""
        verdict = fact["verdict"] or fact["kind"]
        console.print(
            f"{format_time(fact['at'])} {attempt}{who}[bold]{verdict}[/]"
            f" by {fact['rule']}"
        )
        reason = fact["evidence"].get("reason")
        if reason:
            console.print(f"         because {clean(reason, 300)}")
        if sent_to := fact["evidence"].get("sent_to"):
            console.print(f"         sent to {clean(sent_to)}, as the redirect says")
        if server := fact["server"]:
            host, port = (
                server.partition(" (")[0],
                server.rstrip(")").rpartition(":")[2],
            )
            route = fact["route"] or server
            is_other = route not in (server, f"{host}:{port}")
            of = f", of the route {clean(route)}" if is_other else ""
            console.print(f"         at {clean(server)}{of}")
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
"""How the rules of our own problems start."""


def _next_held(rule: str) -> str:
    """Say what lifts a hold: it depends on the rule that made it."""
    code = rule.removeprefix(_LOCAL)
    if code in FOREIGN:
        return (
            "is sent by the first `drainer drain` that has a route for it:"
            f" {advice(rule, '')}; `drainer release` sends it by the route of [primary]"
        )
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
