"""`ledger`: check the ledger, copy it, remove old mail from it."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import asdict, replace

from drainer.bounce.quarantine.cleanup import sweep
from drainer.bounce.quarantine.store import Quarantine
from drainer.cli.filters import require_duration, require_reason
from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import clean, print_json, say, stdout
from drainer.cli.table import Table
from drainer.config import Config
from drainer.config.build.paths import (
    LedgerURL,
    ledger_name,
    ledger_url,
    marker_folders,
    quarantine_folder,
)
from drainer.errors import UsageError
from drainer.ledger.backup import back_up
from drainer.ledger.integrity import check_ledger
from drainer.ledger.reader import LedgerReader
from drainer.ledger.retention import (
    PruneCount,
    PruneRequest,
    count_prunable,
    find_sources,
    prune,
)
from drainer.mail.reply import printable
from drainer.policy.bounce.limits import KEEP_KEYS
from drainer.runtime.units import format_duration
from drainer.sources.common.marker_index import marked_sources, path_of

app = typer.Typer(no_args_is_help=True)


@app.command("check")
def check(
    path: ConfigOption = None, ledger: LedgerOption = "", *, json_: JsonOption = False
) -> None:
    """Check that the ledger is whole: storage, tables, sums and references.

    It changes nothing. Drains may run meanwhile.

    Exit status: 0 the ledger is whole; 1 it is damaged; 2 it cannot be used.

    Example: drainer ledger check
    """
    url = ledger_url(load(path, ledger=ledger))
    findings = list(check_ledger(url))
    whole = not any(finding.problem for finding in findings)
    if json_:
        checks = [
            {"check": f.check, "ok": not f.problem, "found": f.problem or f.found}
            for f in findings
        ]
        print_json({"ledger": ledger_name(url), "ok": whole, "checks": checks})
    else:
        stdout().print(f"[bold]ledger {clean(ledger_name(url))}[/]", soft_wrap=True)
        table = Table("check", "", "found", fold="found")
        for f in findings:
            verdict = "[red]FAIL[/]" if f.problem else "[green]ok[/]"
            table.add(f.check, verdict, clean(f.problem or f.found, 1000))
        table.end()
    if not whole:
        say("do not drain with this ledger: restore a backup; docs/operations.md")
        raise typer.Exit(1)


@app.command("backup")
def backup(
    to: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="File to write; it must not exist."),
    ],
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Copy the ledger to a file, consistently, also while drains write to it.

    It copies no ledger on a database server: then it names the command to run, pg_dump
    or mariadb-dump.

    Exit status: 0 the copy is complete; 2 it was not made.

    Example: drainer ledger backup /var/backups/drainer-ledger.db
    """
    url = ledger_url(load(path, ledger=ledger))
    size = back_up(url, to.absolute())
    if json_:
        print_json({"ledger": ledger_name(url), "backup": str(to), "bytes": size})
    else:
        say(f"copied {ledger_name(url)} to {to}: {size} bytes")


@app.command("prune")
def prune_(
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            help="Remove messages that nothing has happened to for this long: 14d or"
            " more.",
        ),
    ],
    gone: Annotated[
        list[str],
        typer.Option(
            "--gone",
            metavar="SOURCE",
            help="The spool of this source was removed, with every copy; may be"
            " repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer copies it
    reason: Annotated[str, typer.Option(help="Reason; recorded.")] = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only print what it would remove.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Remove old messages that are delivered, bounced or discarded.

    It keeps what could be delivered again without it: messages that their source may
    still have. It refuses while a source has a marker of this ledger. After a prune,
    never drain an older copy of a spool with this ledger.

    Example: drainer ledger prune --older-than 90d --reason 'retention' --dry-run
    """
    config = load(path, ledger=ledger, acts=not dry_run)
    url = ledger_url(config)
    request = PruneRequest(
        before=_before(older_than),
        gone=tuple(gone),
        exports=config.telemetry.traces != "off",
        reason=reason,
    )
    _refuse_marked(url)
    _refuse_present(url, gone)
    found = count_prunable(url, request)
    if not dry_run:
        require_reason("prune", reason)
        found = _remove(config, request, found)
    _print(found, as_json=json_, dry_run=dry_run)


def _before(older_than: str) -> datetime:
    age = require_duration(older_than)
    if age < KEEP_KEYS:
        least = format_duration(KEEP_KEYS)
        message = f"--older-than {older_than} is too short"
        hint = f"give {least} or more: reports to senders count for so long"
        raise UsageError(message, hint=hint)
    try:
        return datetime.now(UTC) - age
    except OverflowError:
        raise UsageError(f"--older-than {older_than} is before the year 1") from None


def _refuse_marked(url: LedgerURL) -> None:
    """Refuse while a source has a marker of this ledger; UsageError."""
    with LedgerReader(url) as report:
        identity = report.identity()
    for marked in marked_sources(identity, find_sources(url), marker_folders(url)):
        place = printable(os.fspath(marked.place.folder / marked.place.name))
        message = (
            f"{printable(marked.url)} may still hold mail that this ledger knows as"
            f" delivered: its marker {place} names the ledger"
        )
        hint = (
            "finish that drain (`drainer status` shows what is left); if it was a copy"
            " or an archive, remove it, and remove the marker"
        )
        raise UsageError(message, hint=hint)


def _refuse_present(url: LedgerURL, gone: list[str]) -> None:
    """Refuse to call a source gone that the ledger lacks, or that is still there."""
    known = find_sources(url)
    for each in gone:
        if each not in known:
            message = f"the ledger knows no source {printable(each)}"
            raise UsageError(message, hint=f"it knows: {', '.join(known) or 'none'}")
        path = path_of(each)
        if path is None:
            message = f"{printable(each)} is not a source of files"
            hint = "--gone is only for folders and files that were removed"
            raise UsageError(message, hint=hint)
        if os.path.lexists(path):
            message = f"{printable(each)} is not gone: {printable(str(path))} exists"
            raise UsageError(message, hint="remove it first, with every copy of it")


def _remove(config: Config, request: PruneRequest, found: PruneCount) -> PruneCount:
    url = ledger_url(config)
    with LedgerReader(url) as report:  # the copies go first: their messages name them
        sweep(report, Quarantine(quarantine_folder(url)))
    return replace(found, messages=prune(url, request))


def _print(found: PruneCount, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        print_json({**asdict(found), "dry_run": dry_run})
        return
    done = "would be removed" if dry_run else "removed"
    stdout().print(f"{found.messages} messages {done}")
    for reason, count in found.kept.items():
        stdout().print(f"{count} are kept: they {reason}")
