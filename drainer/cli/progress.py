"""Progress of a running drain for people: two live lines, or plain lines."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from itertools import islice

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from drainer.cli.log import mask_addresses, stderr
from drainer.delivery.drain import Drain
from drainer.delivery.settings import Progress, RouteProgress
from drainer.mail.reply import printable
from drainer.policy.pacing.forecast import least_seconds
from drainer.policy.recipient.state import State
from drainer.runtime.process import utcnow
from drainer.runtime.units import describe_duration

REFRESH = 0.2
PLAIN_EVERY = 10.0
WINDOW = 30.0
"""Seconds: the rate shown is that of the last ones."""
LEAST_BAR, MOST_BAR = 4, 24
ROUTES = 8
"""Routes that get a line of their own."""
_LIVES: list[Live] = []
_NEAR = 0.8
"""Share of the allowed rate from which on the rate limit decides how long it takes."""
_COUNTS = (
    ((State.DEFERRED,), "deferred"),
    ((State.BOUNCE_PENDING, State.BOUNCED, State.QUARANTINED), "refused"),
    ((State.HELD,), "held"),
    ((State.UNKNOWN,), "in doubt"),
)


class ProgressLines:
    """What a drain has done, in lines; it remembers the last half minute."""

    def __init__(self, progress: Progress) -> None:
        """Look at this progress."""
        self._progress = progress
        self._samples = deque([(progress.started, 0)])

    def at(self, now: datetime) -> tuple[str, list[str]]:
        """Return the line behind the bar, and those below it."""
        progress, rate = self._progress, self._rate(now)
        more = "+" if progress.scanning else ""
        percent = 100 * progress.sent_messages // max(1, progress.total)
        elapsed = (now - progress.started).total_seconds()
        head = [
            f"{percent}% {progress.sent_messages}/{progress.total}{more} sent",
            describe_duration(elapsed),
            f"{rate:.1f}/s",
        ]
        routes = progress.routes
        if len(routes) == 1:
            head[-1] += f" of {routes[0].limit}"
        seconds = self._seconds_left(rate)
        if seconds:
            head.append(f"{describe_duration(seconds)} to go")
        below = list(_counts(progress))
        if len(routes) == 1:
            below += _route_words(routes[0])
        lines = [", ".join(below)] if below else []
        if len(routes) > 1:
            lines += [_route_summary(each, now) for each in islice(routes, ROUTES)]
        return ", ".join(head), lines

    def _rate(self, now: datetime) -> float:
        """Return messages per second over the last half minute."""
        samples = self._samples
        samples.append((now, self._progress.sent_messages))
        while (now - samples[1][0]).total_seconds() >= WINDOW:
            samples.popleft()
        since, sent = samples[0]
        seconds = (now - since).total_seconds()
        return (samples[-1][1] - sent) / seconds if seconds > 0 else 0.0

    def _seconds_left(self, rate: float) -> float:
        """Return how long the rest takes; 0 where that cannot be known."""
        progress = self._progress
        left = progress.total - progress.sent_messages
        waits = any(each.waiting or each.paused for each in progress.routes)
        if left <= 0 or not rate or waits:
            return 0.0
        if len(progress.routes) == 1:
            route = progress.routes[0]
            most = route.per_second
            if most and rate >= _NEAR * most * route.level:
                return least_seconds(left, most, route.ramp, route.level)
        return left / rate


def _counts(progress: Progress) -> Iterator[str]:
    """Yield how many recipients are not delivered, by what became of them."""
    for states, word in _COUNTS:
        count = sum(progress.states[state] for state in states)
        if count > 0:
            yield f"{count} {word}"


def _route_words(route: RouteProgress) -> Iterator[str]:
    """Yield why a route is not sending more, and what it waits for."""
    if route.paused:
        yield route.paused
    elif route.held:
        yield f"limited to {route.held}"
    if route.load_unknown:
        yield f"the primary's load is unknown: {route.load_unknown}"
    if route.share < 1:
        yield f"{route.share:.0%} of the rate, other drains have the rest"
    if route.waiting:
        yield route.waiting


def _route_summary(route: RouteProgress, now: datetime) -> str:
    """Return one of several routes in a few words: its count, its rate, its problem."""
    seconds = (now - route.started).total_seconds()
    rate = len(route.sent) / seconds if seconds > 0 else 0.0
    problem = route.paused or route.waiting
    words = f"{route.name}: {len(route.sent)} at {rate:.1f}/s"
    return f"{words} ({problem})" if problem else words


def _view(progress: Progress, lines: ProgressLines) -> Group:
    """Return the lines for a terminal; what is too long for it is cut."""
    head, below = lines.at(utcnow())
    bar = ProgressBar(
        total=max(1, progress.total),
        completed=progress.sent_messages,
        width=max(LEAST_BAR, min(MOST_BAR, stderr.width - len(head) - 1)),
        pulse=progress.scanning and not progress.total,
    )
    row = Table.grid(padding=(0, 1))
    row.add_row(bar, _line(head))
    return Group(row, *map(_line, below))


def _line(words: str) -> Text:
    return Text(
        printable(mask_addresses(words), 1000), no_wrap=True, overflow="ellipsis"
    )


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
    lines = ProgressLines(drain.progress)
    with Live(console=stderr, auto_refresh=False) as live:
        _LIVES.append(live)
        try:
            while True:
                live.update(_view(drain.progress, lines), refresh=True)
                await asyncio.sleep(REFRESH)
        finally:
            live.update(_view(drain.progress, lines), refresh=True)
            _LIVES.remove(live)


def release_terminal() -> None:
    """Leave the terminal as it was, in the middle of a drain: it shows its cursor."""
    for live in _LIVES:
        live.stop()


async def _plain(drain: Drain) -> None:
    lines = ProgressLines(drain.progress)
    while True:
        await asyncio.sleep(PLAIN_EVERY)
        head, below = lines.at(utcnow())
        stderr.print(_line("; ".join([head, *below])), soft_wrap=True)
