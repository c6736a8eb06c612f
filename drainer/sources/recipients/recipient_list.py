"""What a list of recipients can do."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple, Protocol

from drainer.policy.census.address_table import AddressTable
from drainer.policy.census.existence import ExistenceAnswer


class RecipientList(Protocol):
    """A list that knows recipients of some domains."""

    @property
    def name(self) -> str:
        """How messages name it; without secrets."""
        ...

    def age(self) -> timedelta | None:
        """Return how long ago it was changed; None: it is always current."""
        ...

    def lookup(self, mailboxes: Sequence[str]) -> Mapping[str, ExistenceAnswer]:
        """Return what it says about each; it may block.

        Raises UsageError if the list cannot be read.
        """
        ...


class ListSummary(NamedTuple):
    """A list as people see it."""

    name: str
    #: None: it does not tell.
    entries: int | None
    age: timedelta | None
    is_too_old: bool
    #: Entries with an @ that are no address.
    ignored: int = 0


class LoadedList:
    """A list that is read as a whole, at the first question and when it is due."""

    def __init__(
        self, table: AddressTable, age: Callable[[], timedelta | None]
    ) -> None:
        """Take a filled table, and how to find out its age."""
        self.name = table.name
        self.table = table
        self.age = age

    def lookup(self, mailboxes: Sequence[str]) -> Mapping[str, ExistenceAnswer]:
        """Return what the table says about each."""
        return {mailbox: self.table.find(mailbox) for mailbox in mailboxes}
