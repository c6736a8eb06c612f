"""The mail of one route in the ledger, as a condition of queries."""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from drainer.ledger import schema

_R, _M = schema.recipients.c, schema.messages.c


class RouteMail(NamedTuple):
    """The recipients of some sources, by URL, that one route serves."""

    sources: Sequence[str]
    route: str

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on recipients joined with messages."""
        return [_R.route == self.route, _M.source.in_(list(self.sources))]

    def recipients(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on recipients alone."""
        return [_R.route == self.route, _R.message.in_(self.messages())]

    def messages(self) -> sa.Select[tuple[int]]:
        """Return the query of the numbers of all messages of the sources."""
        return sa.select(_M.seq).where(_M.source.in_(list(self.sources)))
