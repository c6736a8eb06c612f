"""What a list of recipients can do."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from drainer.errors import UsageError
from drainer.policy.census.address_table import AddressTable
from drainer.policy.census.existence import ExistenceAnswer


class RecipientList(Protocol):
    """A list that knows recipients of some domains."""

    @property
    def name(self) -> str:
        """How messages name it; without secrets."""

    def age(self) -> timedelta | None:
        """Return how long ago it was changed; None: it is always current."""

    def lookup(self, mailboxes: Sequence[str]) -> Mapping[str, ExistenceAnswer]:
        """Return what it says about each; it may block. Raises UsageError."""


class ListSummary(NamedTuple):
    """A list as people see it."""

    name: str
    #: None: unknown.
    entries: int | None
    age: timedelta | None
    is_too_old: bool
    #: Entries with an @ that are not addresses.
    ignored: int = 0


def age_of(path: Path | None) -> timedelta | None:
    """Return how long ago a file was changed; None if it cannot be seen any more.

    None also for a list that is not a file: it is always current.
    """
    if path is None:
        return None
    try:
        return timedelta(seconds=max(0.0, time.time() - path.stat().st_mtime))
    except OSError:
        return None


class LoadedList:
    """A list that was read as a whole."""

    def __init__(
        self, table: AddressTable, ignored: int, path: Path | None = None
    ) -> None:
        """Take a filled table, how many lines are not entries, and its file, if any.

        Raises UsageError for a table without an entry: it would decide nothing.
        """
        if not len(table):
            message = f"the list of recipients {table.name} has no address"
            hint = "a line has an address or @domain first"
            if ignored:
                hint = f"{hint}; none of its {ignored} lines has"
            raise UsageError(message, hint=hint)
        self.name = table.name
        self.table = table
        self.age = partial(age_of, path)

    def lookup(self, mailboxes: Sequence[str]) -> Mapping[str, ExistenceAnswer]:
        """Return what the table says about each."""
        return {mailbox: self.table.find(mailbox) for mailbox in mailboxes}
