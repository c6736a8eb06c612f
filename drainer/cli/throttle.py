"""`throttle`: change how fast drains go while they go, or pause them."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import typer

from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, ToOption, load
from drainer.cli.output import print_json, say, shown, stdout
from drainer.config import Config
from drainer.errors import UsageError
from drainer.ledger.controls import Desk, give
from drainer.policy.controls import Ask, Control
from drainer.policy.throttle import parse_rate
from drainer.process import utcnow
from drainer.units import parse_duration
from drainer.wiring.hosts import make_route
from drainer.wiring.places import ledger_url

app = typer.Typer(
    name="throttle",
    help="How fast drains go: change it while they go, or pause them.",
    no_args_is_help=True,
)
ForOption = Annotated[
    str,
    typer.Option("--for", metavar="TIME", help="It ends by itself after, e.g., 10m."),
]
ReasonOption = Annotated[
    str, typer.Option(help="Why; it is recorded with the decision.")
]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="throttle")


@app.command("set")
def set_(
    rate: Annotated[
        str,
        typer.Argument(
            metavar="RATE", help="e.g. 50/second, 90/minute.", show_default=False
        ),
    ],
    for_: ForOption = "",
    reason: ReasonOption = "",
    to: ToOption = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Let drains send at another rate from now on, also above the configured one.

    They follow within two seconds, without a ramp; while the primary suffers they go
    slower all the same.

    Example: drainer throttle set 50/second --for 10m --reason "quiet hours"
    """
    per_second = _rate(rate)
    facts = {"per_second": per_second, "reason": _reason("set", reason)}
    _give(load(path, to=to, ledger=ledger), Ask.THROTTLE, facts, for_, as_json=json_)


@app.command("clear")
def clear(
    reason: ReasonOption = "",
    to: ToOption = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Give drains the configured rate back.

    Example: drainer throttle clear --reason "office hours"
    """
    config = load(path, to=to, ledger=ledger)
    _give(config, Ask.THROTTLE, {"reason": reason}, "", as_json=json_)


@app.command("pause")
def pause(
    for_: ForOption = "",
    reason: ReasonOption = "",
    to: ToOption = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Let drains begin nothing new; what is being sent is finished.

    They wait, and do not give up meanwhile.

    Example: drainer throttle pause --for 30m --reason "the primary reboots"
    """
    facts = {"reason": _reason("pause", reason)}
    _give(load(path, to=to, ledger=ledger), Ask.PAUSE, facts, for_, as_json=json_)


@app.command("resume")
def resume(
    reason: ReasonOption = "",
    to: ToOption = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """End a pause.

    Example: drainer throttle resume --reason "the primary is back"
    """
    config = load(path, to=to, ledger=ledger)
    _give(config, Ask.RESUME, {"reason": reason}, "", as_json=json_)


@app.command("show")
def show(
    to: ToOption = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Show the rate, what was set, and how fast each drain goes now, with the reason.

    Example: drainer throttle show --json | jq .drains
    """
    config = load(path, to=to, ledger=ledger)
    with _desk(config) as desk:
        in_force = desk.in_force()
        drains = {run: desk.pace(run) for run in desk.runs()}
    standing = {"throttle": in_force.throttle, "pause": in_force.pause}
    if json_:
        facts: dict[str, Any] = {k: c and _facts(c) for k, c in standing.items()}
        rows = [{"run": run, **pace} for run, pace in drains.items()]
        configured = {"rate": config.throttle.rate, "route": str(make_route(config))}
        print_json({**configured, **facts, "drains": rows})
        return
    console = stdout()
    console.print(f"{shown(make_route(config))}: configured {config.throttle.rate}")
    for control in filter(None, standing.values()):
        console.print(f"  {shown(control, 1000)}")
    for run, pace in drains.items():
        words = ", ".join(f"{key} {value}" for key, value in pace.items())
        console.print(f"  drain {run}: {shown(words, 500) or 'has just begun'}")
    if not drains:
        console.print("  no drain goes on")


@contextmanager
def _desk(config: Config) -> Iterator[Desk]:
    desk = Desk(ledger_url(config), str(make_route(config)))
    try:
        yield desk
    finally:
        desk.close()


def _give(
    config: Config, ask: Ask, facts: dict[str, Any], for_: str, *, as_json: bool
) -> None:
    """Write a control down, and say whom it concerns."""
    now = utcnow()
    control = give(
        ledger_url(config),
        str(make_route(config)),
        Control(at=now, ask=ask, until=_until(now, for_), by=f"cli {_user()}", **facts),
    )
    with _desk(config) as desk:
        drains = desk.runs()
    if as_json:
        print_json(
            {**_facts(control), "route": str(make_route(config))} | {"drains": drains}
        )
        return
    stdout().print(f"{shown(make_route(config))}: {shown(control, 1000)}")
    for run in drains:
        stdout().print(f"  drain {run} follows within two seconds")
    if not drains:
        say("no drain goes on; the next one will find it")


def _facts(control: Control) -> dict[str, Any]:
    return {
        "ask": control.ask.value,
        "at": control.at.isoformat(),
        "per_second": control.per_second,
        "until": control.until and control.until.isoformat(),
        "reason": control.reason,
        "by": control.by,
    }


def _rate(text: str) -> float:
    try:
        rate = parse_rate(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if rate is None:
        message = "without any limit nothing would protect the primary"
        raise UsageError(message, hint="give a high rate, e.g. 500/second")
    return rate


def _reason(verb: str, reason: str) -> str:
    if not reason:
        message = f"throttle {verb} needs --reason"
        raise UsageError(message, hint="it is recorded, for whoever asks later")
    return reason


def _until(now: datetime, text: str) -> datetime | None:
    if not text:
        return None
    try:
        return now + parse_duration(text)
    except (ValueError, OverflowError) as error:
        message = f"--for: {error}"
        raise UsageError(message) from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may know no name for us
        return "somebody"
