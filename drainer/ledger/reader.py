"""Reading the ledger: status, lists, one message's history. Never writes."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy.engine import URL

from drainer.errors import UsageError
from drainer.ledger import engine, schema
from drainer.ledger.breakers import cause_of
from drainer.ledger.codec import message_of
from drainer.ledger.columns import from_json
from drainer.ledger.filters import ASKED, SORT_COLUMNS, Filters
from drainer.ledger.owner import wait_for_last_commits
from drainer.ledger.records import MANY, Row, from_micros
from drainer.ledger.reserve import LeftReserve, find_unread, place_of
from drainer.mail.message import Message
from drainer.policy.breaker.breaker import BreakerState
from drainer.policy.breaker.remedies import remedy
from drainer.policy.recipient.state import FINAL, State

_R, _M, _D = schema.recipients.c, schema.messages.c, schema.decisions.c
_OPEN = [state.value for state in State if state not in FINAL]
"""Few rows are in them in the end; a list of them lets a database use its index."""
MIN_PREFIX = 4
"""Characters of a drainer id that are enough to name it, if they are unique."""

SHORT = 12
"""Characters of a drainer id that lists show."""


class Sums(NamedTuple):
    """What the scans recorded: recipients, and messages by what became of them."""

    spooled: int
    messages: dict[str, int]


class LedgerReader:
    """A reader of one ledger, open while its block runs."""

    def __init__(self, url: URL, *, patience: float = 0) -> None:
        """Open an existing ledger; LedgerError when there is none.

        A ledger that is away may come back for ``patience`` seconds.
        """
        self._url = url
        self._engine = engine.connect_reader(url, patience=patience)
        self._pinned: sa.Connection | None = None

    def __enter__(self) -> Self:
        """Return the reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the database."""
        self._engine.dispose()

    def salt(self) -> bytes:
        """Return the key of this ledger, with which addresses are hashed."""
        value = self._scalar(
            sa.select(schema.meta.c.value).where(schema.meta.c.name == "salt")
        )
        return bytes.fromhex(value)

    def identity(self) -> str:
        """Return the name by which sources know this ledger; it never changes.

        Two ledgers never share it, whatever their URLs are.
        """
        return hashlib.sha256(b"lease" + self.salt()).hexdigest()[:32]

    def has_messages(self, source: str, *, unacknowledged: bool = False) -> bool:
        """Return whether a message of a source is recorded.

        With ``unacknowledged`` only those count that the source may still hold.
        """
        query = sa.select(sa.literal(1)).where(_M.source == source).limit(1)
        if unacknowledged:
            query = query.where(_M.acknowledged.is_(None))
        return self._scalar(query) is not None

    def reserves(self, folder: Path) -> list[LeftReserve]:
        """Return the reserves in a folder that the next run will read."""
        return find_unread(folder, place_of(self._engine, self._url))

    # --- the sum of promise P1

    def states(self, sources: Sequence[str] = ()) -> dict[str, int]:
        """Return the number of recipients in every state."""
        return sum_states(self.states_by_route(sources))

    def states_by_route(self, sources: Sequence[str] = ()) -> dict[str, dict[str, int]]:
        """Return the number of recipients by route and state, without zeros.

        '' is for the recipients that have no route.
        """
        count = sa.func.count().label("count")
        query = sa.select(_R.route, _R.state, count).group_by(_R.route, _R.state)
        if sources:
            query = _of(query.join(schema.messages, _R.message == _M.seq), sources)
        found: dict[str, dict[str, int]] = {}
        for row in self.rows(query):
            found.setdefault(row["route"], {})[row["state"]] = int(row["count"])
        return dict(sorted(found.items()))

    def sums(self, sources: Sequence[str] = ()) -> Sums:
        """Return how many messages and recipients the scans recorded."""
        counts: sa.Select[Any] = sa.select(
            sa.func.coalesce(sa.func.sum(_M.recipients), 0).label("spooled"),
            sa.func.count().label("total"),
            sa.func.count(_M.acknowledged).label("acknowledged"),
        ).select_from(schema.messages)
        found = {k: int(v) for k, v in next(self.rows(_of(counts, sources))).items()}
        left = sa.select(sa.func.count(_R.message.distinct())).where(
            _R.state.in_(_OPEN)
        )
        if sources:
            left = _of(left.join(schema.messages, _R.message == _M.seq), sources)
        remaining = int(self._scalar(left))
        return Sums(
            found["spooled"],
            {
                "total": found["total"],
                "finished": found["total"] - remaining,
                "remaining": remaining,
                "acknowledged": found["acknowledged"],
            },
        )

    async def wait_for_last_commits(self) -> None:
        """Wait until killed runs on this host have written their last commits."""
        with engine.in_use(self._url), self._engine.connect() as connection:
            await wait_for_last_commits(connection)

    def reasons(self, sources: Sequence[str] = ()) -> list[Row]:
        """Return unfinished recipients by state and rule, with a reply; most first."""
        count = sa.func.count().label("count")
        query = (
            sa.select(
                _R.state,
                _R.rule,
                count,
                sa.func.min(_R.since).label("since"),
                sa.func.max(_R.reply).label("reply"),
                (sa.func.min(_R.reply) != sa.func.max(_R.reply)).label("varies"),
                sa.func.min(_R.due).label("due"),
            )
            .where(_R.state.in_(_OPEN))
            .group_by(_R.state, _R.rule)
            .order_by(count.desc())
        )
        if sources:
            query = _of(query.join(schema.messages, _R.message == _M.seq), sources)
        return list(self.rows(query))

    def expires_first(self, sources: Sequence[str] = ()) -> Row | None:
        """Return the deferred recipient that has used most of its lifetime.

        With the drainer id, ``native_id``, ``forward_path`` and ``spent`` in
        microseconds; None when nothing was deferred yet.
        """
        query = (
            sa.select(_M.id, _M.native_id, _R.forward_path, _R.spent)
            .join(schema.messages, _R.message == _M.seq)
            .where(_R.state == State.DEFERRED.value, _R.spent > 0)
            .order_by(_R.spent.desc())
            .limit(1)
        )
        return next(iter(self.rows(_of(query, sources))), None)

    def breakers(self) -> list[Row]:
        """Return the breakers that have changed: scope, state, since, cause, remedy."""
        query = sa.select(schema.breakers).order_by(schema.breakers.c.scope)
        found = []
        for row in self.rows(query):
            cause = from_json(row["facts"])["cause"] or {}
            is_open = row["state"] != BreakerState.CLOSED.value
            found.append(
                {
                    "route": row["route"],
                    "scope": row["scope"] or "route",
                    "state": row["state"],
                    "since": _iso(row["since"]),
                    "next_probe": _iso(row["until"]),
                    "reason": cause.get("reason", ""),
                    "reply": cause.get("reply", ""),
                    "remedy": remedy(cause_of(cause)) if cause and is_open else "",
                }
            )
        return found

    def last_run(self) -> dict[str, object]:
        """Return the facts of the latest run; empty when there was none."""
        runs = schema.runs.c
        rows = list(
            self.rows(sa.select(schema.runs).order_by(runs.started.desc()).limit(1))
        )
        if not rows:
            return {}
        row, taken = rows[0], schema.run_routes.c
        routes = sa.select(taken.route).where(taken.run == row["id"])
        routes = routes.order_by(taken.place)
        return {
            "run_id": row["id"],
            "routes": [each["route"] for each in self.rows(routes)],
            "started": _iso(row["started"]),
            "ended": _iso(row["ended"]),
            "exit": row["exit"],
            "commits": row["commits"],
        }

    # --- messages and recipients

    def recipients(
        self, filters: Filters, sort: str = "arrived", limit: int | None = None
    ) -> Iterator[Row]:
        """Yield recipients joined with their message, oldest message first.

        ``sort`` is a key of SORT_COLUMNS, with a minus in front for the other order. No
        more than ``limit``.
        """
        column = SORT_COLUMNS[sort.removeprefix("-")]
        first = column.desc() if sort.startswith("-") else column
        query = (
            sa.select(schema.recipients, *ASKED, _M.source, _M.sha256)
            .join(schema.messages, _R.message == _M.seq)
            .where(*filters.clauses())
            .order_by(first, _M.arrived, _M.id, _R.n)
        )
        if filters.selection.is_all:  # else the database lets a few too many pass
            query = query.limit(limit)
            if filters.empty and column.table is schema.messages:
                # do not join what cannot be among them
                those = sa.select(_M.seq).where(_M.recipients > 0)
                those = those.order_by(first, _M.arrived, _M.id)
                chosen = those.limit(limit).subquery()
                query = query.join(chosen, chosen.c.seq == _M.seq)
        yield from itertools.islice(filter(filters.takes, self.rows(query)), limit)

    def unfinished(
        self, filters: Filters, sources: Sequence[str], states: Sequence[State]
    ) -> Iterator[Row]:
        """Yield recipients of some sources that are in these states and not final."""
        wanted = [state.value for state in states if state not in FINAL]
        query = (
            sa.select(_R.forward_path, *ASKED)
            .join(schema.messages, _R.message == _M.seq)
            .where(_R.state.in_(wanted), *filters.clauses())
        )
        yield from self.rows(_of(query, sources))

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
        found = [row["id"] for row in self.rows(query)]
        if len(found) == 1:
            return str(found[0])
        if not found:
            message = f"the ledger knows no message {text!r}"
            raise UsageError(message, hint="`drainer list` shows what it knows")
        message = f"{text!r} names {len(found)} messages: {', '.join(found[:5])}"
        raise UsageError(message, hint="give more of the drainer id")

    def ids_from(self, prefix: str, most: int) -> list[str]:
        """Return short drainer ids, or queue ids, that start so; the latest first."""
        queries = (
            (column, column.startswith(prefix, autoescape=True))
            for column in (_M.id, _M.native_id)
        )
        length = max(SHORT, len(prefix))
        found = [
            row[column.name][: length if column is _M.id else None]
            for column, clause in queries
            for row in self.rows(
                sa.select(column).where(clause).order_by(_M.seq.desc()).limit(most)
            )
        ]
        return found if prefix else found[:most]

    def message(self, id_: str) -> Row:
        """Return the row of one message."""
        query = sa.select(schema.messages).where(_M.id == id_)
        return next(self.rows(query))

    def decisions(self, id_: str) -> list[Row]:
        """Return every decision about one message, in order."""
        query = (
            sa.select(schema.decisions)
            .join(schema.messages, _D.message == _M.seq)
            .where(_M.id == id_)
            .order_by(_D.id)
        )
        return list(self.rows(query))

    def attempts_of(self, id_: str) -> dict[int, tuple[int, str]]:
        """Return the number and the connection of each attempt of a message."""
        attempts = schema.attempts.c
        query = (
            sa.select(attempts.id, attempts.connection)
            .join(schema.messages, attempts.message == _M.seq)
            .where(_M.id == id_)
            .order_by(attempts.started)
        )
        rows = enumerate(self.rows(query), 1)
        return {row["id"]: (n, row["connection"]) for n, row in rows}

    def unrecorded(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Yield those that the ledger does not have at their locators."""
        rest = iter(messages)
        while some := list(itertools.islice(rest, MANY)):
            identities = {message.identity for message in some}
            query = sa.select(_M.identity, _M.locator)
            rows = self.rows(query.where(_M.identity.in_(list(identities))))
            known = {(row["identity"], row["locator"]) for row in rows}
            for message in some:
                if (message.identity, message.locator) not in known:
                    yield message

    def of_identity(self, identity: str) -> list[Message]:
        """Return every recorded message of an identity."""
        query = sa.select(schema.messages).where(_M.identity == identity)
        return [message_of(row) for row in self.rows(query)]

    def undelivered(self, ids: Sequence[str]) -> set[str]:
        """Return those messages of which a recipient is not delivered."""
        query = (
            sa.select(_M.id)
            .join(schema.recipients, _R.message == _M.seq)
            .where(_M.id.in_(list(ids)), _R.state != State.DELIVERED.value)
        )
        return {row["id"] for row in self.rows(query)}

    # --- plumbing

    def rows(self, query: sa.Select[Any]) -> Iterator[Row]:
        """Yield the rows of a query as they come; in a snapshot, all at once."""
        # else a server sends all of them at once; two cannot stream on a connection
        streamed = {} if self._pinned else {"yield_per": MANY}
        with (
            engine.in_query(self._url),
            self._connected(**streamed) as connection,
            connection.execute(query) as result,  # closes the cursor of a server
        ):
            for row in result.mappings():
                yield dict(row)

    def _scalar(self, query: sa.Select[Any]) -> Any:  # noqa: ANN401
        with engine.in_query(self._url), self._connected() as connection:
            return connection.scalar(query)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every query of the block see one state of the ledger: its sums agree."""
        with engine.in_query(self._url), engine.repeatable(self._engine) as found:
            self._pinned = found
            try:
                yield
            finally:
                self._pinned = None

    @contextmanager
    def _connected(self, **options: int) -> Iterator[sa.Connection]:
        if self._pinned is not None:
            yield self._pinned
            return
        with self._engine.execution_options(**options).connect() as connection:
            yield connection


def sum_states(by_route: dict[str, dict[str, int]]) -> dict[str, int]:
    """Return the number of recipients in every state, of all routes."""
    found = Counter[str]()
    for states in by_route.values():
        found.update(states)
    return {state.value: found[state.value] for state in State}


def _of(query: sa.Select[Any], sources: Sequence[str]) -> sa.Select[Any]:
    return query.where(_M.source.in_(list(sources))) if sources else query


def _iso(micros: int | None) -> str | None:
    return None if micros is None else from_micros(micros).isoformat()
