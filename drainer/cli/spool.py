"""`spool create` and `import` for database spools; `give-back`, `settle` for queues."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any

import typer

from drainer.cli.options import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    LedgerOption,
    load,
    source_argument,
)
from drainer.cli.output import print_json, say, stdout, warn
from drainer.config import Config
from drainer.config.build.paths import (
    ledger_name,
    ledger_url,
    lock_folder,
    marker_folders,
)
from drainer.config.build.spools import make_sources
from drainer.delivery.console import print_released
from drainer.delivery.holds import SpoolHolds
from drainer.delivery.source_claims import SourceClaims
from drainer.errors import UsageError
from drainer.ledger.reader import LedgerReader
from drainer.mail.message import Problem
from drainer.mail.reply import printable
from drainer.sources.database.importer import SpoolDatabase, create_spool
from drainer.sources.protocol import HoldingSource, ReleasedCount, SettledSource

Step = Callable[
    [SpoolHolds, LedgerReader], Coroutine[Any, Any, Mapping[str, ReleasedCount]]
]
"""Something that is done to the holds of a queue, with what the ledger knows."""

UrlArgument = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="sqlite:////path/spool.db, postgresql://user@host/database or mysql://...",
        show_default=False,
    ),
]
PasswordOption = Annotated[
    str,
    typer.Option(
        "--password-file", help="File with the password; else ~/.pgpass, MYSQL_PWD."
    ),
]
app = typer.Typer(no_args_is_help=True)


@app.command("create")
def create(
    url: UrlArgument, password_file: PasswordOption = "", *, json_: JsonOption = False
) -> None:
    """Create the tables of a database spool, which any receiver can write to.

    It does not change tables that exist.

    Example: drainer spool create postgresql://drainer@db.example/mail
    """
    shown, new = create_spool(url, password_file)
    if json_:
        print_json({"spool": shown, "created": new})
    else:
        say(f"{'created' if new else 'there is'} a spool in {shown}")


@app.command("import")
def import_(
    source: Annotated[str, source_argument("Source to copy, as for `drain`.")],
    url: UrlArgument,
    password_file: PasswordOption = "",
    path: ConfigOption = None,
    *,
    json_: JsonOption = False,
) -> None:
    """Copy the messages of any other source into a database spool, each one once.

    It only reads the source. It names messages that cannot be replayed and skips them.

    Exit status: 0 everything is in the spool; 5 some messages were skipped.

    Example: drainer spool import postfix:/mnt/backup/spool sqlite:////srv/spool.db
    """
    spool = SpoolDatabase(url, password_file)
    count: Counter[str] = Counter()
    for opened in make_sources(load(path), [source], []):
        for spooled in opened.scan():
            result = spool.add(spooled)
            if isinstance(result, Problem):
                native = spooled.message.native_id
                warn(f"skipping {native}: {printable(str(result))}")
                count["left_out"] += 1
            else:
                count["added" if result else "known"] += 1
    spool.close()
    facts = {key: count[key] for key in ("added", "known", "left_out")}
    if json_:
        print_json({"spool": spool.shown, **facts})
    else:
        words = ", ".join(f"{n} {key.replace('_', ' ')}" for key, n in facts.items())
        stdout().print(f"{words}, in {spool.shown}")
    if count["left_out"]:
        raise typer.Exit(5)


@app.command("give-back")
def give_back(
    source: Annotated[
        str, source_argument("postfix:live or postfix:DIR, as for `drain`.")
    ],
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what waits for an operator.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Return messages to Postfix that a drain held and did not finish.

    A drain does this at its end. Use this command for a drain that was killed, if you
    start no other one. Recipients that already have the message are marked in it.
    Without --all, permanently refused and held messages stay on hold, because Postfix
    would bounce them.

    Example: drainer spool give-back postfix:live
    """
    config = load(path, ledger=ledger, acts=True)
    counts = _apply_step(
        config,
        source,
        lambda holds, report: holds.give_back(report, everything=everything),
    )
    _print_counts(counts, as_json=json_)


@app.command("settle")
def settle(
    source: Annotated[
        str,
        source_argument(
            "postfix:DIR or exim:DIR of a stopped server, or postfix:live."
        ),
    ],
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Apply what the ledger knows to a drained queue that still has the mail.

    That is the original of a copy, or the spool of an Exim: its server would deliver
    the mail again. drainer removes finished messages, and marks the recipients of
    others that are done. It puts a message that it did not finish on hold; Exim calls
    that frozen. Drain the queue to continue with it. Before drainer changes a
    message, it compares its whole content and its recipients with the ledger.

    Exit status: 0 settled; 2 usage, or the server runs; 5 a message that is like one of
    the ledger was left alone.

    Example: drainer spool settle postfix:/var/spool/postfix
    """
    config = load(path, ledger=ledger, acts=True)
    counts = _apply_step(
        config,
        source,
        lambda holds, report: holds.settle(report, dry_run=dry_run),
        claim=not dry_run,
        kind=SettledSource,
    )
    _print_counts(counts, as_json=json_, dry_run=dry_run)
    if any(each.unlike for each in counts.values()):
        raise typer.Exit(5)


def _apply_step(
    config: Config,
    name: str,
    step: Step,
    *,
    claim: bool = True,
    kind: type = HoldingSource,
) -> Mapping[str, ReleasedCount]:
    """Take a step with a queue that belongs to this ledger; return counts by URL."""
    url = ledger_url(config)
    opened = make_sources(config, [name], [], postfix={"ack": "remove"})
    holds = SpoolHolds(opened, lock_folder(url))
    if not all(isinstance(each, kind) for each in opened):
        message = f"drainer holds no messages in {opened[0].url}, and settles none"
        hint = "name a queue of Postfix, or postfix:live; settle takes exim:DIR too"
        raise UsageError(message, hint=hint)
    claims = SourceClaims(opened if claim else [], marker_folders(url))
    with LedgerReader(url) as report:
        claims.take(url, ledger_name(url), take_over=False)
        for refusal in claims.refused.values():
            raise refusal
        code = 1
        try:
            counts = asyncio.run(step(holds, report))
            code = 0
        finally:
            claims.release(url, code)
    return counts


def _print_counts(
    counts: Mapping[str, ReleasedCount], *, as_json: bool, dry_run: bool = False
) -> None:
    for name, each in counts.items():
        if as_json:
            print_json({"source": name, "dry_run": dry_run, **each._asdict()})
        else:
            print_released(name, each, would=dry_run)
