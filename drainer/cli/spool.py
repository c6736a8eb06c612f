"""`spool create` and `import`: a database as a spool; `give-back`: of a live one."""

import asyncio
from collections import Counter
from typing import Annotated

import typer

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
        "--password-file", help="A file with the password; else ~/.pgpass, MYSQL_PWD."
    ),
]
app = typer.Typer(
    name="spool",
    help="A database as a spool: make one, fill it. A live queue: give it back.",
    no_args_is_help=True,
)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="spool")


@app.command("create")
def create(
    url: UrlArgument, password_file: PasswordOption = "", *, json_: JsonOption = False
) -> None:
    """Make the tables of a spool, which any receiver can write to.

    Tables that are there already are left alone.

    Example: drainer spool create postgresql://drainer@db.example/mail
    """
    shown, new = create_spool(url, password_file)
    if json_:
        print_json({"spool": shown, "created": new})
    else:
        say(f"{'made' if new else 'there is'} a spool in {shown}")


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="As for `drain`: what is copied.")
    ],
    url: UrlArgument,
    password_file: PasswordOption = "",
    path: ConfigOption = None,
    *,
    json_: JsonOption = False,
) -> None:
    """Copy the messages of any other source into a spool; a second run adds none.

    The source is only read. What cannot be replayed is named and not copied.

    Exit status: 0 everything is in the spool; 5 something was left out.

    Example: drainer spool import postfix:/mnt/backup/spool sqlite:////srv/spool.db
    """
    spool = SpoolDatabase(url, password_file)
    count: Counter[str] = Counter()
    for opened in make_sources(load(path), [source], []):
        for spooled in opened.scan():
            result = spool.add(spooled)
            if isinstance(result, Problem):
                native = spooled.message.native_id
                warn(f"{native} is left out: {printable(str(result))}")
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
        str, typer.Argument(metavar="SOURCE", help="postfix:live, as for `drain`.")
    ],
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what waits for a person.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Give a running server back what a drain took on hold and did not finish.

    A drain does it at its end; this is for one that was killed, without another
    one. Whom a message was sent to already is marked in it. What was refused for
    good, or is held, stays on hold without --all: the server would bounce it.

    Example: drainer spool give-back postfix:live
    """
    config = load(path, ledger=ledger, acts=True)
    url = ledger_url(config)
    opened = make_sources(config, [source], [])
    live_holds = LiveHolds(opened, lock_folder(url))
    if not live_holds:
        message = f"nothing is taken from {opened[0].url}"
        raise UsageError(message, hint="only from a server that runs: postfix:live")
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
