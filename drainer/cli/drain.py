"""`drain`: the main job."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import typer

from drainer.cli.check import refuse_unless_healthy
from drainer.cli.event_loop import run_loop
from drainer.cli.filters import with_choice, with_redirect
from drainer.cli.inspect import print_plan
from drainer.cli.log import is_quiet
from drainer.cli.options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    SourcesArgument,
    ToOption,
    load,
)
from drainer.cli.output import (
    print_error,
    print_json,
    say,
    warn,
    warn_of_skipped,
    warn_of_untaken,
)
from drainer.cli.primary_options import Sections, merge, with_primary
from drainer.cli.progress import progress
from drainer.cli.spool_advice import introduce
from drainer.cli.summary import print_summary, summary_of
from drainer.config import Config
from drainer.config.build.paths import fresh_rehearsal, ledger_url
from drainer.config.build.routes import make_probe
from drainer.config.build.spools import make_sources
from drainer.delivery.build import build_settings
from drainer.delivery.run import (
    DrainRequest,
    Run,
    WorkerProcesses,
    health_decisions,
    open_run,
    resolve_domains,
    start_workers,
)
from drainer.errors import DrainerError, LedgerError
from drainer.ledger.engine import in_use
from drainer.ledger.repository import Ledger
from drainer.policy.admission.selection import Choice
from drainer.policy.breaker.remedies import NO_KNOWN_GOOD
from drainer.policy.recipient.mapping import AddressMapping
from drainer.runtime import databases
from drainer.runtime.process import tune_gc
from drainer.runtime.workers import fork
from drainer.smtp.health_check import WARN
from drainer.smtp.health_check import check as check_primary


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("drain")(drain)


@with_primary
@with_redirect
@with_choice
def drain(
    sources: SourcesArgument,
    to: ToOption = "",
    rate: Annotated[
        str,
        typer.Option(
            help="Rate, e.g. 20/second, 90/minute, unlimited; skips the ramp."
        ),
    ] = "",
    connections: Annotated[
        int | None, typer.Option(min=1, max=500, help="Connections; skips the ramp.")
    ] = None,
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    give_up_after: Annotated[
        str,
        typer.Option(help="Stop after this long without a success, while retrying."),
    ] = "",
    *,
    choice: Choice,
    redirect: AddressMapping,
    primary: Sections,
    copy_of: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="The Postfix queue that SOURCE is a copy of: the end of the drain says"
            " how to settle it.",
        ),
    ] = "",
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not check the primary first.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what it would do.")
    ] = False,
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Send, but acknowledge nothing; uses a separate ledger.",
        ),
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Drain a source that another ledger claimed; mail may arrive twice.",
        ),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Check the primary, then deliver the mail of the spool to it.

    Run the same command again to continue where the last run ended, also after a crash.

    Only one ledger may drain a source. The file `.drainer` in the source, or
    `FILE.drainer` next to it, names that ledger. A drain with another one ends with
    exit status 2.

    Exit status: 0 every recipient is final; 1 a defect of drainer, or the ledger was
    lost; 2 usage; 3 the primary is not ready; 4 the primary refuses us; 5 recipients
    remain; 6 another drain owns this source; 130 interrupted.

    Example: drainer drain postfix:live --to mx1.example.com --rate 20/s
    """
    explicit = bool(rate) or connections is not None
    with report_errors_as_json(as_json=json_):
        flags = _sections(rate, connections, give_up_after)
        sections = merge(primary, flags)
        config = load(path, to=to, ledger=ledger, sections=sections, acts=True)
        if dry_run:
            chosen = (choice, redirect)
            print_plan(config, sources, chosen, as_json=json_, explicit=explicit)
            return

        with worker_processes(config) as workers:
            opened = make_sources(
                config,
                sources,
                choice.selection.queues,
                postfix={"copy_of": copy_of} if copy_of else {},
            )
            warn_of_skipped(opened)
            whole = resolve_domains(config, opened)
            settings = build_settings(
                whole,
                choice,
                redirect,
                explicit=explicit,
                acknowledge=not rehearse,
            )
            url = ledger_url(whole)
            request = DrainRequest(
                config=whole,
                settings=settings,
                sources=opened,
                url=fresh_rehearsal(url) if rehearse else url,
            )
            request.check, request.as_json = not no_check, json_
            request.take_over = take_over
            code = run_loop(lambda: run_drain(request, workers))
    raise typer.Exit(code)


def _sections(rate: str, connections: int | None, give_up_after: str) -> Sections:
    """Return the settings of the flags that are only for a drain."""
    sections: Sections = {"throttle": {}, "primary": {}, "breaker": {}}
    if rate:
        sections["throttle"]["rate"] = rate
    if connections is not None:
        sections["primary"]["connections"] = connections
    if give_up_after:
        sections["breaker"]["give_up_after"] = give_up_after
    return sections


@contextmanager
def worker_processes(config: Config) -> Iterator[WorkerProcesses]:
    """Have the processes of a run, forked before there are threads or databases."""
    tune_gc()  # so that they have less to copy
    with start_workers(fork, exports=config.telemetry.traces != "off") as workers:
        yield workers


async def run_drain(request: DrainRequest, workers: WorkerProcesses) -> int:
    """Check the primary and drain, print how it ended; return the exit status."""
    say(f"draining to {request.settings.route}; ledger {databases.shown(request.url)}")
    _warn_of_defaults(request.config)
    for source in request.sources if request.settings.scans else ():
        introduce(source)
    async with open_run(request, workers) as run:
        await _check_and_drain(run)
    error = run.result.error
    if warn_of_untaken(request.sources) and run.result.code == 0:
        run.result = run.result._replace(code=5)
    try:
        with in_use(request.url):
            print_summary(run, summary_of(run))
    except LedgerError as lost:
        error = error or lost
        if request.as_json:
            _print_failure(error)
        return print_error(error)
    return run.result.code if error is None else print_error(error)


async def _check_and_drain(run: Run) -> None:
    """Check the primary, and drain, unless a signal comes before."""
    checking = asyncio.ensure_future(_check(run.request, run.ledger))
    _listen_to_signals(run, checking)
    with suppress(asyncio.CancelledError):
        await checking
    if not run.interrupted:
        async with progress(run.engine, quiet=is_quiet()):
            await run.drain()


@contextmanager
def report_errors_as_json(*, as_json: bool) -> Iterator[None]:
    """Print the error that kept the drain from starting as JSON too."""
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
        say("no [primary] domains are set: drainer sends mail for every domain")
    if not config.health.accept:
        warn(NO_KNOWN_GOOD)


async def _check(request: DrainRequest, ledger: Ledger) -> None:
    """Stop with PrimaryNotReady or UsageError unless the primary is healthy."""
    if not request.check:
        return
    route = request.settings.route
    health = await check_primary(route, make_probe(request.config))
    for decision in health_decisions(health):
        await ledger.note(decision)
    refuse_unless_healthy(health, str(route))
    for finding in health.findings:
        if finding.verdict == WARN and finding.hint != NO_KNOWN_GOOD:
            warn(f"check of {finding.stage}: {finding.hint or finding.reply}")


def _listen_to_signals(run: Run, checking: "asyncio.Future[None]") -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        say("stopping after the messages in progress; press again to stop at once")
        run.stop()
        checking.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    had_terminal = sys.stderr.isatty()

    def hang_up() -> None:
        """Ignore `postfix reload`, which signals the owner of the master's lock."""
        if had_terminal and not sys.stderr.isatty():
            run.stop()
            checking.cancel()

    loop.add_signal_handler(signal.SIGHUP, hang_up)
