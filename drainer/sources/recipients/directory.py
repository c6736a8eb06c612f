"""All lists of recipients together: one answer for each recipient."""

from collections.abc import Iterator, Sequence

from drainer.mail.mailbox import mailbox_key
from drainer.policy.census.existence import (
    TOO_OLD,
    UNLISTED,
    Existence,
    ExistenceAnswer,
    combine,
)
from drainer.runtime.units import describe_duration, format_duration
from drainer.sources.recipients.list_kinds import open_list
from drainer.sources.recipients.list_spec import DirectorySpec
from drainer.sources.recipients.recipient_list import (
    ListSummary,
    LoadedList,
    RecipientList,
)


class RecipientDirectory:
    """Asks every list; what was asked is remembered for the run."""

    def __init__(self, spec: DirectorySpec) -> None:
        """Read nothing yet."""
        self._spec = spec
        self._lists: tuple[RecipientList, ...] = ()
        #: What lists say that cannot answer without I/O, by the key of a mailbox.
        self._remembered: dict[str, ExistenceAnswer] = {}

    def open(self) -> None:
        """Read the lists; it may block. Raises UsageError if one cannot be read."""
        delimiters = self._spec.delimiters
        self._lists = tuple(open_list(each, delimiters) for each in self._spec.lists)

    def warnings(self) -> Iterator[str]:
        """Yield which lists are too old to say anything, or not understood."""
        limit = format_duration(self._spec.max_age)
        for each in self.summaries():
            if each.is_too_old and each.age is not None:
                age = describe_duration(each.age.total_seconds())
                yield (
                    f"the list {each.name} was changed {age} ago, and [recipients]"
                    f" max_age is {limit}: it says nothing"
                )
        for known in self._lists:
            if isinstance(known, LoadedList) and (table := known.table).ignored:
                yield (
                    f"{table.ignored} entries of the list {table.name} are not"
                    f" addresses, such as {table.first_ignored[:80]!r}: correct them,"
                    " else these recipients count as unknown"
                )

    def lookup(self, mailboxes: Sequence[str]) -> dict[str, ExistenceAnswer]:
        """Return what is known of each; it may block. Raises UsageError."""
        found: dict[str, list[ExistenceAnswer]] = {each: [] for each in mailboxes}
        for known in self._lists:
            is_old = self._is_too_old(known)
            for mailbox, answer in known.lookup(list(found)).items():
                found[mailbox].append(_discount(answer) if is_old else answer)
        answers = {mailbox: combine(said) for mailbox, said in found.items()}
        if not self._is_loaded:
            for mailbox, answer in answers.items():
                self._remembered[mailbox_key(mailbox)] = answer
        return answers

    def recall(self, mailbox: str) -> ExistenceAnswer:
        """Return what is known of a recipient without any I/O."""
        if self._is_loaded:
            return self.lookup([mailbox])[mailbox]
        return self._remembered.get(mailbox_key(mailbox), UNLISTED)

    def summaries(self) -> list[ListSummary]:
        """Return the lists as people see them."""
        return [
            ListSummary(
                name=known.name,
                entries=len(known.table) if isinstance(known, LoadedList) else None,
                age=known.age(),
                is_too_old=self._is_too_old(known),
                ignored=known.table.ignored if isinstance(known, LoadedList) else 0,
            )
            for known in self._lists
        ]

    @property
    def _is_loaded(self) -> bool:
        return all(isinstance(known, LoadedList) for known in self._lists)

    def _is_too_old(self, known: RecipientList) -> bool:
        age = known.age()
        return age is not None and age > self._spec.max_age


def _discount(answer: ExistenceAnswer) -> ExistenceAnswer:
    """Return what an answer is worth that comes from a list which is too old."""
    if answer is UNLISTED:
        return answer
    return ExistenceAnswer(Existence.CANNOT_TELL, TOO_OLD, answer.by)
