"""`status`, `list`, `show`, `why`: what the ledger knows."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from drainer.cli.filters import with_filters
from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import Pages, print_json, shown, stdout, table
from drainer.config import Config
from drainer.errors import LedgerError
from drainer.ledger import Row, from_micros
from drainer.ledger.report import Filters, Report
from drainer.ledger.standing import expiry, standing
from drainer.observe.ids import decision_span, trace_of
from drainer.policy.meanings import meaning_of
from drainer.policy.state import FINAL, State
from drainer.sources import Source
from drainer.units import human_duration
from drainer.wiring import ledger_url, make_sources

Id = Annotated[
    str, typer.Argument(help="A drainer id or prefix, a queue id, or a Message-ID.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(status)
    app.command("list")(list_)
    app.command("show")(show)
    app.command("why")(why)


def _report(path: Any, ledger: str) -> Report:  # noqa: ANN401
    return Report(ledger_url(load(path, ledger=ledger)))


def status(
    source: Annotated[
        str, typer.Argument(help="Count this spool afresh as well.")
    ] = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Say where the drain stands, and whether every recipient is accounted for.

    Example: drainer status --json | jq .states
    """
    config = load(path, ledger=ledger)
    report = Report(ledger_url(config))
    opened = make_sources(config, [source], []) if source else []
    urls = [o.url for o in opened]
    facts = standing(report, config.retry.lifetime, urls)
    if opened:
        seen = Counter[str]()
        known = report.count_known(_ids(opened[0], seen))
        facts["source"] = {
            "url": opened[0].url,
            "messages": seen["messages"],
            "unknown_to_ledger": seen["messages"] - known,
        }
    if json_:
        print_json(facts)
        return
    _show_status(facts, report.reasons(urls))


def first_to_expire(config: Config, sources: list[str]) -> dict[str, Any] | None:
    """Return what an existing ledger says about it; nothing is created."""
    try:
        report = Report(ledger_url(config))
    except LedgerError:
        return None
    row = report.expires_first(sources)
    report.close()
    return expiry(row, config.retry.lifetime)


def _ids(source: Source, seen: Counter[str]) -> Iterator[str]:
    """Yield the ids of what lies in a spool, and count them."""
    for spooled in source.scan():
        seen["messages"] += 1
        yield spooled.message.id


def _show_status(facts: dict[str, Any], reasons: list[Row]) -> None:
    console = stdout()
    for gate in facts["gates"]:
        console.print(
            f"[red]gate of {shown(gate['scope'])} {gate['state']}[/]:"
            f" {shown(gate['reason'])} {shown(gate['reply'], 100)}"
        )
    for row in reasons:
        since = from_micros(row["since"])
        reply = f" ({shown(row['reply'], 100)})" if row["reply"] else ""
        console.print(
            f"{row['count']} {row['state']}: {shown(meaning_of(row['rule']))}"
            f" since {since:%Y-%m-%d %H:%M}Z{reply}"
        )
    show_expiry(facts["expires_first"])
    rows = table("state", "recipients")
    for state, count in facts["states"].items():
        if count:
            rows.add_row(state, str(count))
    console.print(rows)
    total = sum(facts["states"].values())
    if facts["balanced"]:
        console.print(f"{facts['spooled']} recipients recorded, all accounted for")
    else:
        console.print(
            f"[red]{facts['spooled']} recipients were recorded, but the states add up"
            f" to {total}: please report this[/]"
        )
    if "source" in facts:
        found = facts["source"]
        console.print(
            f"the spool holds {found['messages']} messages,"
            f" {found['unknown_to_ledger']} of them not in the ledger"
        )


def show_expiry(first: dict[str, Any] | None) -> None:
    """Say which recipient expires first, if any is on its way there."""
    if first is not None:
        stdout().print(
            f"first to expire: {shown(first['native_id'])} to"
            f" {shown(first['forward_path'])}, after {human_duration(first['left'])}"
            " more of waiting for a primary that answers"
        )


@with_filters
def list_(
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    filters: Filters,
    json_: JsonOption = False,
) -> None:
    """List recipients, one a line.

    Example: drainer list --state deferred --domain example.com --json
    """
    rows = _report(path, ledger).recipients(filters)
    if json_:
        for row in rows:
            print_json(recipient_facts(row))
        return
    columns = ("id", "native id", "recipient", "state", "attempts", "rule", "reply")
    pages = Pages(*columns)
    for row in rows:
        values = (
            row["native_id"],
            row["forward_path"],
            row["state"],
            row["attempts"],
            row["rule"],
            row["reply"],
        )
        pages.add(row["id"][:12], *(shown(value, 100) for value in values))
    pages.end()


def show(
    id_: Id,
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Show one message and its recipients.

    Example: drainer show 4bX1Yz3Qk2z
    """
    report = _report(path, ledger)
    facts = message_facts(report, report.resolve(id_))
    if json_:
        print_json(facts)
    else:
        tell_message(facts)


def message_facts(report: Report, id_: str) -> dict[str, Any]:
    """Return one message and its recipients for scripts."""
    message = report.message(id_)
    recipients = report.recipients(Filters(messages=[id_]))
    return {
        "id": id_,
        "source": message["source"],
        "native_id": message["native_id"],
        "queue": message["queue"],
        "arrived": from_micros(message["arrived"]).isoformat(),
        "reverse_path": message["reverse_path"],
        "size": message["size"],
        "message_id": message["message_id"],
        "problem": message["problem"] or None,
        **json.loads(message["details"]),
        "recipients": [recipient_facts(row) for row in recipients],
    }


def tell_message(facts: dict[str, Any]) -> None:
    """Print one message and its recipients."""
    console = stdout()
    for key, value in facts.items():
        if key != "recipients":
            console.print(f"{key}: {shown(value)}")
    rows = table("recipient", "state", "attempts", "due", "rule", "reply")
    for fact in facts["recipients"]:
        rows.add_row(
            *(
                shown(fact[key] if fact[key] is not None else "")
                for key in ("forward_path", "state", "attempts", "due", "rule", "reply")
            )
        )
    console.print(rows)


def recipient_facts(row: Row) -> dict[str, Any]:
    """Return one recipient for scripts."""
    return {
        "id": row["id"],
        "native_id": row["native_id"],
        "forward_path": row["forward_path"],
        "state": row["state"],
        "due": from_micros(row["due"]).isoformat() if row["due"] else None,
        "attempts": row["attempts"],
        "reply": row["reply"] or None,
        "rule": row["rule"] or None,
        "message_id": row["message_id"] or None,
    }


def why(
    id_: Id,
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Tell every decision about one message in order, and the next step.

    Example: drainer why 4bX1Yz3Qk2z
    """
    report = _report(path, ledger)
    id_ = report.resolve(id_)
    paths = {r["n"]: r for r in report.recipients(Filters(messages=[id_]))}
    decisions = decisions_of(report, id_, paths)
    states = {row["forward_path"]: row["state"] for row in paths.values()}
    step = next_step(list(paths.values()))
    if json_:
        print_json(
            {
                "id": id_,
                "decisions": decisions,
                "state": _overall(states),
                "states": states,
                "next": step,
            }
        )
        return
    tell_decisions(id_, report.message(id_), decisions)
    stdout().print(f"next: {shown(step, 400)}")


def decisions_of(
    report: Report, id_: str, paths: dict[int, Row]
) -> list[dict[str, Any]]:
    """Return every decision about a message; ``paths`` are its recipients by number."""
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
    """Return the one state of a message: its recipients', the least final first."""
    order = [s.value for s in State if s not in FINAL] + [s.value for s in FINAL]
    found = sorted(set(states.values()), key=order.index)
    return found[0] if found else "done"


def tell_decisions(id_: str, message: Row, decisions: list[dict[str, Any]]) -> None:
    """Print the decisions about a message, in order."""
    console = stdout()
    arrived = f"{from_micros(message['arrived']):%Y-%m-%d %H:%M:%S}Z"
    console.print(
        f"message {id_[:12]} ({shown(message['native_id'])}) from"
        f" {shown(message['reverse_path'] or '<>')}, arrived {arrived}"
    )
    for fact in decisions:
        at = datetime.fromisoformat(fact["at"])
        attempt = f"attempt {fact['attempt']}, " if fact["attempt"] else ""
        who = f"{shown(fact['forward_path'])}: " if fact["forward_path"] else ""
        verdict = fact["verdict"] or fact["kind"]
        console.print(
            f"{at:%H:%M:%S} {attempt}{who}[bold]{verdict}[/] by {fact['rule']}"
        )
        reason = fact["evidence"].get("reason")
        if reason:
            console.print(f"         because {shown(reason, 300)}")
        if sent_to := fact["evidence"].get("sent_to"):
            console.print(f"         sent to {shown(sent_to)}, as it was mapped")
        if fact["reply"]:
            console.print(f"         {shown(fact['reply'], 300)}")


def next_step(rows: list[Row]) -> str:
    """Say what happens next, and what a person can do."""
    now = datetime.now(UTC)
    words = []
    for row in rows:
        state = State(row["state"])
        if state in FINAL:
            continue
        due = from_micros(row["due"]) if row["due"] else None
        wait = max(0.0, (due - now).total_seconds()) if due else 0.0
        words.append(
            f"{row['forward_path']} {_NEXT[state]}".replace(
                "{wait}", human_duration(wait)
            )
        )
    return "; ".join(dict.fromkeys(words)) or "nothing: every recipient is final"


_NEXT = {
    State.PENDING: "is sent by the next `drainer drain`",
    State.IN_FLIGHT: "is being sent now",
    State.DEFERRED: "is tried again in {wait}, by a drain that runs then",
    State.UNKNOWN: "may have arrived; it is sent again, alone, in {wait}; search the"
    " primary's log for the Message-ID, and `drainer discard` it if it is there",
    State.HELD: "waits for a person: `drainer release` or `drainer discard`",
    State.BOUNCE_PENDING: "was refused, and is tried again for confirmation in {wait}:"
    " by the next drain, or `drainer bounces run`; if the refusal is wrong, `drainer"
    " requeue`; `drainer bounces show` says whether the sender would be told",
}
