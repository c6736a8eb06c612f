"""What of the ledger a drain that chooses may try: read in order, kept as numbers.

A drain that takes everything claims by one index. One that filters, limits or orders
reads what waits once in a round, and claims by number what it found. So the cost of a
claim does not depend on what is passed over.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from drainer.ledger import schema
from drainer.ledger.filters import ASKED, Filters
from drainer.ledger.reader import LedgerReader
from drainer.ledger.route_mail import RouteMail
from drainer.policy.admission.selection import Choice, SendOrder
from drainer.policy.recipient.state import CLAIMABLE, State

_R, _M, _A = schema.recipients.c, schema.messages.c, schema.attempts.c
_WAITED_FOR = (State.PENDING.value, State.DEFERRED.value)


class DueQuery(Struct, frozen=True, kw_only=True):
    """Which run asks for what, and when; times in microseconds."""

    mail: RouteMail
    choice: Choice
    run: str
    #: What was due by then is ready.
    due: int
    #: When a message arrived whose lifetime ends now.
    lifetime_began: int
    #: Also messages that only their locators identify.
    twins: bool = True


@dataclass(slots=True)
class DueList:
    """Numbers of messages in the order in which they are to go."""

    seqs: "array[int]" = field(default_factory=lambda: array("q"))
    #: Whether this run has tried each before: that is not counted again.
    tried: bytearray = field(default_factory=bytearray)
    #: When the first of those that a drain waits for is due, if none is ready.
    next_due: int | None = None
    _begun: int = 0

    def take(self, most: int, untried: int | None) -> dict[int, bool]:
        """Return the next numbers, and for each whether this run has tried it.

        At most ``most``, and at most this many untried ones (None: all of them).
        """
        taken: dict[int, bool] = {}
        while not self.is_spent and len(taken) < most:
            tried = bool(self.tried[self._begun])
            if tried or untried != 0:
                taken[self.seqs[self._begun]] = tried
                untried = untried if tried or untried is None else untried - 1
            self._begun += 1
        return taken

    def ready(self, untried: int | None) -> bool:
        """Whether ``take`` would return anything."""
        rest = self.tried[self._begun :]
        return any(rest) or (untried != 0 and bool(rest))

    @property
    def is_spent(self) -> bool:
        """Whether all of it was taken."""
        return self._begun >= len(self.seqs)


def scan_due(report: LedgerReader, asking: DueQuery) -> DueList:
    """Read what is not claimed and matches the choice."""
    found = DueList()
    filters = Filters(selection=asking.choice.selection)
    last = None
    for row in report.rows(_query(asking, filters)):
        if not filters.takes(row):
            continue
        if row["due"] > asking.due:
            if row["state"] in _WAITED_FOR:
                found.next_due = min(found.next_due or row["due"], row["due"])
        elif row["message"] != last:
            last = row["message"]
            found.seqs.append(last)
            found.tried.append(row["run"] == asking.run)
    return found


def has_rest(report: LedgerReader, sources: Sequence[str], choice: Choice) -> bool:
    """Whether anything that was chosen is not final.

    With a limit, what was never tried does not count: it was not its turn.
    """
    states = [s for s in State if s is not State.PENDING or choice.limit is None]
    filters = Filters(selection=choice.selection)
    rows = report.unfinished(filters, sources, states)
    return any(map(filters.takes, rows))


def _query(asking: DueQuery, filters: Filters) -> sa.Select[Any]:
    return (
        sa.select(_R.message, _R.forward_path, _R.state, _R.due, *ASKED, _A.run)
        .join(schema.messages, _R.message == _M.seq)
        .outerjoin(schema.attempts, _R.attempt == _A.id)
        .where(
            _R.state.in_([state.value for state in CLAIMABLE]),
            _M.owner.is_(None),
            *asking.mail.clauses(),
            *(() if asking.twins else (_M.has_twin == 0,)),
            *filters.clauses(),
        )
        .order_by(*_order(asking), _R.message, _R.n)
    )


def _order(asking: DueQuery) -> Iterator[sa.ColumnElement[Any]]:
    """Yield what the database sorts by (policy.admission.selection.order_key)."""
    keys: Mapping[SendOrder, sa.ColumnElement[Any]] = {
        SendOrder.OLDEST: _M.arrived,
        SendOrder.NEWEST: _M.arrived.desc(),
        SendOrder.SMALLEST: _M.size,
        SendOrder.DEADLINE: _M.arrived,
    }
    order = asking.choice.order
    if order is SendOrder.DEADLINE:
        yield sa.case((_M.arrived < asking.lifetime_began, 1), else_=0)
    if order is not None:
        yield keys[order]
