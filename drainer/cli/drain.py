"""`drain`: the main job."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer

from drainer.cli.check import refuse_if_sick
from drainer.cli.event_loop import run_loop
from drainer.cli.filters import with_choice, with_redirect
from drainer.cli.inspect import print_plan
from drainer.cli.options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    SourcesArgument,
    ToOption,
    load,
)
from drainer.cli.output import VOICE, explain, print_json, say, warn
from drainer.cli.progress import progress
from drainer.cli.summary import print_summary, summary_of
from drainer.config import Config
from drainer.config.build.routes import make_probe
from drainer.config.build.spools import make_sources
from drainer.config.build.storage import fresh_rehearsal, ledger_url
from drainer.delivery.build import build_settings
from drainer.delivery.drain import Drain
from drainer.delivery.run import (
    DrainRequest,
    RunParts,
    WorkerProcesses,
    carried_out,
    drained,
    health_decisions,
    helpers,
    settled,
)
from drainer.errors import DrainerError, LedgerError
from drainer.ledger.engine import in_use
from drainer.ledger.repository import Ledger
from drainer.policy.admission.selection import Choice
from drainer.policy.breaker.remedies import NO_KNOWN_GOOD
from drainer.policy.recipient.mapping import AddressMapping
from drainer.runtime import databases
from drainer.runtime.process import rarely_collect
from drainer.runtime.workers import fork
from drainer.smtp.health_check import check as check_primary


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("drain")(drain)


@with_redirect
@with_choice
def drain(
    sources: SourcesArgument,
    to: ToOption = "",
    rate: Annotated[
        str, typer.Option(help="e.g. 20/second, 90/minute, unlimited; skips the ramp.")
    ] = "",
    connections: Annotated[
        int | None, typer.Option(min=1, max=500, help="Sessions; skips the ramp.")
    ] = None,
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    give_up_after: Annotated[
        str, typer.Option(help="How long to wait for retries without a success.")
    ] = "",
    *,
    choice: Choice,
    redirect: AddressMapping,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not ask the primary first.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse", help="Send, but acknowledge nothing; a ledger of its own."
        ),
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Drain a source that another ledger has; mail may arrive twice.",
        ),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Check the primary, then send it what the spool holds.

    Running it again continues where the last run ended, also after a crash.

    One ledger drains a source. A file `.drainer` in it, or `FILE.drainer` beside it,
    names that ledger; a drain with another one ends with exit status 2.

    Exit status: 0 every recipient is final; 1 a defect of ours, or the ledger
    was lost; 2 usage; 3 the primary is not ready; 4 the primary refuses
    us; 5 recipients remain; 6 another drain owns this source; 130 interrupted.

    Example: drainer drain postfix:/mnt/backup/spool --to mx1.example.com --rate 20/s
    """
    sections: dict[str, dict[str, Any]] = {"throttle": {}, "primary": {}, "breaker": {}}
    if rate:
        sections["throttle"]["rate"] = rate
    if connections is not None:
        sections["primary"]["connections"] = connections
    if give_up_after:
        sections["breaker"]["give_up_after"] = give_up_after
    with told(as_json=json_):
        config = load(path, to=to, ledger=ledger, sections=sections, acts=True)
        if dry_run:
            print_plan(config, sources, (choice, redirect), as_json=json_)
            return

        def make() -> DrainRequest:
            opened = make_sources(config, sources, choice.selection.queues)
            whole = settled(config, opened, VOICE)
            settings = build_settings(
                whole,
                choice,
                redirect,
                explicit=bool(rate) or connections is not None,
                acknowledge=not rehearse,
            )
            url = ledger_url(whole)
            run = DrainRequest(
                config=whole,
                settings=settings,
                sources=opened,
                url=fresh_rehearsal(url) if rehearse else url,
            )
            run.check, run.as_json = not no_check, json_
            run.take_over = take_over
            return run

        code = carry_out(config, make)
    raise typer.Exit(code)


def carry_out(config: Config, make: Callable[[], DrainRequest]) -> int:
    """Do a run, which is made when its helpers stand; return the exit code.

    They are forked before there are threads or open databases.
    """
    rarely_collect()  # so that they have less to copy
    with helpers(fork, exports=config.telemetry.traces != "off") as found:
        run = make()
        return run_loop(lambda: _drain(run, found))


async def _drain(run: DrainRequest, found: WorkerProcesses) -> int:
    shown_url = databases.shown(run.url)
    say(f"draining to {run.settings.route}; ledger {shown_url}")
    _warn_of_defaults(run.config)

    async def work(parts: RunParts) -> None:
        await _work(run, parts)

    ended = await carried_out(run, found, work, VOICE)
    try:
        with in_use(run.url):
            print_summary(run, ended.parts.drain, summary_of(run, ended))
    except LedgerError as lost:
        error = ended.error or lost
        if run.as_json:
            _print_failure(error)
        return explain(error)
    return ended.code if ended.error is None else explain(ended.error)


async def _work(run: DrainRequest, parts: RunParts) -> None:
    """Check the primary, and drain, unless a signal comes before."""
    drain = parts.drain
    checking = asyncio.ensure_future(_check(run, parts.ledger))
    _listen_to_signals(drain, checking)
    with suppress(asyncio.CancelledError):
        await checking
    if not drain.progress.interrupted:
        async with progress(drain, quiet=False):
            await drained(run, parts, VOICE)


@contextmanager
def told(*, as_json: bool) -> Iterator[None]:
    """Tell scripts too what kept the drain from beginning."""
    try:
        yield
    except DrainerError as error:
        if as_json:
            _print_failure(error)
        raise


def _print_failure(error: DrainerError) -> None:
    print_json({"exit": error.exit_code, "error": str(error), "hint": error.hint})


def _warn_of_defaults(config: Config) -> None:
    if not config.primary.domains:
        say("no [primary] domains are set: mail for every recipient domain is sent")
    if not config.health.accept:
        warn(NO_KNOWN_GOOD)


async def _check(run: DrainRequest, ledger: Ledger) -> None:
    """CircuitBreaker the drain: PrimaryNotReady or UsageError, and nothing was sent."""
    if not run.check:
        return
    health = await check_primary(run.settings.route, make_probe(run.config))
    for decision in health_decisions(health):
        await ledger.note(decision)
    refuse_if_sick(health, str(run.settings.route))


def _listen_to_signals(drain: Drain, checking: "asyncio.Future[None]") -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        say("stopping: each session finishes its message; again to stop at once")
        drain.stop()
        checking.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
