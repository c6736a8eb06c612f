"""`drain`: the main job."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import (
    AbstractAsyncContextManager,
    contextmanager,
    nullcontext,
    suppress,
)
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from drainer.cli.check import refuse_unless_healthy
from drainer.cli.event_loop import run_loop
from drainer.cli.filters import with_choice, with_redirect
from drainer.cli.inspect import print_plan
from drainer.cli.log import is_quiet
from drainer.cli.options import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    LedgerOption,
    NoCheckOption,
    SourcesArgument,
    ToOption,
    load,
)
from drainer.cli.output import (
    print_error,
    print_failure,
    say,
    warn,
    warn_of_skipped,
    warn_of_untaken,
)
from drainer.cli.progress import progress, release_terminal
from drainer.cli.section_options import (
    Sections,
    merge,
    refuse_without_lists,
    with_census,
    with_primary,
)
from drainer.cli.spool_advice import introduce, name_holds
from drainer.cli.summary import print_summary, summary_of
from drainer.config import Config
from drainer.config.build.paths import fresh_rehearsal, ledger_url
from drainer.config.build.server_routes import describe_routes, with_server_routes
from drainer.config.build.spools import make_sources
from drainer.config.route_section import route_configs
from drainer.delivery.build import build_settings
from drainer.delivery.route_delivery import RouteDelivery
from drainer.delivery.route_resolution import resolve_routes
from drainer.delivery.run import (
    DrainRequest,
    Run,
    WorkerProcesses,
    health_decisions,
    open_run,
    start_workers,
)
from drainer.errors import DrainerError, LedgerError
from drainer.ledger.engine import in_use
from drainer.mail.reply import printable
from drainer.policy.admission.selection import Choice
from drainer.policy.breaker.remedies import NO_KNOWN_GOOD
from drainer.policy.recipient.mapping import AddressMapping
from drainer.runtime import databases
from drainer.runtime.process import tune_gc
from drainer.runtime.workers import fork
from drainer.smtp.health_check import WARN
from drainer.smtp.health_check import check as check_primary
from drainer.sources.protocol import Source

NAMED = 10
"""The most messages in doubt that are named."""


@with_census
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
            " Default: [throttle] rate (10/second)."
        ),
    ] = "",
    connections: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=500,
            help="Connections; skips the ramp. Default: [primary] connections (5).",
        ),
    ] = None,
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    give_up_after: Annotated[
        str,
        typer.Option(
            help="Stop after this long without a success, while retrying. Default:"
            " [breaker] give_up_after (15m)."
        ),
    ] = "",
    *,
    choice: Choice,
    redirect: AddressMapping,
    primary: Sections,
    recipients: Sections,
    copy_of: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="The Postfix queue that SOURCE is a copy of: the end of the drain says"
            " how to settle it.",
        ),
    ] = "",
    no_check: NoCheckOption = False,
    dry_run: DryRunOption = False,
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
    sections = merge(primary, recipients, _sections(rate, connections, give_up_after))
    config = load(path, to=to, ledger=ledger, sections=sections, acts=True)
    refuse_without_lists(config, recipients)
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
        config = _add_server_routes(config, opened)
        whole, admission, mx = resolve_routes(config, opened, redirect)
        settings = build_settings(
            whole,
            choice,
            admission,
            explicit=explicit,
            acknowledge=not rehearse,
        )
        url = ledger_url(whole)
        request = DrainRequest(
            config=whole,
            settings=replace(settings, mx=mx),
            sources=opened,
            url=fresh_rehearsal(url) if rehearse else url,
        )
        request.check, request.as_json = not no_check, json_
        request.take_over = take_over
        code = run_loop(lambda: run_drain(request, workers))
    raise typer.Exit(code)


def _sections(rate: str, connections: int | None, give_up_after: str) -> Sections:
    """Return the keys of the configuration that the flags set."""
    sections: Sections = {"throttle": {}, "primary": {}, "breaker": {}}
    if rate:
        sections["throttle"]["rate"] = rate
    if connections is not None:
        sections["primary"]["connections"] = connections
    if give_up_after:
        sections["breaker"]["give_up_after"] = give_up_after
    return sections


def _add_server_routes(config: Config, sources: list[Source]) -> Config:
    """Use the routes of a running server if none is named; a person confirms them."""
    found = with_server_routes(config, sources)
    if found.routes and not config.routes:
        say("no primary is named: drainer sends mail where its server would send it")
        for words in describe_routes(found):
            say(f"  {words}")
        if sys.stdin.isatty():
            typer.confirm("Send it there?", abort=True, err=True)
    return found


@contextmanager
def worker_processes(config: Config) -> Iterator[WorkerProcesses]:
    """Have the processes of a run, forked before there are threads or databases."""
    tune_gc()  # so that they have less to copy
    with start_workers(fork, exports=config.telemetry.exports) as workers:
        yield workers


async def run_drain(request: DrainRequest, workers: WorkerProcesses) -> int:
    """Check the primary and drain, print how it ended; return the exit status."""
    names = ", ".join(request.settings.names)
    say(f"draining to {names}; ledger {databases.safe_url(request.url)}")
    _warn_of_defaults(request.config)
    for source in request.sources if request.settings.scans else ():
        introduce(source)
    async with (
        _notifying(request),
        _sending_metrics(request),
        open_run(request, workers) as run,
    ):
        await _check_and_drain(run)
    error = run.result.error
    _write_metrics(request)
    if warn_of_untaken(request.sources) and run.result.code == 0:
        run.result = run.result._replace(code=5)
    try:
        with in_use(request.url):
            print_summary(run, summary_of(run))
    except LedgerError as lost:
        error = error or lost
        if request.as_json:
            print_failure(error.exit_code, str(error), error.hint)
        return print_error(error)
    return run.result.code if error is None else print_error(error)


def _notifying(request: DrainRequest) -> AbstractAsyncContextManager[object]:
    """Notify as ``[notify]`` says while a drain runs; never about a rehearsal."""
    if not request.config.notify.is_on or not request.settings.acknowledge:
        return nullcontext()
    from drainer.watch.notify.notifications import open_notifications  # noqa: PLC0415 - few

    return open_notifications(lambda: request.config, request.url)


def _sending_metrics(request: DrainRequest) -> AbstractAsyncContextManager[object]:
    """Send metrics as ``[telemetry] metrics`` says; never of a rehearsal."""
    if request.config.telemetry.metrics == "off" or not request.settings.acknowledge:
        return nullcontext()
    from drainer.watch.collector_metrics import export_metrics  # noqa: PLC0415 - few

    return export_metrics(request.config, request.url)


def _write_metrics(request: DrainRequest) -> None:
    """Write ``[telemetry] textfile``; a failure is a warning, for the drain is over."""
    telemetry = request.config.telemetry
    if not telemetry.textfile or not request.settings.acknowledge:
        return
    from drainer.watch.textfile import write_textfile  # noqa: PLC0415 - few need it

    try:
        write_textfile(request.config, request.url, Path(telemetry.textfile))
    except DrainerError as error:
        warn(str(error))


async def _check_and_drain(run: Run) -> None:
    """Check the primary, and drain, unless a signal comes before."""
    checking = asyncio.ensure_future(_check(run))
    _listen_to_signals(run, checking)
    with suppress(asyncio.CancelledError):
        await checking
    if not run.interrupted:
        async with progress(run.engine, quiet=is_quiet()):
            await run.drain()


def _warn_of_defaults(config: Config) -> None:
    if config.primary.is_named and not config.primary.domains:
        others = " other" if config.routes else ""
        say(
            f"no [primary] domains are set: drainer sends mail for every{others} domain"
        )
    if not all(each.health.accept for each in route_configs(config)):
        warn(NO_KNOWN_GOOD)


async def _check(run: Run) -> None:
    """Check the primaries of all routes at the same time; leave out what is not ready.

    Raises PrimaryNotReady or UsageError when nothing is left.
    """
    if not run.request.check:
        return
    routes = list(run.engine.routes.values())
    refusals = await asyncio.gather(*(_check_route(run, each) for each in routes))
    errors = [each for each in refusals if each is not None]
    if len(errors) == len(routes):
        raise errors[0]
    for error in errors:
        warn(f"{error}; drainer sends nothing there")
        if error.hint:
            warn(error.hint)


async def _check_route(run: Run, route: RouteDelivery) -> DrainerError | None:
    """Check the primary of a route; return why it is not ready."""
    settings = route.settings
    health = await check_primary(settings.route, settings.probe)
    for decision in health_decisions(health, route.name):
        await run.ledger.note(decision)
    try:
        refuse_unless_healthy(health, route.name)
    except DrainerError as error:
        route.leave_out(str(error))
        return error
    for finding in health.findings:
        if finding.verdict == WARN and finding.hint != NO_KNOWN_GOOD:
            where = f" of {route.name}" if len(run.engine.routes) > 1 else ""
            warn(f"check of {finding.stage}{where}: {finding.hint or finding.reply}")
    return None


def _name_in_doubt(ids: list[str]) -> None:
    """Print which messages may have arrived, and what becomes of them."""
    if not ids:
        warn("ended at once; no message was in transfer")
        return
    some = ", ".join(printable(each, 100) for each in ids[:NAMED])
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    warn(
        f"ended at once; {len(ids)} messages in transfer are in doubt: {some}{more}."
        " Run it again: drainer sends each of them again, alone. `drainer list --state"
        " unknown` then shows them"
    )


def _listen_to_signals(run: Run, checking: "asyncio.Future[None]") -> None:
    loop = asyncio.get_running_loop()

    def end_now(number: int, _frame: object) -> None:
        """Die of the signal, as kill -9 would, but say what is left behind."""
        signal.signal(number, signal.SIG_DFL)
        release_terminal()
        _name_in_doubt(run.engine.in_flight)
        name_holds(run.request.sources)
        os.kill(os.getpid(), number)

    def stop() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end_now)  # it needs no loop that answers
        run.stop()
        checking.cancel()
        say("stopping after the messages in progress; press again to stop at once")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    had_terminal = sys.stderr.isatty()

    def hang_up() -> None:
        """Ignore `postfix reload`, which signals the owner of the master's lock."""
        if had_terminal and not sys.stderr.isatty():
            run.stop()
            checking.cancel()

    loop.add_signal_handler(signal.SIGHUP, hang_up)
