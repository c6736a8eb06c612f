"""`report`: one file that says what happened to the mail, to hand on."""

import os
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from drainer import __version__
from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import print_json, say
from drainer.cli.report_page import mask_addresses, render
from drainer.config.build.paths import ledger_name, ledger_url
from drainer.config.build.rules import make_rules
from drainer.errors import UsageError
from drainer.ledger.query.drain_report import report_facts
from drainer.ledger.reader import LedgerReader
from drainer.runtime.private_files import replace_file

PRIVATE = 0o600
"""The mode of the file."""


class ReportFormat(StrEnum):
    """What a report is written as."""

    HTML = "html"
    MARKDOWN = "md"
    JSON = "json"


def report(
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    format_: Annotated[
        ReportFormat, typer.Option("--format", help="html, md or json.")
    ] = ReportFormat.HTML,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write it to this file, private.", dir_okay=False
        ),
    ] = None,
    *,
    json_: JsonOption = False,
) -> None:
    """Write a report of everything that the ledger knows, during or after a drain.

    The HTML is one file, without scripts and without anything from the network. Its
    sums equal those of `drainer status`; `drainer list --json` has every line of them.
    It shows addresses as `[telemetry] addresses` says: hashed unless you change it.

    Example: drainer report --output report.html
    """
    config = load(path, ledger=ledger)
    url = ledger_url(config)
    kind = ReportFormat.JSON if json_ else format_
    with LedgerReader(url) as reader, reader.snapshot():
        facts = report_facts(reader, datetime.now(UTC), make_rules(config))
        facts |= {"ledger": ledger_name(url), "version": __version__}
        facts = mask_addresses(
            facts, reader.salt(), plain=config.telemetry.addresses == "plain"
        )
    if kind is ReportFormat.JSON and output is None:
        print_json(facts)
        return
    text = render(facts, kind.value)
    if output is None:
        sys.stdout.write(text)
        return
    try:
        replace_file(output, text.encode(), PRIVATE)
    except OSError as error:
        message = f"cannot write {output}: {os.strerror(error.errno or 0)}"
        raise UsageError(message, hint="its folder must exist") from None
    say(f"the report is in {output}")
