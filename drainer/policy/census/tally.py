"""Recipients in groups: existing, unknown, undecided; by domain and reason. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from drainer.mail.mailbox import mailbox_key
from drainer.policy.census.existence import Existence, ExistenceAnswer

MAX_SAMPLES = 5


@dataclass(slots=True)
class CensusGroup:
    """Recipients of one domain of which the same is known, for the same reason."""

    existence: Existence
    domain: str
    reason: str
    recipients: int = 0
    #: How often they are recipients of a message.
    messages: int = 0
    samples: list[str] = field(default_factory=list)


class RecipientCount:
    """Distinct recipients, and how many messages each has. Spellings are one."""

    def __init__(self) -> None:
        self._spelled: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, mailbox: str, count: int = 1) -> None:
        """Count a recipient of a message."""
        key = mailbox_key(mailbox)
        self._counts[key] = self._counts.get(key, 0) + count
        if key != mailbox:
            self._spelled.setdefault(key, mailbox)

    def mailboxes(self) -> Iterator[tuple[str, int]]:
        """Yield each recipient, as it was spelled first, with its count."""
        for key, count in self._counts.items():
            yield self._spelled.get(key, key), count


class CensusTally:
    """Counts recipients by what is known of them."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Existence, str, str], CensusGroup] = {}

    def add(self, mailbox: str, messages: int, answer: ExistenceAnswer) -> None:
        """Count a distinct recipient."""
        domain = mailbox_key(mailbox).rpartition("@")[2]
        key = (answer.existence, domain, answer.reason)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = CensusGroup(*key)
        group.recipients += 1
        group.messages += messages
        if len(group.samples) < MAX_SAMPLES:
            group.samples.append(mailbox)

    def count(self, existence: Existence) -> int:
        """Return how many recipients there are of a kind."""
        return sum(
            group.recipients
            for group in self._groups.values()
            if group.existence is existence
        )

    @property
    def groups(self) -> list[CensusGroup]:
        """The groups: unknown ones first, then undecided ones; the largest first."""
        order = (Existence.UNKNOWN, Existence.CANNOT_TELL, Existence.KNOWN)
        return sorted(
            self._groups.values(),
            key=lambda g: (order.index(g.existence), -g.recipients, g.domain, g.reason),
        )
