"""Shared by the operator's actions: which recipients they act on, and confirmation."""

import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import replace

from drainer.cli.completion import complete_id
from drainer.cli.filters import filters_of, options_as, require_reason, selection_of
from drainer.cli.options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    ReasonOption,
    load,
)
from drainer.cli.output import clean, stdout
from drainer.config import Config
from drainer.errors import UsageError
from drainer.ledger.filters import Filters
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row
from drainer.policy.classify.describe import meaning_of

SHOWN = 100
"""The most recipients that a dry run lists."""

IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID",
        autocompletion=complete_id,
        help="Drainer ids or prefixes, queue ids, or Message-IDs.",
        show_default=False,
    ),
]


class OperatorRequest(Struct, frozen=True, kw_only=True):
    """What an operator asked an action to do."""

    config: Config
    ids: Sequence[str]
    filters: Filters
    reason: str
    dry_run: bool
    yes: bool
    as_json: bool

    def insist(self, name: str, count: int) -> None:
        """Require a reason; on a terminal, ask before so many recipients change."""
        require_reason(name, self.reason)
        if count and not self.yes and sys.stdin.isatty():
            typer.confirm(f"{name} {count} recipients?", abort=True, err=True)


def _request_of(
    ids: IdsArgument = None,
    reason: ReasonOption = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only list what it would act on.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")
    ] = False,
    json_: JsonOption = False,
    **filters: Any,  # noqa: ANN401
) -> OperatorRequest:
    return OperatorRequest(
        config=load(path, ledger=ledger),
        ids=ids or (),
        filters=filters_of(**filters),
        reason=reason,
        dry_run=dry_run,
        yes=yes,
        as_json=json_,
    )


as_verb = options_as("asked", _request_of, _request_of, filters_of, selection_of)
"""Gives a command the argument and options of an action, as ``asked``."""


def select_messages(
    report: LedgerReader, ids: Sequence[str], filters: Filters, name: str
) -> Filters:
    """Return the filters for these messages; UsageError without an ID or a filter."""
    if not ids and filters.empty:
        raise UsageError(f"{name} needs an ID or a filter", hint="--help lists them")
    return replace(filters, messages=[report.resolve(each) for each in ids])


def show_touched(rows: Iterable[Row]) -> None:
    """Print the recipients that a dry run found; only the first ones of very many."""
    for row in islice(rows, SHOWN):
        stdout().print(
            f"{clean(row['native_id'])} {clean(row['forward_path'])} {row['state']}:"
            f" {clean(meaning_of(row['rule']))}"
        )
