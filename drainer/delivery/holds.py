"""Live holds: what a drain takes on hold from a running server, and returns.

The order of writes: drainer writes the note durably, then the server releases the mail;
drainer closes the ledger, then the server gets back what is not finished. The next run,
or ``drainer spool give-back``, repairs a crash in between.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path

from drainer.errors import OwnedElsewhere
from drainer.ledger.known_messages import PASSING
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row
from drainer.policy.admission.admit import FOREIGN, Admission
from drainer.policy.recipient.state import FINAL, State
from drainer.sources.protocol import (
    HeldCount,
    LedgerStatus,
    LiveSource,
    ReleasedCount,
    Source,
)

_SERVERS_OWN = frozenset(
    (*PASSING, "local-done-by-backup", *(f"local-{code}" for code in FOREIGN))
)
"""Why a recipient is held that the server may still try itself."""
_WAITING = frozenset({State.BOUNCE_PENDING, State.HELD})


class LiveHolds:
    """The sources of a drain that take mail on hold, by URL."""

    def __init__(self, sources: Iterable[Source], folder: Path) -> None:
        """Keep the sources that take mail on hold; their notes are in ``folder``."""
        self._sources: Mapping[str, LiveSource] = {
            source.url: source for source in sources if isinstance(source, LiveSource)
        }
        self._folder = folder
        #: Another process has these sources, so that drainer must not return their
        #: mail.
        self._refused: set[str] = set()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._sources)

    def _note(self, url: str) -> Path:
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        return self._folder / f"taken-{name}"

    async def take(
        self, rules: Admission, stopping: Callable[[], bool]
    ) -> AsyncIterator[tuple[str, HeldCount]]:
        """Take mail on hold, and yield each source's part; until ``stopping``."""
        for url, source in self._sources.items():
            parts = source.take(self._note(url), rules)
            try:
                while taken := await asyncio.to_thread(next, parts, None):
                    yield url, taken
                    if stopping():
                        return
            except OwnedElsewhere:
                self._refused.add(url)
                raise

    async def give_back(
        self, report: LedgerReader, *, everything: bool = False
    ) -> dict[str, ReleasedCount]:
        """Return to the server what the ledger has not finished; report it by URL."""
        await report.wait_for_last_commits()

        def standings(
            identities: Sequence[str],
        ) -> Mapping[tuple[str, str], LedgerStatus]:
            return _standings(report.standings(identities))

        returned = {}
        for url, source in self._sources.items():
            if url not in self._refused:
                returned[url] = await asyncio.to_thread(
                    source.give_back, self._note(url), standings, everything=everything
                )
        return returned


def _standings(rows: Iterable[Row]) -> dict[tuple[str, str], LedgerStatus]:
    messages: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        key = row["identity"], row["native_id"]
        recipients = messages.setdefault(key, [])
        if row["state"] is not None:
            recipients.append(row)
    return {key: _standing(recipients) for key, recipients in messages.items()}


def _standing(recipients: Sequence[Row]) -> LedgerStatus:
    final = [row for row in recipients if State(row["state"]) in FINAL]
    return LedgerStatus(
        final=frozenset(row["forward_path"] for row in final),
        is_finished=len(final) == len(recipients),
        waits=any(
            State(row["state"]) in _WAITING and row["rule"] not in _SERVERS_OWN
            for row in recipients
        ),
    )
