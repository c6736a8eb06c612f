"""Reads decisions behind a cursor, makes spans, exports them, moves the cursor.

The cursor moves only after the exporter reported success, so that nothing is lost when
a collector is away and a run ends: the next run sends it. Only one reader at a time
works on a cursor.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from sqlalchemy.engine import URL

from drainer.ledger import engine, schema
from drainer.ledger.owner import RECONNECT_FOR
from drainer.ledger.records import DecisionKind
from drainer.policy.recipient.state import FINAL
from drainer.runtime.locks import lock_private
from drainer.telemetry.spans import SpanFacts, SpanProjection

BATCH = 1000
_R, _M, _D = schema.recipients.c, schema.messages.c, schema.decisions.c
_FINAL = [state.value for state in FINAL]
_A, _RUN = schema.attempts.c, schema.runs.c
#: Only the columns that spans need: rows are many, and some columns are long.
_MESSAGE = (
    _M.seq, _M.id, _M.native_id, _M.source, _M.queue, _M.size, _M.reverse_path,
    _M.scanned,
)  # fmt: skip
_ATTEMPT = (
    _A.id, _A.message, _A.run, _A.started, _A.ended, _A.connection, _A.stages,
)  # fmt: skip
_RECIPIENT = (_R.message, _R.n, _R.forward_path, _R.state)


class ExportFailure(Exception):
    """The exporter did not take the spans."""


class Projector:
    """Projects one ledger for one exporter."""

    def __init__(
        self, url: URL, exporter: SpanExporter, *, name: str, plain: bool
    ) -> None:
        """Open the ledger; ``name`` is the cursor's."""
        self._engine = engine.connect(url, create=False, patience=RECONNECT_FOR)
        self._exporter = exporter
        self._name = name
        with engine.opening(url), self._engine.connect() as connection:
            salt = connection.scalar(
                sa.select(schema.meta.c.value).where(schema.meta.c.name == "salt")
            )
            position = connection.scalar(
                sa.select(schema.cursors.c.position).where(
                    schema.cursors.c.name == name
                )
            )
        self._known = position is not None
        self._position = int(position or 0)
        self._projection = SpanProjection(bytes.fromhex(str(salt)), plain=plain)

    def step(self) -> int:
        """Export one batch; return how many decisions it held.

        Raises ExportFailure when the exporter does not take it.
        """
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(schema.decisions)
                .where(_D.id > self._position)
                .order_by(_D.id)
                .limit(BATCH)
            )
            decisions = _dicts(rows)
            if not decisions:
                return 0
            facts = _facts(connection, decisions[0]["id"], decisions[-1]["id"])
        self._export(list(self._projection.spans(decisions, facts)))
        self._move(int(decisions[-1]["id"]))
        return len(decisions)

    def close(self) -> None:
        """Shut the exporter down and release the ledger."""
        self._exporter.shutdown()
        self._engine.dispose()

    def _export(self, spans: list[Any]) -> None:
        if spans and self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            message = f"{self._name} does not take them"
            raise ExportFailure(message)

    def _move(self, position: int) -> None:
        cursors = schema.cursors
        with self._engine.execution_options(writes=True).begin() as connection:
            if self._known:
                connection.execute(
                    sa.update(cursors)
                    .where(cursors.c.name == self._name)
                    .values(position=position)
                )
            else:
                row = {"name": self._name, "position": position}
                connection.execute(sa.insert(cursors), [row])
        self._known, self._position = True, position


def _facts(connection: sa.Connection, first: int, last: int) -> SpanFacts:
    """Look up what some decisions refer to: five queries, however many they are."""

    def lookup(
        columns: Sequence[sa.Column[Any]], key: sa.Column[Any], named: sa.Column[Any]
    ) -> list[dict[str, Any]]:
        among = sa.select(named).where(_D.id.between(first, last))
        return _dicts(connection.execute(sa.select(*columns).where(key.in_(among))))

    paths = {}
    unfinished = set()
    for row in lookup(_RECIPIENT, _R.message, _D.message):
        paths[row["message"], row["n"]] = row["forward_path"]
        if row["state"] not in _FINAL:
            unfinished.add(row["message"])
    messages = {row["seq"]: row for row in lookup(_MESSAGE, _M.seq, _D.message)}
    tried = lookup(_ATTEMPT, _A.id, _D.attempt)
    ran = lookup((_RUN.id, _RUN.started), _RUN.id, _D.run)
    return SpanFacts(
        messages=messages,
        attempts={row["id"]: row for row in tried},
        recipients=paths,
        finishing=_finishing(connection, messages.keys() - unfinished),
        runs={row["id"]: row for row in ran},
    )


def _finishing(connection: sa.Connection, finished: set[int]) -> frozenset[int]:
    """Return the last decision about each finished message, before its source's.

    A report about it is sent afterwards, maybe days later.
    """
    rows = connection.scalars(
        sa.select(sa.func.max(_D.id))
        .where(
            _D.message.in_(list(finished)),
            _D.kind != DecisionKind.ACKNOWLEDGED.value,
            _D.rule.not_like("report-%"),
        )
        .group_by(_D.message)
    )
    return frozenset(rows)


def _dicts(result: sa.CursorResult[Any]) -> list[dict[str, Any]]:
    """Return rows as plain dicts: twice as fast as through ``mappings``."""
    names = list(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result.all()]


def exclusive(folder: Path, name: str) -> int | None:
    """Lock a cursor against other readers; None when another one has it.

    Raises OSError.
    """
    safe = "".join(c if c.isalnum() else "_" for c in name)[-100:]
    try:
        return lock_private(folder / f"traces-{safe}.lock")
    except BlockingIOError:
        return None
