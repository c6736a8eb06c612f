"""`hook`: what watches the primary tells the watch, without HTTP.

Run by keepalived, monit, cron and the like: it writes one row, and is done.
"""

import getpass
import os
from pathlib import Path
from typing import Annotated

import typer

from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, ToOption, load
from drainer.cli.output import print_json, say
from drainer.ledger.controls import give
from drainer.ledger.watches import is_owned
from drainer.policy.controls import Ask, Control
from drainer.process import utcnow
from drainer.units import format_duration
from drainer.wiring.hosts import make_route
from drainer.wiring.places import ledger_url, lock_folder

ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why, for whoever reads it later.")
]
_Options = tuple[str, Path | None, str]
"""--to, --config, --ledger."""
_NOW = {
    Ask.UP: "it asks the primary, and drains when that has been well for a while",
    Ask.DOWN: "it begins nothing new until the primary has been well for a while",
}


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        help="Tell the watch that the primary is up, or down.", no_args_is_help=True
    )
    group.command("up")(up)
    group.command("down")(down)
    app.add_typer(group, name="hook")


def up(
    reason: ReasonOption = "",
    to: ToOption = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Say that the primary seems to be up: the watch looks, then decides.

    Harmless when repeated, or wrong. What is told while no watch runs counts for a
    while: see `remember` of the configuration.

    Example: drainer hook up --reason "keepalived: MASTER"
    """
    _tell(Ask.UP, reason, (to, path, ledger), as_json=json_)


def down(
    reason: ReasonOption = "",
    to: ToOption = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Say that the primary seems to be down: the watch stops its drain in order.

    It goes on by itself when its own checks find the primary well again.

    Example: drainer hook down --reason "monit: smtp failed"
    """
    _tell(Ask.DOWN, reason, (to, path, ledger), as_json=json_)


def caller() -> str:
    """Return who runs this command, for the record."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        name = str(os.getuid())
    return f"cli {name}"


def _tell(ask: Ask, reason: str, options: _Options, *, as_json: bool) -> None:
    to, path, ledger = options
    config = load(path, to=to, ledger=ledger)
    url, route = ledger_url(config), str(make_route(config))
    given = give(url, route, Control(at=utcnow(), ask=ask, reason=reason, by=caller()))
    runs = is_owned(lock_folder(url), route)
    if as_json:
        print_json({"id": given.id, "ask": ask.value, "primary": route, "watch": runs})
    elif runs:
        say(f"told the watch of {route} that it is {ask}: {_NOW[ask]}")
    else:
        say(
            f"no watch of {route} runs on this host with this ledger; one that starts"
            f" within {format_duration(config.watch.remember)} heeds it"
        )
