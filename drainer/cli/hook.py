"""`hook`: a monitor reports the primary's health to the watch, without HTTP.

For keepalived, monit, cron and the like. The command writes one row and ends.
"""

import typer

from drainer.cli.options import ReasonOption
from drainer.cli.output import print_json, say
from drainer.cli.overrides import OverrideTarget, to_whom
from drainer.config.build.paths import lock_folder
from drainer.ledger.watch_log import is_owned
from drainer.policy.pacing.overrides import OverrideKind
from drainer.runtime.units import format_duration

_NOW = {
    OverrideKind.UP: "it drains after the primary has been healthy for a while",
    OverrideKind.DOWN: "it starts no drain until the primary has been healthy for a"
    " while",
}

app = typer.Typer(no_args_is_help=True)


@app.command("up")
@to_whom
def up(whom: OverrideTarget, reason: ReasonOption = "") -> None:
    """Report that the primary seems to be up: the watch checks it, then decides.

    A repeated or a wrong report does no harm. A watch that starts later still obeys it
    for a while: see `remember` in the configuration.

    Example: drainer hook up --reason "keepalived: MASTER"
    """
    _report(whom, OverrideKind.UP, reason)


@app.command("down")
@to_whom
def down(whom: OverrideTarget, reason: ReasonOption = "") -> None:
    """Report that the primary seems to be down: the watch stops its drain cleanly.

    It continues by itself when its own checks find the primary healthy again.

    Example: drainer hook down --reason "monit: smtp failed"
    """
    _report(whom, OverrideKind.DOWN, reason)


def _report(whom: OverrideTarget, ask: OverrideKind, reason: str) -> None:
    route, given = whom.route, whom.give(ask, reason)
    runs = is_owned(lock_folder(whom.url), route)
    if whom.as_json:
        print_json({"id": given.id, "ask": ask.value, "primary": route, "watch": runs})
    elif runs:
        say(f"reported to the watch of {route}: the primary is {ask}; {_NOW[ask]}")
    else:
        say(
            f"no watch of {route} runs on this host with this ledger; one that starts"
            f" within {format_duration(whom.config.watch.remember)} obeys this"
        )
