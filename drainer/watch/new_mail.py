"""Check cheaply whether sources have new mail, while no drain runs. It writes nothing.

Only if the time of a folder has changed, it lists the source, in a process of its own,
and compares it with the ledger.
"""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from drainer.delivery.scanner import scan, scanner
from drainer.ledger.records import ScanRow
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.selection import Selection
from drainer.sources.protocol import LiveSource, Source

MAX_DEPTH = 4
MAX_FOLDERS = 20_000


class NewMailJudge(Protocol):
    """Decides whether a drain would start anything of a part of a scan; may block."""

    def __call__(self, listings: Sequence[ScanRow], *, takes: bool) -> bool:
        """Return it; ``takes``: the source removes only what may be sent."""
        ...


def trace_of(source: Source) -> str | None:
    """Return what changes when mail comes into a source; None if that is unknown."""
    path = Path(source.url.partition(":")[2].partition("?")[0])
    if not path.is_absolute() or source.url.partition("://")[1]:
        return None
    found = hashlib.sha256()
    for number, (place, folders, _) in enumerate(os.walk(path)):
        if number > MAX_FOLDERS:
            return None
        with suppress(OSError):
            found.update(f"{place} {Path(place).stat().st_mtime_ns}\n".encode())
        if place.count(os.sep) - str(path).count(os.sep) >= MAX_DEPTH:
            folders.clear()
        folders.sort()
    if not path.is_dir():
        with suppress(OSError):
            about = path.stat()
            found.update(f"{about.st_mtime_ns} {about.st_size}".encode())
    return found.hexdigest()


class NewMailCheck:
    """Checks the sources of one watch."""

    def __init__(self, sources: Sequence[Source], rules: Admission) -> None:
        self._sources = sources
        self._rules = rules
        #: What the sources looked like when they had nothing new.
        self._quiet: dict[str, str] = {}

    async def sees_news(self, is_news: NewMailJudge) -> bool:
        """Return whether a drain would start anything; SourceError if unreadable."""
        for source in self._sources:
            trace = await asyncio.to_thread(trace_of, source)
            if trace is not None and self._quiet.get(source.url) == trace:
                continue
            if await self._lists_news(source, is_news):
                return True
            if trace is not None:
                self._quiet[source.url] = trace
        return False

    async def _lists_news(self, source: Source, is_news: NewMailJudge) -> bool:
        takes = isinstance(source, LiveSource)
        async with scanner() as helper:
            async for met in scan(helper, source, self._rules, Selection()):
                if await asyncio.to_thread(is_news, met.listings, takes=takes):
                    return True
        return False
