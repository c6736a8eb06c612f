"""`spool create` and `spool import`: a database as a spool."""

from collections import Counter
from typing import Annotated

import typer

from drainer.cli.options import ConfigOption, JsonOption, load
from drainer.cli.output import print_json, say, stdout, warn
from drainer.mail.message import Problem
from drainer.mail.reply import printable
from drainer.sources.database_import import Spool, create_spool
from drainer.wiring import make_sources

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
    name="spool", help="A database as a spool: make one, fill it.", no_args_is_help=True
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
    spool = Spool(url, password_file)
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
