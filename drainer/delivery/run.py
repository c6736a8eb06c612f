"""One run from its configuration to its exit code, for the command and for the watch.

The order: helpers, then the ledger; begin the run there, let it work, end it there,
give back what was taken from servers that run; then the rest of the traces.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from drainer.config import Config
from drainer.config.build.spools import with_domains
from drainer.config.build.storage import (
    LedgerURL,
    lock_folder,
    marker_folders,
    shown_ledger,
)
from drainer.delivery.console import (
    Voice,
    tell_claims,
    tell_domains,
    tell_returned,
    tell_taken,
)
from drainer.delivery.drain import Drain
from drainer.delivery.holds import LiveHolds
from drainer.delivery.leases import SourceLeases
from drainer.delivery.settings import DrainSettings
from drainer.delivery.source_claims import SourceClaims
from drainer.errors import DrainerError, LedgerError, LedgerLost, OwnedElsewhere
from drainer.ledger.engine import in_use
from drainer.ledger.owner import RECONNECT_FOR
from drainer.ledger.query.selection import remains
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Decision, DecisionKind
from drainer.ledger.repository import Ledger
from drainer.ledger.reserve import DELIVERED, Reserve
from drainer.runtime.host_limits import affordable, descriptors
from drainer.runtime.process import utcnow
from drainer.runtime.workers import WorkerProcess
from drainer.smtp.health_check import HealthReport
from drainer.sources.protocol import HeldCount, Source
from drainer.telemetry.client import ExportProcess, start_export

INTERRUPTED = 130
SHOWN_RECORDS = 20


@dataclass(slots=True, kw_only=True)
class DrainRequest:
    """One run: what it is told to do, and where it remembers."""

    config: Config
    settings: DrainSettings
    sources: list[Source]
    url: LedgerURL
    check: bool = True
    as_json: bool = False
    #: Whether sources that another ledger has are taken over from it.
    take_over: bool = False


class WorkerProcesses(NamedTuple):
    """The processes of a run."""

    scanner: WorkerProcess
    writer: WorkerProcess
    exporter: WorkerProcess | None


@contextmanager
def helpers(
    make: Callable[[], WorkerProcess], *, exports: bool
) -> Iterator[WorkerProcesses]:
    """Have the processes of a run; leaving ends them."""
    found = WorkerProcesses(make(), make(), make() if exports else None)
    try:
        yield found
    finally:
        for helper in filter(None, found):
            helper.end()


def settled(config: Config, sources: list[Source], voice: Voice) -> Config:
    """Return the configuration that nothing keeps from beginning.

    A server that runs may name the domains that are the primary's: before anything
    else goes by them.
    """
    for source in sources:
        source.refuse_if_live()
    asked = config.primary.domains
    config = with_domains(config, sources)
    if config.primary.domains != asked:
        tell_domains(voice, config.primary.domains)
    return config


class RunParts(NamedTuple):
    """What works together in a run."""

    ledger: Ledger
    drain: Drain
    leases: SourceLeases
    live_holds: LiveHolds


class RunResult(NamedTuple):
    """How a run ended."""

    parts: RunParts
    code: int
    error: DrainerError | None
    at: datetime


def assembled(run: DrainRequest, found: WorkerProcesses) -> RunParts:
    """Return what is to work together; nothing is begun."""
    ledger = Ledger(
        run.url,
        lock_folder(run.url),
        unknown=run.config.retry.unknown,
        at_hand=found.writer,
    )
    shared = run.sources if run.settings.acknowledge else ()
    taken = shared if run.settings.scans else ()
    leases = SourceLeases(shared)
    drain = Drain(
        run.settings, run.sources, ledger, leases=leases, at_hand=found.scanner
    )
    return RunParts(ledger, drain, leases, LiveHolds(taken, lock_folder(run.url)))


async def carried_out(
    run: DrainRequest,
    found: WorkerProcesses,
    work: Callable[[RunParts], Awaitable[None]],
    voice: Voice,
) -> RunResult:
    """Claim the sources, start a run, let it ``work``, and end it, whatever happens.

    Without an exporter among the helpers its traces are not exported here. Raises
    SourceClaimed when another ledger has a source.
    """
    claims = await asyncio.to_thread(_claimed, run, voice)
    code = 1
    try:
        ended = await _claimed_run(run, found, work, voice, claims.replaced)
        code = ended.code
        return ended
    finally:
        await asyncio.to_thread(claims.release, run.url, code)


def _claimed(run: DrainRequest, voice: Voice) -> SourceClaims:
    """Claim what is drained; a rehearsal, which acknowledges nothing, claims nothing.

    A run that scans nothing leaves a claimed source out, and does the rest.
    """
    sources = run.sources if run.settings.acknowledge else ()
    claims = SourceClaims(sources, marker_folders(run.url))
    claims.take(run.url, shown_ledger(run.url), take_over=run.take_over)
    if claims.refused and run.settings.scans:
        claims.release(run.url, 2)
        raise next(iter(claims.refused.values()))
    for url, refusal in claims.refused.items():
        voice.warn(f"{url} is left out: {refusal}")
    run.sources = [each for each in run.sources if each.url not in claims.refused]
    tell_claims(voice, claims.elsewhere, claims.replaced)
    return claims


async def _claimed_run(
    run: DrainRequest,
    found: WorkerProcesses,
    work: Callable[[RunParts], Awaitable[None]],
    voice: Voice,
    replaced: Sequence[tuple[str, str]],
) -> RunResult:
    """Do the run on the sources that were claimed; some from another ledger."""
    run.settings = within_limits(run.settings, voice)
    parts = assembled(run, found)
    ledger, drain = parts.ledger, parts.drain
    route = str(run.settings.route)
    error: DrainerError | None = None
    await _begin(ledger, route, voice)
    exporting = _exporting(run, found.exporter)
    try:
        await ledger.bind([source.url for source in run.sources], route)
        for url, former in replaced:
            await ledger.note(_taken_over(url, former))
        await work(parts)
    except* DrainerError as group:
        error = _since_start(first_of(group), run.url)
    for url, refusal in drain.refusals.items():
        voice.warn(f"{url} keeps what is finished: {refusal}; the ledger remembers it")
    code, error = _exit_code(run, drain, error)
    await _end(ledger, code)
    tell_reserve(voice, ledger.reserve)
    failure = await _give_back(parts.live_holds, run.url, voice)
    code, error = _exit_code(run, drain, error or failure)
    ended = RunResult(parts, code, error, utcnow())
    if exporting and not await asyncio.to_thread(exporting.finish):
        voice.warn("not all traces could be sent; the next run will")
    return ended


def within_limits(settings: DrainSettings, voice: Voice) -> DrainSettings:
    """Return orders for as many connections as there are descriptors for."""
    most = max(1, affordable(settings.connections))
    if most < settings.connections:
        voice.warn(
            f"{most} connections instead of {settings.connections}: this process may"
            f" have {descriptors()} descriptors; raise `ulimit -n`, or LimitNOFILE= in"
            " the unit, or lower [primary] connections"
        )
    return replace(settings, connections=most)


async def _begin(ledger: Ledger, route: str, voice: Voice) -> None:
    """Start the run in the ledger, and say what earlier runs have left."""
    try:
        begun = await ledger.start(route)
    except BaseException:
        await ledger.stop()
        raise
    if begun.in_doubt:
        voice.warn(
            f"a run before this one died: {begun.in_doubt} recipients are in doubt"
        )
    if begun.settled:
        voice.say(
            f"{begun.settled} recipients were delivered by a run that lost the ledger:"
            " its reserve says so"
        )
    for warning in ledger.reserve.warnings:
        voice.warn(warning)


def tell_reserve(voice: Voice, reserve: Reserve) -> None:
    """Name the recipients whose outcome only the reserve has."""
    if not reserve.records:
        return
    voice.warn(
        f"the ledger does not know the outcome of {len(reserve.records)} recipients"
    )
    for record in reserve.records[:SHOWN_RECORDS]:
        is_delivered = record.outcome == DELIVERED
        meaning = "delivered" if is_delivered else "unknown, perhaps delivered"
        voice.warn(
            f"{record.native_id} to {record.forward_path}: {meaning}: {record.reply}"
        )
    if len(reserve.records) > SHOWN_RECORDS:
        voice.warn(f"and {len(reserve.records) - SHOWN_RECORDS} more")
    if reserve.failure:
        voice.warn(f"the reserve {reserve.path} cannot be written: {reserve.failure}")
    else:
        voice.warn(
            f"they are in the reserve {reserve.path}; the next run on this host"
            " settles them from there"
        )


async def drained(run: DrainRequest, parts: RunParts, voice: Voice) -> None:
    """Take what is to be sent, and send it, unless told to stop before."""
    drain = parts.drain
    await parts.leases.start(await asyncio.to_thread(_identity, run.url))
    await _take(parts.live_holds, drain, voice)
    if not drain.progress.interrupted:
        await drain.run()


async def _take(live_holds: LiveHolds, drain: Drain, voice: Voice) -> None:
    """Take from servers that run what this drain is going to send."""
    total = HeldCount()
    rules, progress = drain.settings.admission, drain.progress
    async for _, taken in live_holds.take(rules, lambda: progress.interrupted):
        total = HeldCount(*map(sum, zip(total, taken, strict=True)))
    tell_taken(voice, total)


async def _give_back(
    live_holds: LiveHolds, url: LedgerURL, voice: Voice
) -> DrainerError | None:
    """Give back what is not finished; return why that is not possible."""
    if not live_holds:
        return None
    try:
        with in_use(url), LedgerReader(url, patience=RECONNECT_FOR) as report:
            returned = await live_holds.give_back(report)
    except OwnedElsewhere:  # then it is not ours
        return None
    except DrainerError as error:
        voice.warn("what was taken on hold could not be given back; the next run will")
        return error
    for source, each in returned.items():
        if any(each):
            tell_returned(voice, source, each)
    return None


def _taken_over(url: str, former: str) -> Decision:
    """Return the record of a source that was taken over from another ledger."""
    evidence: dict[str, object] = {"source": url, "from": former}
    rule = "operator-take-over"
    return Decision(
        at=utcnow(), kind=DecisionKind.OPERATOR, rule=rule, evidence=evidence
    )


def health_decisions(health: HealthReport) -> Iterator[Decision]:
    """Yield the record of a health check, one per stage."""
    for finding in health.findings:
        yield Decision(
            at=utcnow(),
            kind=DecisionKind.HEALTH,
            rule=f"health-{finding.stage.split(' ')[0]}",
            verdict=finding.verdict,
            reply=finding.reply,
            evidence={
                "stage": finding.stage,
                "seconds": round(finding.seconds, 6),
                "hint": finding.hint,
            },
        )


def _identity(url: LedgerURL) -> str:
    """Return the name under which shared sources lease to this ledger.

    A rerun has at once what a dead run had leased, and knows what that run sent.
    """
    with LedgerReader(url, patience=RECONNECT_FOR) as report:
        return report.identity()


def _exporting(
    run: DrainRequest, exporter: WorkerProcess | None
) -> ExportProcess | None:
    if exporter is None:
        return None
    return start_export(run.config.telemetry, run.url, lock_folder(run.url), exporter)


def first_of(group: BaseExceptionGroup[DrainerError]) -> DrainerError:
    """Return the error that a person must see: a lost ledger explains the others."""
    found = list(_leaves(group))
    return next((each for each in found if isinstance(each, LedgerError)), found[0])


def _leaves(group: BaseException) -> Iterator[DrainerError]:
    if isinstance(group, BaseExceptionGroup):
        for each in group.exceptions:
            yield from _leaves(each)
    elif isinstance(group, DrainerError):
        yield group


def _since_start(error: DrainerError, url: LedgerURL) -> DrainerError:
    """Return an error as it counts once the ledger was open."""
    try:
        with in_use(url):
            raise error
    except DrainerError as found:
        return found


def _exit_code(
    run: DrainRequest, drain: Drain, error: DrainerError | None
) -> tuple[int, DrainerError | None]:
    """Return the code, and the error. Where several apply: 1, 130, 4, 5, 0."""
    if error is not None:
        return error.exit_code, error
    if drain.progress.defects:
        return 1, None
    if drain.progress.interrupted:
        return INTERRUPTED, None
    if drain.breaker_guard.open_breakers:
        return 4, None
    urls = [source.url for source in run.sources]
    try:
        with in_use(run.url), LedgerReader(run.url, patience=RECONNECT_FOR) as report:
            left = remains(report, urls, run.settings.choice)
    except LedgerError as lost:
        return lost.exit_code, lost
    return 5 if left else 0, None


async def _end(ledger: Ledger, code: int) -> None:
    with suppress(LedgerLost):
        await ledger.finish(code)
    await ledger.stop()
