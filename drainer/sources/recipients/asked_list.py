"""A list that answers for one address at a time, and cannot be read as a whole."""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from drainer.mail.mailbox import mailbox_key, readable
from drainer.policy.census.address_table import AddressTable
from drainer.policy.census.existence import ExistenceAnswer
from drainer.sources.recipients.recipient_list import age_of

Ask = Callable[[Sequence[str]], Iterable[str]]
"""Returns which of these keys (addresses, and @domain) the list has."""


class AskedList:
    """Remembers what the list said.

    It has a domain as soon as it has one of the addresses that were asked for. A domain
    of which it has a random address is one of which it has every address.
    """

    def __init__(self, table: AddressTable, ask: Ask, path: Path | None = None) -> None:
        """Start with an empty table; ask nothing yet."""
        self.name = table.name
        self.age = partial(age_of, path)
        self._table = table
        self._ask = ask
        self._asked: set[str] = set()
        #: Random addresses, each with @ and its domain.
        self._random: dict[str, str] = {}
        self._domains: set[str] = set()
        #: Those of which it has every address.
        self._whole: set[str] = set()

    def lookup(self, mailboxes: Sequence[str]) -> Mapping[str, ExistenceAnswer]:
        """Return what it says about each; raise UsageError if it cannot be asked."""
        wanted = [key for each in mailboxes for key in self._keys(each)]
        keys = list(dict.fromkeys(filter(_is_plain, wanted)))
        found = set(self._ask(keys)) if keys else set()
        self._whole.update(self._random[key] for key in found if key in self._random)
        for key in found:
            domain = "@" + mailbox_key(key).rpartition("@")[2]
            self._table.add(domain if domain in self._whole else key)
        self._asked.update(keys)
        return {mailbox: self._table.find(mailbox) for mailbox in mailboxes}

    def _keys(self, mailbox: str) -> Iterable[str]:
        """Return what to ask for: the mailbox, without its tag, and its domain.

        A list may have a domain in Unicode, or as A-labels, so each is asked for.
        """
        domain = "@" + mailbox_key(mailbox).rpartition("@")[2]
        keys = [mailbox_key(mailbox), self._table.key_of(mailbox), domain]
        if domain not in self._domains:
            self._domains.add(domain)
            name = f"drainer-census-{secrets.token_hex(6)}{domain}"
            self._random |= {name: domain, readable(name): domain}
            keys.append(name)
        spelled = (form for key in keys for form in (key, readable(key)))
        return (key for key in spelled if key not in self._asked)


def _is_plain(key: str) -> bool:
    return key.isprintable() and " " not in key and len(key) > 1
