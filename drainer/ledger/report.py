"""Reading the ledger: status, lists, one message's history. Never writes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from drainer import databases
from drainer.errors import LedgerError, UsageError
from drainer.ledger import Row, engine, from_micros, schema, to_micros
from drainer.ledger.owner import wait_for_last_commits
from drainer.policy.state import FINAL, State

_R, _M, _D = schema.recipients.c, schema.messages.c, schema.decisions.c
_FINAL = [state.value for state in FINAL]
MIN_PREFIX = 4
"""Characters of a drainer id that are enough to name it, if they are unique."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which recipients; everything that is given must hold."""

    states: Sequence[str] = ()
    sender: str = ""
    recipient: str = ""
    domain: str = ""
    older_than: datetime | None = None
    newer_than: datetime | None = None
    larger_than: int | None = None
    reply: str = ""
    messages: Sequence[str] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is filtered."""
        return self == Filters()

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on recipients joined with messages."""
        found: list[sa.ColumnElement[bool]] = []
        if self.states:
            found.append(_R.state.in_(list(self.states)))
        if self.sender:
            found.append(
                sa.func.lower(_M.reverse_path).contains(
                    self.sender.lower().strip("<>"), autoescape=True
                )
            )
        if self.recipient:
            found.append(
                sa.func.lower(_R.forward_path).contains(
                    self.recipient.lower(), autoescape=True
                )
            )
        if self.domain:
            found.append(
                sa.func.lower(_R.forward_path).endswith(
                    "@" + self.domain.lower(), autoescape=True
                )
            )
        if self.older_than:
            found.append(_M.arrived < to_micros(self.older_than))
        if self.newer_than:
            found.append(_M.arrived > to_micros(self.newer_than))
        if self.larger_than is not None:
            found.append(_M.size > self.larger_than)
        if self.reply:
            found.append(
                sa.func.lower(_R.reply).contains(self.reply.lower(), autoescape=True)
            )
        if self.messages:
            found.append(_M.id.in_(list(self.messages)))
        return found


class Report:
    """A reader of one ledger."""

    def __init__(self, url: URL) -> None:
        """Open an existing ledger; LedgerError when there is none."""
        self._engine = engine.connect(url, create=False)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def salt(self) -> bytes:
        """Return the key of this ledger, with which addresses are hashed."""
        value = self._scalar(
            sa.select(schema.meta.c.value).where(schema.meta.c.name == "salt")
        )
        return bytes.fromhex(value)

    # --- the sum of promise P1

    def spooled(self, sources: Sequence[str] = ()) -> int:
        """Return how many recipients the scans recorded."""
        query = sa.select(sa.func.coalesce(sa.func.sum(_M.recipients), 0))
        return int(self._scalar(_of(query, sources)))

    def states(self, sources: Sequence[str] = ()) -> dict[str, int]:
        """Return the number of recipients in every state."""
        count = sa.func.count().label("count")
        query = sa.select(_R.state, count).group_by(_R.state)
        if sources:
            query = _of(query.join(schema.messages, _R.message == _M.seq), sources)
        found = {row["state"]: int(row["count"]) for row in self._rows(query)}
        return {state.value: found.get(state.value, 0) for state in State}

    def message_counts(self, sources: Sequence[str] = ()) -> dict[str, int]:
        """Return messages: all, finished, with something left, acknowledged."""
        total = self._scalar(_of(sa.select(sa.func.count(_M.id)), sources))
        left = sa.select(sa.func.count(_R.message.distinct())).where(
            _R.state.not_in(_FINAL)
        )
        if sources:
            left = _of(left.join(schema.messages, _R.message == _M.seq), sources)
        remaining = self._scalar(left)
        told = sa.select(sa.func.count(_M.id)).where(_M.acknowledged.is_not(None))
        return {
            "total": int(total),
            "finished": int(total) - int(remaining),
            "remaining": int(remaining),
            "acknowledged": int(self._scalar(_of(told, sources))),
        }

    def standings(self, ids: Sequence[str]) -> list[Row]:
        """Return id, forward_path, state and rule of every recipient of these.

        A message without recipients has one row, with None for the rest.
        """
        query = (
            sa.select(_M.id, _R.forward_path, _R.state, _R.rule)
            .outerjoin(schema.recipients, _R.message == _M.seq)
            .where(_M.id.in_(list(ids)))
        )
        return list(self._rows(query))

    async def wait_for_last_commits(self) -> None:
        """Wait until killed runs on this host have written their last."""
        with self._engine.connect() as connection:
            await wait_for_last_commits(connection)

    def reasons(self, sources: Sequence[str] = ()) -> list[Row]:
        """Return the unfinished recipients by state and rule, most first."""
        count = sa.func.count().label("count")
        query = (
            sa.select(
                _R.state,
                _R.rule,
                count,
                sa.func.min(_R.since).label("since"),
                sa.func.max(_R.reply).label("reply"),
                sa.func.min(_R.due).label("due"),
            )
            .where(_R.state.not_in(_FINAL))
            .group_by(_R.state, _R.rule)
            .order_by(count.desc())
        )
        if sources:
            query = _of(query.join(schema.messages, _R.message == _M.seq), sources)
        return list(self._rows(query))

    def last_run(self) -> dict[str, object]:
        """Return the facts of the latest run; empty when there was none."""
        runs = schema.runs.c
        rows = list(
            self._rows(sa.select(schema.runs).order_by(runs.started.desc()).limit(1))
        )
        if not rows:
            return {}
        row = rows[0]
        return {
            "run_id": row["id"],
            "route": row["route"],
            "started": _iso(row["started"]),
            "ended": _iso(row["ended"]),
            "exit": row["exit"],
            "commits": row["commits"],
        }

    # --- messages and recipients

    def recipients(self, filters: Filters, limit: int | None = None) -> Iterator[Row]:
        """Yield recipients joined with their message, oldest message first."""
        query = (
            sa.select(
                schema.recipients,
                _M.id,
                _M.native_id,
                _M.message_id,
                _M.reverse_path,
                _M.arrived,
                _M.size,
                _M.queue,
                _M.source,
            )
            .join(schema.messages, _R.message == _M.seq)
            .where(*filters.clauses())
            .order_by(_M.arrived, _M.id, _R.n)
            .limit(limit)
        )
        yield from self._rows(query)

    def resolve(self, text: str) -> str:
        """Return the drainer id that an operator meant.

        Takes a drainer id or a unique prefix, a queue id of the backup, or a
        Message-ID. Raises UsageError when it names none, or several.
        """
        wanted = text.strip()
        plain = wanted.strip("<>")
        clauses = [_M.native_id == wanted, _M.message_id.in_([plain, f"<{plain}>"])]
        if len(wanted) >= MIN_PREFIX:
            clauses.append(_M.id.startswith(wanted.lower(), autoescape=True))
        query = sa.select(_M.id).where(sa.or_(*clauses)).limit(20)
        found = [row["id"] for row in self._rows(query)]
        if len(found) == 1:
            return str(found[0])
        if not found:
            message = f"the ledger knows no message {text!r}"
            raise UsageError(message, hint="`drainer list` shows what it knows")
        message = f"{text!r} names {len(found)} messages: {', '.join(found[:5])}"
        raise UsageError(message, hint="give more of the drainer id")

    def message(self, id_: str) -> Row:
        """Return the row of one message."""
        query = sa.select(schema.messages).where(_M.id == id_)
        return next(self._rows(query))

    def decisions(self, id_: str) -> list[Row]:
        """Return every decision about one message, in order."""
        query = (
            sa.select(schema.decisions)
            .join(schema.messages, _D.message == _M.seq)
            .where(_M.id == id_)
            .order_by(_D.id)
        )
        return list(self._rows(query))

    def attempt_numbers(self, id_: str) -> dict[int, int]:
        """Return the number of each attempt of a message, by its id."""
        attempts = schema.attempts.c
        query = (
            sa.select(attempts.id)
            .join(schema.messages, attempts.message == _M.seq)
            .where(_M.id == id_)
            .order_by(attempts.started)
        )
        return {row["id"]: n for n, row in enumerate(self._rows(query), 1)}

    def known_ids(self, sources: Sequence[str] = ()) -> set[str]:
        """Return the ids of all messages of some sources."""
        query = _of(sa.select(_M.id), sources)
        return {row["id"] for row in self._rows(query)}

    def undelivered(self, ids: Sequence[str]) -> set[str]:
        """Return those messages of which a recipient is not delivered."""
        query = (
            sa.select(_M.id)
            .join(schema.recipients, _R.message == _M.seq)
            .where(_M.id.in_(list(ids)), _R.state != State.DELIVERED.value)
        )
        return {row["id"] for row in self._rows(query)}

    # --- plumbing

    def _rows(self, query: sa.Select[Any]) -> Iterator[Row]:
        with _explaining(), self._engine.connect() as connection:
            for row in connection.execute(query).mappings():
                yield dict(row)

    def _scalar(self, query: sa.Select[Any]) -> Any:  # noqa: ANN401
        with _explaining(), self._engine.connect() as connection:
            return connection.scalar(query)


@contextmanager
def _explaining() -> Iterator[None]:
    """Turn what a database cannot be asked, or cannot answer, into words."""
    try:
        yield
    except (UnicodeError, OverflowError) as error:
        message = f"nothing in a ledger can be like that: {error}"
        raise UsageError(message, hint="correct the ID or the filter") from error
    except SQLAlchemyError as error:
        message = f"the ledger cannot be read: {databases.reason(error)}"
        raise LedgerError(message, hint="run the same again, or look at it") from error


def _of(query: sa.Select[Any], sources: Sequence[str]) -> sa.Select[Any]:
    return query.where(_M.source.in_(list(sources))) if sources else query


def _iso(micros: int | None) -> str | None:
    return None if micros is None else from_micros(micros).isoformat()
