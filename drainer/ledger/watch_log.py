"""What a watch does in the ledger beside its drains: records, reads, owns its route."""

import hashlib
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL

from drainer.errors import OwnedElsewhere
from drainer.ledger import engine, schema
from drainer.ledger.decisions import record_decisions
from drainer.ledger.known_messages import has_news
from drainer.ledger.overrides import OverrideReader
from drainer.ledger.owner import writable
from drainer.ledger.records import MANY, Decision, ScanRow, from_micros
from drainer.policy.breaker.breaker import BreakerState
from drainer.policy.pacing.overrides import ActiveOverrides, Override
from drainer.policy.recipient.state import State
from drainer.runtime.locks import is_free, lock_private
from drainer.runtime.private_files import make_private_folder, open_present

_R, _M = schema.recipients.c, schema.messages.c
_TRIED = (State.PENDING, State.DEFERRED, State.UNKNOWN)
_PATIENCE = 0.5
"""Seconds: ``is_owned`` may have the lock for a moment."""


class WatchLog(OverrideReader):
    """A watch's own record in the ledger, and what it reads there.

    Everything may block; every method raises LedgerError.
    """

    def __init__(self, url: URL, route: str, run_id: str) -> None:
        """Open the ledger, which is made if there is none."""
        super().__init__(url, route)
        self._run = run_id

    def note(self, decision: Decision) -> None:
        """Record a change of state; durable on return."""
        writing = self._database.execution_options(writes=True)
        with engine.in_use(self._url), writing.begin() as connection:
            record_decisions(connection, self._run, [decision])

    def controls(self, last: int) -> tuple[list[Override], ActiveOverrides]:
        """Return the overrides with greater ids, in order, and what is in force."""
        return self.after(last), self.in_force()

    def is_news(self, listings: Sequence[ScanRow], *, takes: bool) -> bool:
        """Return whether a drain would start anything of this part of a scan.

        ``takes``: drainer takes only what may be sent from the source, and so records
        it.
        """
        may_go = [
            any(row["state"] == State.PENDING.value for row in listing.recipients)
            for listing in listings
        ]
        rows = [
            (listing.message, may)
            for listing, may in zip(listings, may_go, strict=True)
            if may or not takes
        ]
        with engine.in_use(self._url), self._database.connect() as connection:
            return any(
                has_news(connection, rows[start : start + MANY])
                for start in range(0, len(rows), MANY)
            )

    def next_due(
        self, sources: Sequence[str], routes: Sequence[str], *, braked: bool
    ) -> datetime | None:
        """Return when the next drain by these routes finds something; None = never.

        ``braked``: drainer confirms no refusals, even those that are due for
        confirmation.
        """
        states = _TRIED if braked else (*_TRIED, State.BOUNCE_PENDING)
        due = (
            sa.select(sa.func.min(_R.due))
            .join(schema.messages, _R.message == _M.seq)
            .where(_R.state.in_([s.value for s in states]))
            .where(_M.source.in_(list(sources)))
        )
        reports = sa.select(sa.func.min(schema.reports.c.due)).where(
            schema.reports.c.state == "queued"
        )
        breakers = sa.select(sa.func.min(schema.breakers.c.until)).where(
            schema.breakers.c.route.in_(list(routes)),
            schema.breakers.c.state == BreakerState.OPEN.value,
        )
        with engine.in_use(self._url), self._database.connect() as connection:
            found = [connection.scalar(query) for query in (due, reports, breakers)]
        if found[0] is None and found[1] is None:
            return None  # a breaker alone keeps nothing waiting
        return from_micros(min(each for each in found if each is not None))


def _lock_path(locks: Path, route: str) -> Path:
    name = hashlib.sha256(route.encode()).hexdigest()[:16]
    return locks / f"watch-{name}"


def own(locks: Path, route: str) -> int:
    """Take the lock of a route's watch; return its descriptor, which must be kept.

    Raises OwnedElsewhere when another watch of this host has it, LedgerError when the
    folder cannot be written.
    """
    with writable(locks):
        make_private_folder(locks)
        try:
            return lock_private(_lock_path(locks, route), patience=_PATIENCE)
        except BlockingIOError:
            message = f"another `drainer watch` of {route} runs with this ledger"
            tools = "`drainer hook` and `drainer status` work with it"
            raise OwnedElsewhere(
                message, hint=f"stop that one first; {tools}"
            ) from None


def is_owned(locks: Path, route: str) -> bool:
    """Whether a watch of this host has a route."""
    try:
        descriptor = open_present(_lock_path(locks, route), os.O_RDWR)
    except OSError:
        return False
    return not is_free(descriptor, shared=True)
