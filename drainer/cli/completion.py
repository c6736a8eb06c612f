"""What a shell completes besides commands and options: states, queues, sources, IDs.

The shells evaluate what is printed here. Strangers choose queue ids and file names, so
a value with any character that a shell could interpret is left out.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from drainer.errors import DrainerError
from drainer.policy.recipient.state import State

if TYPE_CHECKING:
    from drainer.config import Config

SHOWN = 50
"""The most IDs that are offered."""
QUEUES = ("deferred", "active", "incoming", "maildrop", "hold", "corrupt", "new", "cur")
"""Names of parts of a spool, of Postfix and of Maildirs."""

_HARMLESS = re.compile(r"[\w.,:/@+=-]{1,200}", re.ASCII)


def _matches(values: Iterable[str], incomplete: str) -> list[str]:
    return [
        each
        for each in dict.fromkeys(values)
        if each.startswith(incomplete) and _HARMLESS.fullmatch(each)
    ]


def complete_state(incomplete: str) -> list[str]:
    """Return the states that start so."""
    return _matches((state.value for state in State), incomplete)


def complete_queue(incomplete: str) -> list[str]:
    """Return the usual parts of a spool that start so."""
    return _matches(QUEUES, incomplete)


def complete_source(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of ``[sources.NAME]`` tables, and the kinds of sources."""
    from drainer.sources.registry import SCHEMES  # noqa: PLC0415 - for a shell alone

    config = _config(ctx)
    names = () if config is None else config.sources
    kinds = (f"{scheme}:" for scheme in SCHEMES)
    return _matches((*names, "postfix:live", *kinds), incomplete)


def complete_id(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return drainer ids and queue ids in the ledger that start so, the latest."""
    from drainer.config.build.paths import ledger_url  # noqa: PLC0415 - likewise
    from drainer.ledger.reader import LedgerReader  # noqa: PLC0415 - likewise

    config = _config(ctx)
    if config is None:
        return []
    try:
        with LedgerReader(ledger_url(config)) as report:
            return _matches(report.ids_from(incomplete, SHOWN), incomplete)
    except DrainerError:  # no ledger yet
        return []


def _config(ctx: typer.Context) -> "Config | None":
    """Return the configuration of the command line so far; None if it is invalid."""
    from drainer.config import load as config_file  # noqa: PLC0415 - likewise

    path, ledger = ctx.params.get("path"), ctx.params.get("ledger")
    over = {"ledger": {"url": ledger}} if ledger else {}
    try:
        return config_file.load(Path(path) if path else None, over)
    except (DrainerError, OSError):
        return None
