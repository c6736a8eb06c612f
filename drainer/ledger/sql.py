"""Ledger: what a worker remembers, on SQLAlchemy.

Every coroutine returns when what it wrote is durable. ``open`` and ``close``
return futures instead, because sessions let the network work meanwhile.
"""

import asyncio
import functools
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL

from drainer.errors import UsageError
from drainer.ledger import (
    Closed,
    Decision,
    Kind,
    Listing,
    Opened,
    claims,
    engine,
    from_micros,
    schema,
    takeover,
    to_micros,
)
from drainer.ledger.owner import RENEW_EVERY, Owner, lease_end
from drainer.ledger.rows import decision_row
from drainer.ledger.statements import Batch, Call, Identity
from drainer.ledger.writer import Writer
from drainer.policy.job import Job
from drainer.policy.state import State

T = TypeVar("T")


def _now() -> int:
    return to_micros(datetime.now(UTC))


class Ledger:
    """The ledger of one worker process."""

    def __init__(self, url: URL, locks: Path, *, unknown: timedelta) -> None:
        """Open or create the ledger and take an owner's lock in ``locks``.

        ``unknown`` is how long a recipient in doubt rests. Raises LedgerError as
        engine.connect does.
        """
        self._unknown = unknown // timedelta(microseconds=1)
        self.url = url
        self._engine = engine.connect(url, create=True)
        self._owner = Owner.acquire(locks)
        self.run_id = uuid.uuid4().hex
        self._identity = Identity(owner=self._owner.id, run=self.run_id)
        self._writer = Writer(self._engine, Batch(self._identity))

    @property
    def commits(self) -> int:
        """How many transactions were committed so far."""
        return self._writer.commits

    def expect(self, sessions: int) -> None:
        """Tell how many sessions share a commit.

        Each has an outcome and an opening to write, so that half of them make it
        worth one.
        """
        self._writer.quorum = max(1, sessions)

    async def start(self, route: str) -> int:
        """Begin a run: announce the owner, take over from dead ones.

        Returns how many recipients a dead run left in doubt.
        """
        self._writer.start()
        now = _now()
        due = now + self._unknown

        def begin(connection: sa.Connection) -> int:
            connection.execute(sa.insert(schema.owners), [self._owner.row(now)])
            row = {
                "id": self.run_id,
                "owner": self._owner.id,
                "route": route,
                "started": now,
                "facts": "{}",
            }
            connection.execute(sa.insert(schema.runs), [row])
            self._append(connection, _run_decision(Kind.RUN_STARTED, now, route=route))
            return takeover.take_over(connection, self._identity, now, due)

        return await self._call(begin)

    async def bind(self, sources: Iterable[str], route: str) -> None:
        """Bind sources to their primary; UsageError when it is another one."""

        def check(connection: sa.Connection) -> None:
            for url in sources:
                known = connection.scalar(
                    sa.select(schema.sources.c.route).where(schema.sources.c.url == url)
                )
                if known is None:
                    row = {"url": url, "route": route, "bound": _now()}
                    connection.execute(sa.insert(schema.sources), [row])
                elif known != route:
                    raise _bound_elsewhere(url, known, route)

        await self._call(check)

    async def record(self, listings: Sequence[Listing]) -> claims.Recorded:
        """Write down a part of a scan; new messages come back claimed."""
        return await self._call(
            functools.partial(
                claims.record, listings=listings, identity=self._identity, now=_now()
            )
        )

    async def claim(self, sources: Sequence[str], until: datetime) -> list[Job]:
        """Claim what is due now, and fell due by ``until``."""
        wanted = claims.Wanted(sources=sources, due=min(_now(), to_micros(until)))
        return await self._call(
            functools.partial(claims.claim, wanted=wanted, owner=self._owner.id)
        )

    def free(self, seq: int) -> None:
        """End the claim on a message of which nothing is under way any more."""
        self._writer.submit(
            Call(functools.partial(claims.free, seq=seq, owner=self._owner.id))
        )

    async def next_due(self, sources: Sequence[str]) -> int | None:
        """Return when a pending or deferred recipient is due, in microseconds."""
        states = (State.PENDING, State.DEFERRED)
        return await self._call(
            functools.partial(claims.next_due, sources=sources, states=states)
        )

    async def unfinished(self, sources: Sequence[str]) -> int:
        """Return how many messages of these sources have recipients to try."""
        return await self._call(functools.partial(claims.unfinished, sources=sources))

    async def owned_elsewhere(self, sources: Sequence[str]) -> int:
        """Return how many messages of these sources another owner works on."""
        return await self._call(
            functools.partial(
                claims.owned_elsewhere, sources=sources, owner=self._owner.id
            )
        )

    def submit(self, operation: Opened | Closed) -> asyncio.Future[None]:
        """Write an attempt's in-flight rows, or its outcome.

        The future is done when that is durable. It raises Conflict when the
        recipients are in another state than claimed: somebody else was there.
        """
        return self._writer.submit(operation)

    def note(self, *decisions: Decision) -> asyncio.Future[None]:
        """Append decisions that belong to no attempt."""
        return self._writer.submit(
            Call(lambda connection: self._append(connection, *decisions))
        )

    def _append(self, connection: sa.Connection, *decisions: Decision) -> None:
        rows = [decision_row(decision, self.run_id) for decision in decisions]
        connection.execute(sa.insert(schema.decisions), rows)

    async def finished(self, ids: Sequence[str]) -> set[str]:
        """Return those of the messages whose recipients are all final."""
        return await self._call(functools.partial(claims.finished, ids=ids))

    async def acknowledged(self, ids: Sequence[str]) -> None:
        """Remember that the source has let go of these messages."""
        await self._call(
            functools.partial(claims.acknowledged, ids=ids, run=self.run_id, now=_now())
        )

    async def last_activity(self, route: str) -> datetime | None:
        """Return until when another run may have sent to this route.

        A run without an end died at an unknown moment: that counts as now.
        """
        runs = schema.runs.c

        def find(connection: sa.Connection) -> int | None:
            rows = connection.execute(
                sa.select(runs.ended).where(runs.route == route, runs.id != self.run_id)
            ).all()
            if not rows:
                return None
            return (
                _now() if any(r[0] is None for r in rows) else max(r[0] for r in rows)
            )

        found = await self._call(find)
        return None if found is None else from_micros(found)

    async def keep_lease(self) -> None:
        """Renew the lease for ever; run it as a task."""
        owners = schema.owners

        def renew(connection: sa.Connection) -> None:
            connection.execute(
                sa.update(owners)
                .where(owners.c.id == self._owner.id)
                .values(lease=lease_end(_now()))
            )

        while True:
            await asyncio.sleep(RENEW_EVERY.total_seconds())
            await self._call(renew)

    async def finish(self, exit_code: int) -> None:
        """End the run: give claims back, note the end, drop the owner."""
        runs = schema.runs

        def end(connection: sa.Connection) -> None:
            now = _now()
            facts = {"exit": exit_code, "commits": self.commits}
            self._append(connection, _run_decision(Kind.RUN_ENDED, now, **facts))
            connection.execute(
                sa.update(runs)
                .where(runs.c.id == self.run_id)
                .values(ended=now, exit=exit_code, commits=self.commits)
            )
            takeover.abandon(
                connection, [self._owner.id], self.run_id, (now, now + self._unknown)
            )

        await self._call(end)

    async def stop(self) -> None:
        """Commit what is queued, end the thread, free the lock."""
        await self._writer.stop()
        self._owner.release()
        self._engine.dispose()

    async def _call(self, function: Callable[[sa.Connection], T]) -> T:
        result: Any = await self._writer.submit(Call(function))
        return result  # type: ignore[no-any-return]


def _run_decision(kind: Kind, now: int, **facts: object) -> Decision:
    return Decision(at=from_micros(now), kind=kind, rule=kind.value, evidence=facts)


def _bound_elsewhere(url: str, known: str, route: str) -> UsageError:
    return UsageError(
        f"{url} has been drained to {known} before, not to {route}",
        hint="give the same --to, another --ledger, or --rehearse to try it out",
    )
