"""The operator's verbs: hold, release, requeue, discard; and how any verb is asked."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Annotated

import typer

from drainer.cli.filters import with_filters
from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import print_json, say, shown, stdout
from drainer.config import Config
from drainer.errors import UsageError
from drainer.ledger.operate import VERBS, Verb, apply_verb, touchable
from drainer.ledger.report import Filters, Report
from drainer.policy.meanings import meaning_of
from drainer.policy.state import State
from drainer.wiring import LedgerURL, ledger_url

SHOWN = 100
"""Recipients that a dry run lists."""

_HELP = {
    "hold": "Set recipients aside until somebody releases them.",
    "release": "Let held recipients go; overrules problems that may be overruled.",
    "requeue": "Make recipients due now, as if they had never been tried.",
    "discard": "Give recipients up for good: they are neither sent nor bounced.",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, verb in VERBS.items():
        app.command(
            name,
            help=f"{_HELP[name]}\n\nExample: drainer {name} --domain"
            " example.com --reason 'moved away'",
        )(verb_command(verb))


def _nothing(config: Config) -> None:
    """Do no more."""


def verb_command(
    verb: Verb,
    within: Sequence[State] = tuple(State),
    afterwards: Callable[[Config], None] = _nothing,
) -> Callable[..., None]:
    """Return the command of a verb, for recipients in some of its states.

    ``afterwards`` is called when the ledger knows.
    """

    @with_filters
    def command(
        ids: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="ID",
                help="Drainer ids or prefixes, queue ids, or Message-IDs.",
                show_default=False,
            ),
        ] = None,
        reason: Annotated[
            str, typer.Option(help="Why; it is recorded with the decision.")
        ] = "",
        path: ConfigOption = None,
        ledger: LedgerOption = "",
        *,
        filters: Filters,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Only say what would be touched.")
        ] = False,
        yes: Annotated[
            bool, typer.Option("--yes", help="Do not ask on a terminal.")
        ] = False,
        json_: JsonOption = False,
    ) -> None:
        config = load(path, ledger=ledger)
        url = ledger_url(config)
        chosen, count = _choose(verb, url, ids or [], filters, within)
        if dry_run:
            if not json_:
                _show_touched(url, chosen)
            _say_count(count, f"would be {verb.done}", as_json=json_)
            return
        _insist(verb, reason, 0 if yes else count)
        changed = apply_verb(url, verb, chosen, reason) if count else 0
        afterwards(config)
        _say_done(verb, changed, count, as_json=json_)

    return command


def _insist(verb: Verb, reason: str, count: int) -> None:
    """Want a reason; and, on a terminal, a yes for so many recipients."""
    if not reason:
        message = f"{verb.name} needs --reason"
        raise UsageError(message, hint="it is recorded, for whoever asks later")
    if count and sys.stdin.isatty():
        typer.confirm(f"{verb.name} {count} recipients?", abort=True, err=True)


def _show_touched(url: LedgerURL, chosen: Filters) -> None:
    """Print who would be touched; of very many the first ones."""
    if not chosen.states:
        return
    report = Report(url)
    for row in islice(report.recipients(chosen), SHOWN):
        stdout().print(
            f"{shown(row['native_id'])} {shown(row['forward_path'])} {row['state']}:"
            f" {shown(meaning_of(row['rule']))}"
        )
    report.close()


def _say_done(verb: Verb, changed: int, count: int, *, as_json: bool) -> None:
    if not count:
        say(f"nothing that matches can be {verb.done}; `drainer list` shows states")
    _say_count(changed, verb.done, as_json=as_json)
    if changed != count:
        say(f"{count - changed} had moved on meanwhile")


def _choose(
    verb: Verb,
    url: LedgerURL,
    ids: list[str],
    filters: Filters,
    within: Sequence[State],
) -> tuple[Filters, int]:
    """Return which recipients are meant and may be touched, and their number."""
    report = Report(url)
    chosen = named(report, ids, filters, verb.name)
    states = touchable(verb, chosen.states or [s.value for s in State])
    states = [state for state in states if state in within]
    chosen = replace(chosen, states=states)
    count = sum(1 for _ in report.recipients(chosen)) if states else 0
    report.close()
    return chosen, count


def named(report: Report, ids: list[str], filters: Filters, name: str) -> Filters:
    """Return the filters for these messages; UsageError when nobody is named."""
    if not ids and filters.empty:
        message = f"{name} needs an ID or a filter"
        raise UsageError(message, hint="add --help to see them")
    return replace(filters, messages=[report.resolve(i) for i in ids])


def _say_count(count: int, done: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"recipients": count, "done": done})
    else:
        stdout().print(f"{count} recipients {done}")
