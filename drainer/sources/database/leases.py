"""Which ledger may send which row, when several share one database.

An owner (a ledger) has rows and one lease, which it renews. When the lease has ended,
any drainer may claim the rows. Only rows that were begun stay: they may have been sent,
and only the ledger of their owner knows.

The primary key of the leases decides, in any order of events. Rows that another drainer
is claiming are skipped, if the database supports that.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from drainer.sources.database.schema import leases, owners

_L, _O = leases.c, owners.c


class RowClaims(NamedTuple):
    """The result for the rows that were asked for."""

    mine: set[str]
    #: Begun by an owner that is dead.
    doubtful: set[str]


class RowLeases:
    """The leases of one queue, for one owner."""

    def __init__(self, queue: str, owner: str, seconds: float) -> None:
        """Lease for ``owner``; a lease that is not renewed ends after ``seconds``."""
        self._queue = queue[:255]
        self._owner = owner
        self._micros = int(seconds * 1e6)

    def renew(self, connection: sa.Connection) -> None:
        """Start the owner's lease again."""
        until = now(connection) + self._micros
        mine = _O.owner == self._owner
        if connection.execute(
            sa.update(owners).where(mine).values(until=until)
        ).rowcount:
            return
        row = {"owner": self._owner, "until": until}
        connection.execute(_insert(connection, owners), [row])

    def claim(self, connection: sa.Connection, rows: Sequence[str]) -> RowClaims:
        """Lease those of the rows that are free."""
        if not rows:
            return RowClaims(set(), set())
        living = self._living(connection)
        asked = sa.and_(_L.queue == self._queue, _L.row_id.in_(list(rows)))
        connection.execute(
            sa.update(leases)
            .where(asked, _L.begun.is_(None), _L.owner.not_in(living))
            .values(owner=self._owner)
        )
        query = sa.select(_L.row_id, _L.owner, _L.begun).where(asked)
        known = {row.row_id for row in connection.execute(query)}
        fresh = [
            {"queue": self._queue, "row_id": row, "owner": self._owner, "begun": None}
            for row in rows
            if row not in known
        ]
        if fresh:
            connection.execute(_insert(connection, leases), fresh)
        found = list(connection.execute(query))
        return RowClaims(
            {row.row_id for row in found if row.owner == self._owner},
            {row.row_id for row in found if row.begun and row.owner not in living},
        )

    def begin(self, connection: sa.Connection, rows: Sequence[str]) -> set[str]:
        """Record that these are being sent; return those that are ours."""
        mine = sa.and_(
            _L.queue == self._queue,
            _L.row_id.in_(list(rows)),
            _L.owner == self._owner,
        )
        # The update locks the rows it finds, so what is read afterwards stays true.
        connection.execute(sa.update(leases).where(mine).values(begun=now(connection)))
        return set(connection.scalars(sa.select(_L.row_id).where(mine)))

    def holds(self, connection: sa.Connection, row: str) -> bool:
        """Return whether a row is ours."""
        owner = connection.scalar(
            sa.select(_L.owner).where(_L.queue == self._queue, _L.row_id == row)
        )
        return bool(owner == self._owner)

    def drop(self, connection: sa.Connection, rows: Iterable[str]) -> None:
        """Delete the leases of finished rows."""
        connection.execute(
            sa.delete(leases).where(
                _L.queue == self._queue,
                _L.row_id.in_(list(rows)),
                _L.owner == self._owner,
            )
        )

    def elsewhere(self, connection: sa.Connection) -> int:
        """Return how many rows other running owners have."""
        others = [o for o in self._living(connection) if o != self._owner]
        query = sa.select(sa.func.count()).where(
            _L.queue == self._queue, _L.owner.in_(others)
        )
        return int(connection.scalar(query) or 0)

    def _living(self, connection: sa.Connection) -> list[str]:
        """Return the owners with a valid lease, and us."""
        query = sa.select(_O.owner).where(_O.until > now(connection))
        return sorted({*connection.scalars(query), self._owner})


def now(connection: sa.Connection) -> int:
    """Return the database's time, in microseconds: one clock for all drainers."""
    texts = {
        "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400000000.0",
        "postgresql": "SELECT extract(epoch FROM clock_timestamp()) * 1000000",
    }
    usual = "SELECT UNIX_TIMESTAMP(SYSDATE(6)) * 1000000"
    found = connection.exec_driver_sql(texts.get(connection.dialect.name, usual))
    return int(found.scalar_one())


def _insert(connection: sa.Connection, table: sa.Table) -> Any:  # noqa: ANN401
    """Return an INSERT that does not change existing rows."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return sa.insert(table).prefix_with("IGNORE")
