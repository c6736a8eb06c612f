"""One run, from its configuration to its exit status, for the command and the watch.

The order: worker processes, claims, then the ledger. The run starts there, does its
work, and ends there. Then drainer returns to live queues what it took on hold, and
exports the last traces.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from drainer import __version__
from drainer.config import Config
from drainer.config.build.paths import (
    LedgerURL,
    ledger_name,
    lock_folder,
    marker_folders,
)
from drainer.config.telemetry import caller
from drainer.delivery.console import (
    print_claims,
    print_held,
    print_released,
    print_reserve,
)
from drainer.delivery.drain import Drain
from drainer.delivery.holds import SpoolHolds
from drainer.delivery.leases import SourceLeases
from drainer.delivery.settings import DrainSettings
from drainer.delivery.source_claims import SourceClaims
from drainer.errors import (
    DrainerError,
    LedgerError,
    LedgerLost,
    OwnedElsewhere,
)
from drainer.ledger.engine import in_use
from drainer.ledger.owner import RECONNECT_FOR
from drainer.ledger.query.selection import has_rest
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Decision, DecisionKind
from drainer.ledger.repository import Ledger
from drainer.runtime.host_limits import affordable, descriptors
from drainer.runtime.process import utcnow
from drainer.runtime.workers import WorkerProcess
from drainer.smtp.health_check import HealthReport
from drainer.sources.protocol import HeldCount, ReleasedCount, Source
from drainer.telemetry.client import finish_export, start_export

INTERRUPTED = 130

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class DrainRequest:
    """One run: what it must do, and where its ledger is."""

    config: Config
    settings: DrainSettings
    sources: list[Source]
    url: LedgerURL
    check: bool = True
    as_json: bool = False
    #: Whether drainer takes over sources that another ledger has.
    take_over: bool = False


class RunResult(NamedTuple):
    """How a run ended."""

    code: int
    error: DrainerError | None
    at: datetime


class WorkerProcesses(NamedTuple):
    """The processes of a run."""

    scanner: WorkerProcess
    writer: WorkerProcess
    exporter: WorkerProcess | None


@contextmanager
def start_workers(
    start: Callable[[], WorkerProcess], *, exports: bool
) -> Iterator[WorkerProcesses]:
    """Start the processes of a run; leaving ends them."""
    workers = WorkerProcesses(start(), start(), start() if exports else None)
    try:
        yield workers
    finally:
        for each in filter(None, workers):
            each.end()


class Run:
    """A run that has started: its parts, and in the end its result."""

    def __init__(self, request: DrainRequest, workers: WorkerProcesses) -> None:
        """Build the parts; nothing is started."""
        self.request = request
        folder = lock_folder(request.url)
        self.ledger = Ledger(
            request.url,
            folder,
            unknown=request.config.retry.unknown,
            spare_worker=workers.writer,
        )
        shared = request.sources if request.settings.acknowledge else ()
        self._leases = SourceLeases(shared)
        self.spool_holds = SpoolHolds(shared, folder)
        #: What was returned to the servers of the sources, by URL.
        self.returned: Mapping[str, ReleasedCount] = {}
        self.engine = Drain(
            request.settings,
            request.sources,
            self.ledger,
            leases=self._leases,
            spare_worker=workers.scanner,
        )
        self.result = RunResult(1, None, utcnow())

    @property
    def interrupted(self) -> bool:
        """Whether it was asked to stop."""
        return self.engine.progress.interrupted

    def stop(self) -> None:
        """End soon: each session finishes its message."""
        self.engine.stop()

    async def drain(self) -> None:
        """Take what is to be sent on hold where its server runs, and send it."""
        await self._leases.start(await asyncio.to_thread(_identity, self.request.url))
        await self.engine.open_lists()
        if not self.interrupted:
            await _take(self.spool_holds, self.engine)
        if not self.interrupted:
            await self.engine.take_census(asks=self.request.check)
        if not self.interrupted:
            await self.engine.run()


@asynccontextmanager
async def open_run(
    request: DrainRequest, workers: WorkerProcesses
) -> AsyncIterator[Run]:
    """Claim the sources and start a run; on leaving end it, whatever happened.

    A DrainerError of the block ends up in ``Run.result``. Without an exporter among the
    workers, drainer does not export traces here. Raises ClaimConflict when another
    ledger has a source, LedgerError when the ledger cannot be used.
    """
    claims = await asyncio.to_thread(_claim_sources, request)
    code = 1
    try:
        request.settings = limit_connections(request.settings)
        run = Run(request, workers)
        await _start(run)
        exporting = _start_export(request, workers.exporter)
        error: DrainerError | None = None
        try:
            await _bind(run, claims.replaced)
        except DrainerError as unbound:
            await _end(run, unbound)
            raise
        try:
            yield run
        except* DrainerError as group:
            error = _since_start(main_error(group), request.url)
        await _end(run, error)
        code = run.result.code
        if exporting and not await asyncio.to_thread(finish_export, exporting):
            _log.warning("not all traces could be sent; the next run sends the rest")
    finally:
        await asyncio.to_thread(claims.release, request.url, code)


def _claim_sources(request: DrainRequest) -> SourceClaims:
    """Claim what is drained; a rehearsal, which acknowledges nothing, claims nothing.

    A run that scans nothing leaves a claimed source out, and does the rest.
    """
    sources = request.sources if request.settings.acknowledge else ()
    claims = SourceClaims(sources, marker_folders(request.url))
    claims.take(request.url, ledger_name(request.url), take_over=request.take_over)
    if claims.refused and request.settings.scans:
        claims.release(request.url, 2)
        raise next(iter(claims.refused.values()))
    for url, refusal in claims.refused.items():
        _log.warning(f"{url} is left out: {refusal}")
    request.sources = [s for s in request.sources if s.url not in claims.refused]
    print_claims(claims.elsewhere, claims.replaced)
    return claims


async def _bind(run: Run, replaced: Sequence[tuple[str, str]]) -> None:
    """Assign known mail to the routes; record sources taken from another ledger."""
    urls = [source.url for source in run.request.sources]
    await run.ledger.runs.assign(urls, run.request.settings.admission)
    for url, former in replaced:
        await run.ledger.note(_taken_over(url, former))


def limit_connections(settings: DrainSettings) -> DrainSettings:
    """Return settings for as many connections as there are descriptors for."""
    wanted = sum(each.connections for each in settings.routes)
    most = affordable(wanted)
    if most >= wanted:
        return settings
    _log.warning(
        f"{most} connections instead of {wanted}: this process may have"
        f" {descriptors()} descriptors; raise `ulimit -n`, or LimitNOFILE= in the unit,"
        " or lower [primary] connections"
    )
    return replace(
        settings,
        routes=tuple(
            replace(each, connections=max(1, each.connections * most // wanted))
            for each in settings.routes
        ),
    )


async def _start(run: Run) -> None:
    """Start the run in the ledger, and report what earlier runs have left."""
    ledger = run.ledger
    try:
        rates = run.request.settings.steady_rates
        facts = {"version": __version__, "rates": rates, **caller()}
        found = await ledger.start(run.request.settings.names, facts)
    except BaseException:
        await ledger.stop()
        raise
    if found.in_doubt:
        _log.warning(
            f"a run before this one died: {found.in_doubt} recipients are in doubt"
        )
    if found.settled:
        _log.info(
            f"{found.settled} recipients were delivered by a run that lost the ledger:"
            " its reserve says so"
        )
    for warning in ledger.reserve.warnings:
        _log.warning(warning)


async def _end(run: Run, error: DrainerError | None) -> None:
    """End the run in the ledger, release what was taken on hold; set the result."""
    for url, refusal in run.engine.refusals.items():
        _log.warning(
            f"{url} keeps what is finished: {refusal}; the ledger remembers it"
        )
    code, error = _exit_code(run, error)
    with suppress(LedgerLost):
        progress = run.engine.progress
        done = {"messages": progress.sent_messages, "bytes": progress.sent_bytes}
        await run.ledger.finish(code, done)
    await run.ledger.stop()
    print_reserve(run.ledger.reserve)
    failure = await _release(run)
    code, error = _exit_code(run, error or failure)
    run.result = RunResult(code, error, utcnow())


async def _take(spool_holds: SpoolHolds, drain: Drain) -> None:
    """Take what this drain is going to send on hold, from servers that run."""
    total = HeldCount()
    settings, progress = drain.settings, drain.progress
    rules = settings.admission if settings.scans else None
    async for _, taken in spool_holds.take(rules, lambda: progress.interrupted):
        total = HeldCount(*map(sum, zip(total, taken, strict=True)))
    print_held(total)


async def _release(run: Run) -> DrainerError | None:
    """Settle what is on hold; return why that is not possible."""
    holds, url = run.spool_holds, run.request.url
    if not holds:
        return None
    try:
        with in_use(url), LedgerReader(url, patience=RECONNECT_FOR) as report:
            run.returned = await holds.give_back(report)
    except OwnedElsewhere:  # then it is not ours
        return None
    except DrainerError as error:
        _log.warning("drainer could not return what it took on hold; the next run will")
        return error
    for source, each in run.returned.items():
        if any(each):
            print_released(source, each)
    return None


def _taken_over(url: str, former: str) -> Decision:
    """Return the record of a source that was taken over from another ledger."""
    evidence: dict[str, object] = {"source": url, "from": former}
    rule = "operator-take-over"
    return Decision(
        at=utcnow(), kind=DecisionKind.OPERATOR, rule=rule, evidence=evidence
    )


def health_decisions(health: HealthReport, route: str) -> Iterator[Decision]:
    """Yield the record of the health check of a route, one per stage."""
    for finding in health.findings:
        yield Decision(
            at=utcnow(),
            kind=DecisionKind.HEALTH,
            rule=f"health-{finding.stage.split(' ')[0]}",
            verdict=finding.verdict,
            reply=finding.reply,
            evidence={
                "route": route,
                "stage": finding.stage,
                "seconds": round(finding.seconds, 6),
                "hint": finding.hint,
                "address": str(finding.facts.get("address", "")),
            },
        )


def _identity(url: LedgerURL) -> str:
    """Return the name under which shared sources lease to this ledger.

    A repeated run has the leases of a dead run at once, and knows what that run sent.
    """
    with LedgerReader(url, patience=RECONNECT_FOR) as report:
        return report.identity()


def _start_export(
    request: DrainRequest, exporter: WorkerProcess | None
) -> WorkerProcess | None:
    if exporter is None:
        return None
    url = request.url
    return start_export(
        request.config.telemetry,
        url,
        lock_folder(url),
        exporter,
        rehearsal=not request.settings.acknowledge,
    )


def main_error(group: BaseExceptionGroup[DrainerError]) -> DrainerError:
    """Return the error the operator must see: a lost ledger explains the others."""
    error: BaseException = group.subgroup(LedgerError) or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, DrainerError)  # noqa: S101 - ``except*`` has chosen it
    return error


def _since_start(error: DrainerError, url: LedgerURL) -> DrainerError:
    """Return an error as it counts once the ledger was open."""
    try:
        with in_use(url):
            raise error
    except DrainerError as found:
        return found


def _exit_code(run: Run, error: DrainerError | None) -> tuple[int, DrainerError | None]:
    """Return the code, and the error. Where several apply: 1, 130, 4, 5, 0."""
    engine, request = run.engine, run.request
    if error is not None:
        return error.exit_code, error
    if engine.control.defects:
        return 1, None
    if run.interrupted:
        return INTERRUPTED, None
    if engine.open_breakers or any(r.not_ready for r in engine.routes.values()):
        return 4, None
    urls = [source.url for source in request.sources]
    try:
        with (
            in_use(request.url),
            LedgerReader(request.url, patience=RECONNECT_FOR) as report,
        ):
            left = has_rest(report, urls, request.settings.choice)
    except LedgerError as lost:
        return lost.exit_code, lost
    return 5 if left else 0, None
