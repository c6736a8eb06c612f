"""`spool create` and `import` for a database spool; `give-back` for a live queue."""

import asyncio
from collections import Counter
from typing import Annotated

import typer

from drainer.cli.completion import complete_source
from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import print_json, say, stdout, warn
from drainer.config.build.paths import (
    ledger_url,
    lock_folder,
    marker_folders,
    shown_ledger,
)
from drainer.config.build.spools import make_sources
from drainer.delivery.console import print_released
from drainer.delivery.holds import LiveHolds
from drainer.delivery.source_claims import SourceClaims
from drainer.errors import UsageError
from drainer.ledger.reader import LedgerReader
from drainer.mail.message import Problem
from drainer.mail.reply import printable
from drainer.sources.database.importer import SpoolDatabase, create_spool

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
app = typer.Typer(
    name="spool",
    help="Create and fill a database spool. Return held messages to a live Postfix.",
    no_args_is_help=True,
)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="spool")


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
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            autocompletion=complete_source,
            help="Source to copy, as for `drain`.",
        ),
    ],
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
        str,
        typer.Argument(
            metavar="SOURCE",
            autocompletion=complete_source,
            help="postfix:live, as for `drain`.",
        ),
    ],
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what waits for an operator.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Return messages to a running Postfix that a drain held and did not finish.

    A drain does this at its end. Use this command for a drain that was killed, if you
    start no other one. Recipients that already have the message are marked in it.
    Without --all, permanently refused and held messages stay on hold, because Postfix
    would bounce them.

    Example: drainer spool give-back postfix:live
    """
    config = load(path, ledger=ledger, acts=True)
    url = ledger_url(config)
    opened = make_sources(config, [source], [])
    live_holds = LiveHolds(opened, lock_folder(url))
    if not live_holds:
        message = f"a drain holds no messages in {opened[0].url}"
        raise UsageError(message, hint="only in a running queue: postfix:live")
    claims = SourceClaims(opened, marker_folders(url))
    with LedgerReader(url) as report:
        claims.take(url, shown_ledger(url), take_over=False)
        code = 1
        try:
            returned = asyncio.run(live_holds.give_back(report, everything=everything))
            code = 0
        finally:
            claims.release(url, code)
    for name, each in returned.items():
        if json_:
            print_json({"source": name, **each._asdict()})
        else:
            print_released(name, each)
