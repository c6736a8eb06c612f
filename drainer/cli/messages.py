"""`show`: one message of the ledger and its recipients."""

import json
from typing import Any

from drainer.cli.options import (
    ConfigOption,
    IdArgument,
    JsonOption,
    LedgerOption,
    load,
)
from drainer.cli.output import clean, print_json, stdout
from drainer.cli.recipients import recipient_facts
from drainer.cli.table import Table
from drainer.cli.times import format_time
from drainer.config.build.paths import ledger_url
from drainer.ledger.filters import Filters
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import from_micros


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
    with LedgerReader(ledger_url(load(path, ledger=ledger))) as report:
        facts = message_facts(report, report.resolve(id_))
    if json_:
        print_json(facts)
    else:
        print_message(facts)


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


def print_message(facts: dict[str, Any]) -> None:
    """Print one message and its recipients."""
    console = stdout()
    for key, value in facts.items():
        if key == "arrived":
            console.print(f"{key}: {format_time(value)}")
        elif key != "recipients":
            console.print(f"{key}: {clean(value, 2000)}", soft_wrap=True)
    table = Table(
        "recipient", "state", "attempts", "due", "rule", "reply",
        spare=("attempts", "rule", "due"), fold="reply",
    )  # fmt: skip
    for fact in facts["recipients"]:
        table.add(
            clean(fact["forward_path"], 1000),
            fact["state"],
            str(fact["attempts"]),
            format_time(fact["due"]),
            clean(fact["rule"] or ""),
            clean(fact["reply"] or "", 1000),
        )
    table.end()
