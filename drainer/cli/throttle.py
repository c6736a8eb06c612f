"""`throttle`: change the rate of running drains, or pause them."""

from contextlib import closing
from typing import Annotated, Any

import typer

from drainer.cli.filters import require, require_reason
from drainer.cli.options import ReasonOption
from drainer.cli.output import clean, print_json, say, stdout
from drainer.cli.overrides import OverrideTarget, to_whom
from drainer.errors import UsageError
from drainer.ledger.overrides import OverrideReader
from drainer.policy.pacing.overrides import Override, OverrideKind
from drainer.policy.pacing.rate import parse_rate

app = typer.Typer(no_args_is_help=True)
ForOption = Annotated[
    str, typer.Option("--for", metavar="TIME", help="How long it lasts, e.g. 10m.")
]


@app.command("set")
@to_whom
def set_(
    whom: OverrideTarget,
    rate: Annotated[
        str,
        typer.Argument(
            metavar="RATE", help="e.g. 50/second, 90/minute.", show_default=False
        ),
    ],
    for_: ForOption = "",
    reason: ReasonOption = "",
) -> None:
    """Change the rate of running drains, also above the configured rate.

    They follow within two seconds, without a ramp. While the primary is overloaded,
    they still go slower.

    Example: drainer throttle set 50/second --for 10m --reason "quiet hours"
    """
    per_second = _rate(rate)
    require_reason("throttle set", reason)
    _print_override(whom, whom.give(OverrideKind.THROTTLE, reason, for_, per_second))


@app.command("clear")
@to_whom
def clear(whom: OverrideTarget, reason: ReasonOption = "") -> None:
    """Return running drains to the configured rate.

    Example: drainer throttle clear --reason "office hours"
    """
    _print_override(whom, whom.give(OverrideKind.THROTTLE, reason))


@app.command("pause")
@to_whom
def pause(
    whom: OverrideTarget, for_: ForOption = "", reason: ReasonOption = ""
) -> None:
    """Pause drains: they finish what they are sending and start nothing new.

    While paused, a drain waits and does not give up.

    Example: drainer throttle pause --for 30m --reason "the primary reboots"
    """
    require_reason("throttle pause", reason)
    _print_override(whom, whom.give(OverrideKind.PAUSE, reason, for_))


@app.command("resume")
@to_whom
def resume(whom: OverrideTarget, reason: ReasonOption = "") -> None:
    """End a pause.

    Example: drainer throttle resume --reason "the primary is back"
    """
    _print_override(whom, whom.give(OverrideKind.RESUME, reason))


@app.command("show")
@to_whom
def show(whom: OverrideTarget) -> None:
    """Show the rate, the overrides, and the current rate of each drain with its reason.

    Example: drainer throttle show --json | jq .drains
    """
    with closing(OverrideReader(whom.url, whom.route)) as overrides:
        in_force = overrides.in_force()
        drains = {run: overrides.pace(run) for run in overrides.runs()}
    current = {"throttle": in_force.throttle, "pause": in_force.pause}
    configured = whom.config.throttle.rate
    if whom.as_json:
        facts: dict[str, Any] = {k: c and _facts(c) for k, c in current.items()}
        rows = [{"run": run, **pace} for run, pace in drains.items()]
        print_json(
            {"rate": configured, "routes": list(whom.routes), **facts, "drains": rows}
        )
        return
    console = stdout()
    console.print(f"{clean(whom.shown)}: configured {configured}")
    for control in filter(None, current.values()):
        console.print(f"  {clean(control, 1000)}")
    for run, pace in drains.items():
        words = ", ".join(f"{key} {value}" for key, value in pace.items())
        console.print(f"  drain {run}: {clean(words, 500) or 'has just started'}")
    if not drains:
        console.print("  no drain is running")


def _print_override(whom: OverrideTarget, control: Override) -> None:
    """Print the recorded override, and which drains follow it."""
    with closing(OverrideReader(whom.url, whom.route)) as overrides:
        drains = overrides.runs()
    if whom.as_json:
        print_json({**_facts(control), "routes": list(whom.routes), "drains": drains})
        return
    stdout().print(f"{clean(whom.shown)}: {clean(control, 1000)}")
    for run in drains:
        stdout().print(f"  drain {run} follows within two seconds")
    if not drains:
        say("no drain is running; the next one will follow it")


def _facts(control: Override) -> dict[str, Any]:
    return {
        "ask": control.ask.value,
        "at": control.at.isoformat(),
        "per_second": control.per_second,
        "until": control.until and control.until.isoformat(),
        "reason": control.reason,
        "by": control.by,
    }


def _rate(text: str) -> float:
    rate = require(parse_rate, text)
    if rate is None:
        message = "unlimited would leave the primary without protection"
        raise UsageError(message, hint="give a high rate, e.g. 500/second")
    return rate
