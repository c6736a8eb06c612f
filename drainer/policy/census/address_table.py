"""The addresses of one list, and what it says about a recipient. Pure.

Neither the spelling of a domain nor the case of a local part matters, nor a +tag.
"""

import re
from collections import Counter
from collections.abc import Iterable

from drainer.mail.envelope import AddressError, parse_mailbox
from drainer.mail.mailbox import ascii_domain, mailbox_key
from drainer.policy.census.existence import (
    CATCH_ALL,
    LISTED,
    NOT_LISTED,
    POSTMASTER,
    UNLISTED,
    Existence,
    ExistenceAnswer,
)

_LINE = re.compile(r'("(?:[^"\\]|\\.)*"@\S+|\S+)\s*(.*)', re.DOTALL)
_REFUSES = re.compile(r"(?i)(?:reject|discard|5[0-9][0-9])(?:\W|$)|error:")
"""Values with which tables of Postfix (access(5), transport(5)) refuse an address."""


class AddressTable:
    """Addresses, and domains of which every address exists."""

    def __init__(self, name: str, delimiters: str = "+") -> None:
        """Start empty; a tag starts with one of the ``delimiters``."""
        self.name = name
        self._delimiters = delimiters
        self._mailboxes: set[str] = set()
        self._domains: Counter[str] = Counter()
        self._catch_all: set[str] = set()
        #: Entries with an @ that are not addresses, and the first of them.
        self.ignored, self.first_ignored = 0, ""
        #: One object for all recipients of which the same is said.
        self._listed = ExistenceAnswer(Existence.KNOWN, LISTED, name)
        self._of_domain = ExistenceAnswer(Existence.KNOWN, CATCH_ALL, name)
        self._postmaster = ExistenceAnswer(Existence.CANNOT_TELL, POSTMASTER, name)
        self._absent = ExistenceAnswer(Existence.UNKNOWN, NOT_LISTED, name)

    def __len__(self) -> int:
        return len(self._mailboxes) + len(self._catch_all)

    def add(self, entry: str) -> bool:
        """Add an address, or ``@domain``; return False if it is neither."""
        is_added = self._add(entry)
        if not is_added and "@" in entry:
            self.ignored += 1
            self.first_ignored = self.first_ignored or entry
        return is_added

    def _add(self, entry: str) -> bool:
        text = entry.removeprefix("<").removesuffix(">").removeprefix("*@")
        if entry.startswith(("@", "*@")):
            domain = ascii_domain(text.removeprefix("@"))
            if not domain:
                return False
            self._catch_all.add(domain)
            self._domains[domain] += 1
            return True
        try:
            key = mailbox_key(parse_mailbox(text))
        except AddressError:
            return False
        domain = key.rpartition("@")[2]
        if not domain or "@" not in key:
            return False
        self._mailboxes.add(key)
        self._domains[domain] += 1
        return True

    def key_of(self, mailbox: str) -> str:
        """Return what a mailbox is listed as, without its tag."""
        return mailbox_key(mailbox, self._delimiters)

    def find(self, mailbox: str) -> ExistenceAnswer:
        """Return what this list says about a recipient."""
        exact = mailbox_key(mailbox)
        local, _, domain = exact.rpartition("@")
        if domain not in self._domains:
            return UNLISTED
        if not self._mailboxes.isdisjoint((exact, self.key_of(mailbox))):
            return self._listed
        if domain in self._catch_all:
            return self._of_domain
        if local == "postmaster":
            return self._postmaster
        return self._absent


def refuses(value: str) -> bool:
    """Return whether the value of a map refuses the address (access(5))."""
    return _REFUSES.match(value) is not None


def add_lines(table: AddressTable, lines: Iterable[str]) -> int:
    """Add the lines of a list or of the source of a map; return how many are neither.

    An address or ``@domain`` comes first, then the value of a map, also in indented
    lines. Values that refuse the address leave it out; ``#`` starts a comment.
    """
    has_value, ignored = False, 0
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if has_value and line[0].isspace():
            continue
        found = _LINE.match(text)
        key, value = (found[1], found[2]) if found else (text, "")
        has_value = bool(value)
        if refuses(value):
            continue
        is_name = "@" not in key and "<" in value  # as in: Bob <bob@example.org>
        ignored += not table.add(text if is_name else key.rstrip(":,;"))
    return ignored
