"""Leases of sources that drainers of several ledgers share: renewed, and proven.

A message of such a source is started there, durably, before its final dot is sent. If
another drainer has taken it meanwhile, that drainer keeps it. Messages that start at
the same time share a transaction.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping

from drainer.errors import DrainerError
from drainer.mail.message import Message
from drainer.sources.protocol import LeasingSource, Source, StartedSource

RENEWALS_PER_LEASE = 4
BATCH = 200

_Waiting = dict[str, tuple[Message, "asyncio.Future[bool]"]]


class SourceLeases:
    """The leased sources of a drain, by URL."""

    def __init__(self, sources: Iterable[Source]) -> None:
        """Keep the sources that lease; nothing is leased before ``start``."""
        self._sources: Mapping[str, StartedSource] = {
            source.url: source
            for source in sources
            if isinstance(source, StartedSource)
        }
        self._leasing = [
            source
            for source in self._sources.values()
            if isinstance(source, LeasingSource)
        ]
        self._waiting: dict[str, _Waiting] = {url: {} for url in self._sources}
        self._busy: dict[str, asyncio.Lock] = {}

    async def start(self, owner: str) -> None:
        """Lease for this owner from now on; raise SourceError on failure."""
        for source in self._leasing:
            await asyncio.to_thread(source.lease, owner)

    async def keep(self) -> None:
        """Renew without end; run it as a task. Raise SourceError on failure."""
        if not self._leasing:
            return
        shortest = min(source.lease_seconds for source in self._leasing)
        while True:
            await asyncio.sleep(shortest / RENEWALS_PER_LEASE)
            for source in self._leasing:
                await asyncio.to_thread(source.renew)

    async def begin(self, message: Message) -> bool:
        """Record that a message may be sent; return False when another drainer has it.

        Raises SourceError when the source cannot be written.
        """
        source = self._sources.get(message.source)
        if source is None:
            return True
        waiting = self._waiting[message.source]
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        key = f"{message.id} {id(future)}"  # one message may go in several parts
        waiting[key] = (message, future)
        lock = self._busy.setdefault(message.source, asyncio.Lock())
        async with lock:
            if not future.done():
                await self._flush(source, waiting)
        return await future

    async def _flush(self, source: StartedSource, waiting: _Waiting) -> None:
        batch = [waiting.pop(key) for key in list(waiting)[:BATCH]]
        ours: Collection[str] = ()
        failure: DrainerError | None = None
        try:
            messages = [message for message, _ in batch]
            ours = await asyncio.to_thread(source.begin, messages)
        except DrainerError as error:
            failure = error
        finally:  # when cancelled: no task waits forever, nothing is sent
            for message, future in batch:
                if not future.done() and failure is not None:
                    future.set_exception(failure)
                elif not future.done():
                    future.set_result(message.id in ours)

    async def elsewhere(self) -> int:
        """Return how many messages living drainers of other ledgers have."""
        counts = [await asyncio.to_thread(s.leased_elsewhere) for s in self._leasing]
        return sum(counts)
