"""Reads decisions behind a cursor, projects and exports them, moves the cursor.

The cursor moves only after the exporter took everything, so that nothing is lost when a
collector is away and a run ends: the next run sends it. Only one reader at a time works
on a cursor.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL

from drainer.ledger import engine, schema
from drainer.ledger.owner import RECONNECT_FOR
from drainer.runtime.locks import lock_private
from drainer.telemetry.facts import Row, SpanFacts, next_decisions, read_facts

BATCH = 1000
"""Decisions."""
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class ExportFailure(Exception):
    """The exporter did not take what it was given; the text names the cause."""


class Exporter(ABC, Generic[T_contra]):
    """Where projected records go."""

    @abstractmethod
    def export(self, records: Iterable[T_contra]) -> None:
        """Take the records; raise ExportFailure or OSError. The same may come again.

        Maybe there are none. They are made while it takes them: what was made just now
        is in the caches.
        """

    def hurry(self) -> None:
        """Be quick from now on: the drain is over."""

    def close(self) -> None:
        """Release what it holds, if anything."""


class Projector(Generic[T]):
    """Projects one ledger for one exporter."""

    def __init__(
        self,
        url: URL,
        exporter: Exporter[T],
        project: Callable[[Iterable[Row], SpanFacts], Iterator[T]],
        name: str,
    ) -> None:
        """Open the ledger; ``name`` is the cursor's."""
        self._engine = engine.connect(url, create=False, patience=RECONNECT_FOR)
        self._exporter = exporter
        self._project = project
        self.name = name
        cursors = schema.cursors.c
        query = sa.select(cursors.position).where(cursors.name == name)
        with engine.at_open(url), self._engine.connect() as connection:
            position = connection.scalar(query)
        self.is_known = position is not None
        self._position = int(position or 0)

    def step(self) -> int:
        """Export one batch; return how many decisions it held.

        Raises ExportFailure when the exporter does not take it.
        """
        with self._engine.connect() as connection:
            decisions = next_decisions(connection, self._position, BATCH)
            if not decisions:
                return 0
            facts = read_facts(connection, decisions)
        self._exporter.export(self._project(decisions, facts))
        self._move(int(decisions[-1]["id"]))
        return len(decisions)

    def hurry(self) -> None:
        """Be quick from now on: the drain is over."""
        self._exporter.hurry()

    def skip(self, before: int) -> None:
        """Skip what was decided before a time, in microseconds."""
        decisions = schema.decisions.c
        query = sa.select(sa.func.max(decisions.id)).where(decisions.at < before)
        with self._engine.connect() as connection:
            position = connection.scalar(query)
        self._move(int(position or 0))

    def close(self) -> None:
        """Close the exporter and release the ledger."""
        self._exporter.close()
        self._engine.dispose()

    def _move(self, position: int) -> None:
        cursors = schema.cursors
        with self._engine.execution_options(writes=True).begin() as connection:
            if self.is_known:
                connection.execute(
                    sa.update(cursors)
                    .where(cursors.c.name == self.name)
                    .values(position=position)
                )
            else:
                row = {"name": self.name, "position": position}
                connection.execute(sa.insert(cursors), [row])
        self.is_known, self._position = True, position


def lock_cursor(folder: Path, name: str) -> int | None:
    """Lock a cursor against other readers; None when another one has it.

    Raises OSError.
    """
    safe = "".join(c if c.isalnum() else "_" for c in name)[-100:]
    try:
        return lock_private(folder / f"traces-{safe}.lock")
    except BlockingIOError:
        return None
