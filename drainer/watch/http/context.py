"""What all endpoints share: the settings, the read access, the way into the ledger."""

import asyncio
from collections import Counter
from datetime import timedelta

from sqlalchemy.engine import URL
from starlette.exceptions import HTTPException

from drainer.errors import LedgerError
from drainer.ledger.overrides import give
from drainer.policy.pacing.overrides import Override, OverrideKind
from drainer.runtime.process import utcnow
from drainer.watch.http.auth import SignatureCheck
from drainer.watch.http.limits import ClientLimits, LoginFailures
from drainer.watch.http.queries import StatusQueries
from drainer.watch.http.settings import HookSettings
from drainer.watch.http.snapshot import WatchView

MAX_STREAMS = 32


class AppContext:
    """One server's memory, which ends with it."""

    def __init__(
        self, settings: HookSettings, watched: WatchView, url: URL, route: str
    ) -> None:
        """Serve one watch, and write controls of its routes into its ledger."""
        self.settings = settings
        self.watched = watched
        self.reading = StatusQueries(watched, url, settings)
        #: How often one client may ask: clients with a valid proof, and clients
        #: without.
        self.known = ClientLimits(settings.rate)
        self.strangers = ClientLimits(settings.rate)
        self.failures = LoginFailures(settings.rate)
        self.signatures = SignatureCheck(settings.keys.hmac)
        #: Answers to hooks and orders, by path and status.
        self.answers: Counter[tuple[str, str]] = Counter()
        #: How long each stream of events may still last, the oldest first.
        self.streams: dict[asyncio.Timeout, None] = {}
        #: One at a time: the watch uses the threads too.
        self._turn = asyncio.Lock()
        self._url, self._route = url, route

    async def give(
        self,
        ask: OverrideKind,
        by: str,
        reason: str,
        lasts: timedelta | None = None,
        per_second: float | None = None,
    ) -> Override:
        """Write a control into the ledger; HTTPException 503 if that fails."""
        now = utcnow()
        control = Override(
            at=now,
            ask=ask,
            by=by,
            reason=reason,
            until=None if lasts is None else now + lasts,
            per_second=per_second,
        )
        try:
            async with self._turn:
                return await asyncio.to_thread(self._write, control)
        except LedgerError as error:
            words = f"{error}; {error.hint}" if error.hint else str(error)
            raise HTTPException(503, words) from error

    def _write(self, control: Override) -> Override:
        """Give it for every route, that of the watch first; hooks are for the latter.

        Returns that of the watch.
        """
        given = give(self._url, self._route, control)
        if control.ask not in (OverrideKind.UP, OverrideKind.DOWN):
            for each in self.watched.snapshot()["routes"]:
                if each["route"] != self._route:
                    give(self._url, each["route"], control)
        return given

    def add_stream(self, life: asyncio.Timeout) -> None:
        """Keep a stream; of too many the oldest ends, and its page reconnects."""
        self.end_streams(leaving=MAX_STREAMS - 1)
        self.streams[life] = None

    def end_streams(self, *, leaving: int = 0) -> None:
        """End the oldest streams, which last as long as their clients listen."""
        now = asyncio.get_running_loop().time()
        while len(self.streams) > leaving:
            life = next(iter(self.streams))
            del self.streams[life]
            life.reschedule(now)
