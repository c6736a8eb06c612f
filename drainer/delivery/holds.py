"""Holds: what a drain takes on hold in a queue, and how it settles the queue after it.

The order of writes: drainer writes the note durably, then it puts the mail on hold;
drainer closes the ledger, then the queue is settled: what is finished is removed, and
its server gets back what it may send. The next run, or ``drainer spool give-back``,
repairs a crash in between.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

from drainer.errors import OwnedElsewhere
from drainer.ledger.known_messages import PASSING
from drainer.ledger.query.message_states import (
    LOCAL,
    RecordedStates,
    find_attempted,
    find_recorded,
)
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row
from drainer.mail.message import Message
from drainer.policy.admission.admit import FOREIGN, Admission
from drainer.policy.recipient.state import FINAL, State
from drainer.sources.protocol import (
    HeldCount,
    HoldingSource,
    LedgerStatus,
    ReleasedCount,
    SettledSource,
    Source,
)

_SERVERS_OWN = frozenset(
    (*PASSING, "local-done-by-backup", *(f"local-{code}" for code in FOREIGN))
)
"""Why a recipient is held that the server may still try itself."""
_WAITING = frozenset({State.BOUNCE_PENDING, State.HELD})
_IN_DOUBT = frozenset({State.UNKNOWN, State.IN_FLIGHT})
"""The primary may have it, so that an attempt of the server could deliver it twice."""


class SpoolHolds:
    """The sources of a drain that take mail on hold, by URL."""

    def __init__(self, sources: Sequence[Source], folder: Path) -> None:
        """Keep the sources that take mail on hold; their notes are in ``folder``."""
        self._sources: Mapping[str, HoldingSource] = {
            each.url: each for each in sources if isinstance(each, HoldingSource)
        }
        self._settled: Mapping[str, SettledSource] = {
            each.url: each for each in sources if isinstance(each, SettledSource)
        }
        self._folder = folder
        #: Another process has these sources, so that drainer must not return their
        #: mail.
        self._refused: set[str] = set()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._sources)

    def _note(self, source: SettledSource) -> Path:
        key = source.holds_key if isinstance(source, HoldingSource) else ""
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        return self._folder / f"taken-{name}"

    async def take(
        self, rules: Admission | None, stopping: Callable[[], bool]
    ) -> AsyncIterator[tuple[str, HeldCount]]:
        """Take mail on hold, and yield each source's part; until ``stopping``."""
        for url, source in self._sources.items():
            parts = source.take(self._note(source), rules)
            try:
                while taken := await asyncio.to_thread(next, parts, None):
                    yield url, taken
                    if stopping():
                        return
            except OwnedElsewhere:
                self._refused.add(url)
                raise

    def peek(self) -> None:
        """Let the sources know what earlier runs hold, to list it; changes nothing."""
        for source in self._sources.values():
            source.peek(self._note(source))

    async def give_back(
        self, report: LedgerReader, *, everything: bool = False
    ) -> dict[str, ReleasedCount]:
        """Settle what is on hold by what the ledger knows; return counts by URL."""
        await report.wait_for_last_commits()
        ledger = HoldsLedger(report)
        returned = {}
        for url, source in self._sources.items():
            if url not in self._refused:
                returned[url] = await asyncio.to_thread(
                    source.give_back, self._note(source), ledger, everything=everything
                )
        return returned

    async def settle(
        self, report: LedgerReader, *, dry_run: bool
    ) -> dict[str, ReleasedCount]:
        """Apply what the ledger knows to whole queues; return counts by URL."""
        await report.wait_for_last_commits()
        ledger = HoldsLedger(report)
        return {
            url: await asyncio.to_thread(
                source.settle, self._note(source), ledger, dry_run=dry_run
            )
            for url, source in self._settled.items()
        }


class HoldsLedger:
    """Answers a source that settles its queue (SettlementLedger)."""

    def __init__(self, report: LedgerReader) -> None:
        """Read from this ledger."""
        self._report = report

    def statuses(
        self, identities: Sequence[str]
    ) -> Mapping[str, Sequence[LedgerStatus]]:
        """Return the recorded messages by identity."""
        found: dict[str, list[LedgerStatus]] = {}
        for each in find_recorded(self._report, identities):
            found.setdefault(each.message.identity, []).append(_status(each))
        return found

    def attempted(self, source: str) -> Iterator[Message]:
        """Yield the messages of a source that its server must not send."""
        return find_attempted(self._report, source)


def _status(known: RecordedStates) -> LedgerStatus:
    left = [row for row in known.recipients if State(row["state"]) not in FINAL]
    ours = [row for row in left if not _is_servers_own(row)]
    paths = {row["forward_path"] for row in known.recipients}
    return LedgerStatus(
        message=known.message,
        final=frozenset(paths - {row["forward_path"] for row in left}),
        is_finished=not left,
        waits=any(State(row["state"]) in _WAITING | _IN_DOUBT for row in ours),
        is_open=bool(ours) and (known.was_attempted or any(map(_is_set_aside, ours))),
    )


def _is_set_aside(row: Row) -> bool:
    """Return whether a person or a group holds it, and not a problem of the file."""
    return row["state"] == State.HELD and not row["rule"].startswith(LOCAL)


def _is_servers_own(row: Row) -> bool:
    return State(row["state"]) in _WAITING and row["rule"] in _SERVERS_OWN
