"""`list` and `show`: recipients and messages of the ledger."""

import json
from typing import Any

import typer

from drainer.cli.filters import with_filters
from drainer.cli.options import (
    ConfigOption,
    IdArgument,
    JsonOption,
    LedgerOption,
    reading,
)
from drainer.cli.output import PagedTable, clean, print_json, stdout, table
from drainer.ledger.filters import Filters
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row, from_micros
from drainer.mail.queue_id import queue_id_of
from drainer.policy.recipient.state import State

_COLUMNS = {
    "native id": "native_id",
    "recipient": "forward_path",
    "state": "state",
    "attempts": "attempts",
    "rule": "rule",
    "reply": "reply",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("list")(list_)
    app.command("show")(show)


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
    with reading(path, ledger) as report:
        if json_:
            for row in report.recipients(filters):
                print_json(recipient_facts(row))
            return
        pages = PagedTable("id", *_COLUMNS)
        for row in report.recipients(filters):
            values = (clean(row[column], 100) for column in _COLUMNS.values())
            pages.add(row["id"][:12], *values)
        pages.end()


def show(
    id_: IdArgument,
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Show one message and its recipients.

    Example: drainer show 4bX1Yz3Qk2z
    """
    with reading(path, ledger) as report:
        facts = message_facts(report, report.resolve(id_))
    if json_:
        print_json(facts)
    else:
        tell_message(facts)


def message_facts(report: LedgerReader, id_: str) -> dict[str, Any]:
    """Return one message and its recipients as JSON for scripts."""
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
            console.print(f"{key}: {clean(value)}")
    rows = table("recipient", "state", "attempts", "due", "rule", "reply")
    for fact in facts["recipients"]:
        rows.add_row(
            *(
                clean(fact[key] if fact[key] is not None else "")
                for key in ("forward_path", "state", "attempts", "due", "rule", "reply")
            )
        )
    console.print(rows)


def recipient_facts(row: Row) -> dict[str, Any]:
    """Return one recipient as JSON for scripts."""
    return {
        "id": row["id"],
        "native_id": row["native_id"],
        "forward_path": row["forward_path"],
        "route": row["route"],
        "state": row["state"],
        "due": from_micros(row["due"]).isoformat() if row["due"] else None,
        "attempts": row["attempts"],
        "reply": row["reply"] or None,
        "rule": row["rule"] or None,
        "message_id": row["message_id"] or None,
        "sha256": row["sha256"] or None,
        "remote_id": _remote_id(row),
    }


def _remote_id(row: Row) -> str | None:
    """Return the queue id with which the primary accepted it, if the reply has one."""
    if row["state"] != State.DELIVERED.value:
        return None
    return queue_id_of(row["reply"] or "") or None
