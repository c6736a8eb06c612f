"""`drain`: the main job."""

import asyncio
import hashlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NamedTuple

import typer
import uvloop

from drainer.cli.check import refuse_if_sick
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
from drainer.cli.output import (
    INTERRUPTED,
    explain,
    print_json,
    say,
    warn,
)
from drainer.cli.progress import progress
from drainer.cli.summary import Run, print_summary, summary_of
from drainer.cli.taking import give_back, take, tell_domains
from drainer.config import Config
from drainer.errors import DrainerError, LedgerError, LedgerUnwritable
from drainer.helper import Helper, fork
from drainer.leasing import Leases
from drainer.ledger import Decision, Kind
from drainer.ledger.choosing import remains
from drainer.ledger.report import Report
from drainer.ledger.sql import Ledger
from drainer.observe.export import Exporting, start_export
from drainer.policy.hints import NO_KNOWN_GOOD
from drainer.policy.redirect import Redirect
from drainer.policy.select import Choice
from drainer.process import rarely_collect, utcnow
from drainer.smtp.check import check as check_primary
from drainer.sources import Source
from drainer.taking import Takings
from drainer.wiring import (
    LedgerURL,
    fresh_rehearsal,
    ledger_url,
    lock_folder,
    make_orders,
    make_probe,
    make_sources,
    with_domains,
)
from drainer.worker import Drain


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("drain")(drain)


class _Helpers(NamedTuple):
    """The processes of a run."""

    scanner: Helper
    writer: Helper
    exporter: Helper | None


@contextmanager
def _helpers(config: Config) -> Iterator[_Helpers]:
    """Fork them before there are threads or open databases; leaving ends them."""
    rarely_collect()  # so that they have less to copy
    found = _Helpers(
        fork(), fork(), fork() if config.telemetry.traces != "off" else None
    )
    try:
        yield found
    finally:
        for helper in filter(None, found):
            helper.end()


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
    redirect: Redirect,
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
    json_: JsonOption = False,
) -> None:
    """Check the primary, then send it what the spool holds.

    Running it again goes on where the last run ended, also after a crash.

    Exit status: 0 every recipient is final; 1 a defect of ours, or the ledger
    cannot be written; 2 usage; 3 the primary is not ready; 4 the primary refuses
    us; 5 recipients remain; 6 another drain owns this source; 130 interrupted.

    Example: drainer drain postfix:/mnt/backup/spool --to mx1.example.com --rate 20/s
    """
    sections: dict[str, dict[str, Any]] = {"throttle": {}, "primary": {}, "gate": {}}
    if rate:
        sections["throttle"]["rate"] = rate
    if connections is not None:
        sections["primary"]["connections"] = connections
    if give_up_after:
        sections["gate"]["give_up_after"] = give_up_after
    with told(as_json=json_):
        config = load(path, to=to, ledger=ledger, sections=sections)
        if dry_run:
            print_plan(config, sources, (choice, redirect), as_json=json_)
            return

        def make() -> Run:
            opened = make_sources(config, sources, choice.selection.queues)
            whole = settled(config, opened)
            orders = make_orders(
                whole,
                choice,
                redirect,
                explicit=bool(rate) or connections is not None,
                acknowledge=not rehearse,
            )
            url = ledger_url(whole)
            run = Run(
                config=whole,
                orders=orders,
                sources=opened,
                url=fresh_rehearsal(url) if rehearse else url,
            )
            run.check, run.as_json = not no_check, json_
            return run

        code = carry_out(config, make)
    raise typer.Exit(code)


def carry_out(config: Config, make: Callable[[], Run]) -> int:
    """Do a run, which is made when its helpers stand; return the exit code."""
    with _helpers(config) as helpers:
        return uvloop.run(_drain(make(), helpers))


def settled(config: Config, sources: list[Source]) -> Config:
    """Return the configuration that nothing keeps from beginning.

    A server that runs may name the domains that are the primary's: before anything
    else goes by them.
    """
    for source in sources:
        source.refuse_if_live()
    asked = config.primary.domains
    config = with_domains(config, sources)
    if config.primary.domains != asked:
        tell_domains(config.primary.domains)
    return config


class _Parts(NamedTuple):
    """What works together in a run."""

    ledger: Ledger
    drain: Drain
    leases: Leases
    takings: Takings


def _assembled(run: Run, helpers: _Helpers) -> _Parts:
    ledger = Ledger(
        run.url,
        lock_folder(run.url),
        unknown=run.config.retry.unknown,
        at_hand=helpers.writer,
    )
    shared = run.sources if run.orders.acknowledge else ()
    taken = shared if run.orders.scans else ()
    leases = Leases(shared)
    drain = Drain(
        run.orders, run.sources, ledger, leases=leases, at_hand=helpers.scanner
    )
    return _Parts(ledger, drain, leases, Takings(taken, lock_folder(run.url)))


async def _drain(run: Run, helpers: _Helpers) -> int:
    shown_url = run.url.render_as_string(hide_password=True)
    route = str(run.orders.route)
    say(f"draining to {route}; ledger {shown_url}")
    _warn_of_defaults(run.config)
    parts = _assembled(run, helpers)
    ledger, drain = parts.ledger, parts.drain
    error: DrainerError | None = None
    in_doubt = await ledger.start(route)
    if in_doubt:
        warn(f"a run before this one died: {in_doubt} recipients are in doubt")
    exporting = start_export(
        run.config.telemetry, run.url, lock_folder(run.url), helpers.exporter
    )
    try:
        await _work(run, parts)
    except* DrainerError as group:
        error = _first(group)
    _warn_of_refusals(drain)
    await _end(ledger, _exit_code(run, drain, error))
    failure = await give_back(parts.takings, run.url)
    error = error or failure
    code = _exit_code(run, drain, error)
    ended = utcnow()
    await _stop_export(exporting)
    try:
        print_summary(run, drain, summary_of(run, drain, ledger, (code, ended)))
    except LedgerError:
        if error is None:  # else it is that which a person must see
            raise
    return code if error is None else explain(error)


async def _work(run: Run, parts: _Parts) -> None:
    """Check the primary, and drain, unless a signal comes before."""
    drain, route = parts.drain, str(run.orders.route)
    await parts.ledger.bind([source.url for source in run.sources], route)
    checking = asyncio.ensure_future(_check(run, parts.ledger))
    _listen_to_signals(drain, checking)
    with suppress(asyncio.CancelledError):
        await checking
    if not drain.tally.interrupted:
        await parts.leases.start(await asyncio.to_thread(_lease_owner, run.url))
        await take(parts.takings, drain)
    if not drain.tally.interrupted:
        async with progress(drain, quiet=False):
            await drain.run()


def _warn_of_refusals(drain: Drain) -> None:
    for url, refusal in drain.refusals.items():
        warn(f"{url} keeps what is finished: {refusal}; the ledger remembers it")


@contextmanager
def told(*, as_json: bool) -> Iterator[None]:
    """Tell scripts too what kept the drain from beginning."""
    try:
        yield
    except DrainerError as error:
        if as_json:
            summary = {"exit": error.exit_code, "error": str(error), "hint": error.hint}
            print_json(summary)
        raise


def _lease_owner(url: LedgerURL) -> str:
    """Return whom a shared source knows us as: the same for as long as the ledger is.

    So a rerun has at once what a dead run had leased, and knows what that run sent.
    """
    with Report(url) as report:
        salt = report.salt()
    return hashlib.sha256(b"lease" + salt).hexdigest()[:32]


def _warn_of_defaults(config: Config) -> None:
    if not config.primary.domains:
        say("no [primary] domains are set: mail for every recipient domain is sent")
    if not config.health.accept:
        warn(NO_KNOWN_GOOD)


async def _check(run: Run, ledger: Ledger) -> None:
    """Gate the drain: PrimaryNotReady or UsageError, and nothing was sent."""
    if not run.check:
        return
    health = await check_primary(run.orders.route, make_probe(run.config))
    for finding in health.findings:
        decision = Decision(
            at=utcnow(),
            kind=Kind.HEALTH,
            rule=f"health-{finding.stage.split(' ')[0]}",
            verdict=finding.verdict,
            reply=finding.reply,
            evidence={
                "stage": finding.stage,
                "seconds": round(finding.seconds, 6),
                "hint": finding.hint,
            },
        )
        await ledger.note(decision)
    refuse_if_sick(health, str(run.orders.route))


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


def _first(group: BaseExceptionGroup[DrainerError]) -> DrainerError:
    """Return the error that a person must see."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, DrainerError)  # noqa: S101 - what except* caught
    return found


def _exit_code(run: Run, drain: Drain, error: DrainerError | None) -> int:
    """Where several apply: 1, 130, 4, 5, 0."""
    if error is not None:
        return error.exit_code
    if drain.tally.defects:
        return 1
    if drain.tally.interrupted:
        return INTERRUPTED
    if drain.keeper.open_gates:
        return 4
    with Report(run.url) as report:
        left = remains(
            report, [source.url for source in run.sources], run.orders.choice
        )
    return 5 if left else 0


async def _end(ledger: Ledger, code: int) -> None:
    with suppress(LedgerUnwritable):
        await ledger.finish(code)
    await ledger.stop()


async def _stop_export(exporting: Exporting | None) -> None:
    if exporting is not None and not await asyncio.to_thread(exporting.finish):
        warn("not all traces could be sent; the next run will")
