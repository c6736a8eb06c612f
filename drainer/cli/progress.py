"""Progress of a running drain for people: a live line, or plain lines."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import datetime

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from drainer.cli.log import stderr
from drainer.cli.output import clean
from drainer.delivery.drain import Drain
from drainer.delivery.settings import RouteProgress
from drainer.policy.classify.verdict import Verdict
from drainer.runtime.process import utcnow
from drainer.runtime.units import describe_duration

REFRESH = 0.2
PLAIN_EVERY = 10.0


def _rate(drain: Drain, now: datetime) -> float:
    seconds = (now - drain.progress.started).total_seconds()
    return drain.progress.sent_messages / seconds if seconds > 0 else 0.0


def _words(drain: Drain) -> str:
    """Return done/total, rate and its limit, problems, and what the drain waits for."""
    progress, verdicts = drain.progress, drain.progress.verdicts
    now = utcnow()
    more = "+" if progress.scanning else ""
    parts = [f"{progress.sent_messages}/{progress.total}{more} sent"]
    if len(progress.routes) == 1:
        parts += _route_words(progress.routes[0], _rate(drain, now))
    else:
        parts += [_route_summary(each, now) for each in progress.routes]
    deferred = verdicts[Verdict.RETRY] + verdicts[Verdict.RETRY_LONG]
    refused = verdicts[Verdict.BOUNCE]
    for count, word in (
        (deferred, "deferred"),
        (refused, "refused"),
        (verdicts[Verdict.HOLD], "held"),
        (verdicts[Verdict.UNKNOWN], "in doubt"),
    ):
        if count:
            parts.append(f"{count} {word}")
    left = progress.total - progress.sent_messages
    rate = _rate(drain, now)
    waiting = [each.waiting for each in progress.routes if not each.paused]
    if rate and left > 0 and not any(waiting):
        parts.append(f"{describe_duration(left / rate)} to go")
    if len(progress.routes) == 1:
        parts += filter(None, waiting)
    return ", ".join(parts)


def _route_words(route: RouteProgress, rate: float) -> Iterator[str]:
    """Yield the rate of a route and its limit, and why it is not sending more."""
    yield f"{rate:.1f}/s of {route.limit}"
    if route.paused:
        yield route.paused
    elif route.held:
        yield f"limited to {route.held}"
    if route.load_unknown:
        yield f"the primary's load is unknown: {route.load_unknown}"
    if route.share < 1:
        yield f"{route.share:.0%} of the rate, other drains have the rest"


def _route_summary(route: RouteProgress, now: datetime) -> str:
    """Return one of several routes in a few words: its count, its rate, its problem."""
    seconds = (now - route.started).total_seconds()
    rate = len(route.sent) / seconds if seconds > 0 else 0.0
    problem = route.paused or route.waiting
    words = f"{route.name}: {len(route.sent)} at {rate:.1f}/s"
    return f"{words} ({problem})" if problem else words


def _line(drain: Drain) -> Table:
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(
        total=max(1, drain.progress.total),
        completed=drain.progress.sent_messages,
        width=24,
        pulse=drain.progress.scanning and not drain.progress.total,
    )
    row.add_row(bar, clean(_words(drain)))
    return row


@contextlib.asynccontextmanager
async def progress(drain: Drain, *, quiet: bool) -> AsyncIterator[None]:
    """Show progress on stderr while the block runs."""
    if quiet:
        yield
        return
    shower = _live(drain) if stderr.is_terminal else _plain(drain)
    task = asyncio.ensure_future(shower)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _live(drain: Drain) -> None:
    with Live(
        _line(drain), console=stderr, transient=False, auto_refresh=False
    ) as live:
        try:
            while True:
                live.update(_line(drain), refresh=True)
                await asyncio.sleep(REFRESH)
        finally:
            live.update(_line(drain), refresh=True)


async def _plain(drain: Drain) -> None:
    while True:
        await asyncio.sleep(PLAIN_EVERY)
        stderr.print(clean(_words(drain)))
