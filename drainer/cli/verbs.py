"""What the operator's verbs have in common: whom they name, and how they ask."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Annotated

import typer

from drainer.cli.output import shown, stdout
from drainer.errors import UsageError
from drainer.ledger import Row
from drainer.ledger.filters import Filters
from drainer.ledger.report import Report
from drainer.policy.meanings import meaning_of

SHOWN = 100
"""Recipients that a dry run lists."""

IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID",
        help="Drainer ids or prefixes, queue ids, or Message-IDs.",
        show_default=False,
    ),
]
ReasonOption = Annotated[
    str, typer.Option(help="Why; it is recorded with the decision.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would be touched.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")]


def named(
    report: Report, ids: Sequence[str] | None, filters: Filters, name: str
) -> Filters:
    """Return the filters for these messages; UsageError when nobody is named."""
    if not ids and filters.empty:
        message = f"{name} needs an ID or a filter"
        raise UsageError(message, hint="add --help to see them")
    return replace(filters, messages=[report.resolve(each) for each in ids or ()])


def insist(name: str, reason: str, count: int) -> None:
    """Want a reason; and, on a terminal, a yes for so many recipients."""
    if not reason:
        message = f"{name} needs --reason"
        raise UsageError(message, hint="it is recorded, for whoever asks later")
    if count and sys.stdin.isatty():
        typer.confirm(f"{name} {count} recipients?", abort=True, err=True)


def show_touched(rows: Iterable[Row]) -> None:
    """Print who would be touched, for a dry run; of very many the first ones."""
    for row in islice(rows, SHOWN):
        stdout().print(
            f"{shown(row['native_id'])} {shown(row['forward_path'])} {row['state']}:"
            f" {shown(meaning_of(row['rule']))}"
        )
