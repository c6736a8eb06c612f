"""The addresses in messages for people: as ``[telemetry] addresses`` says."""

import re
import secrets
from collections.abc import Iterable

from drainer.cli.log import show_addresses
from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.errors import LedgerError
from drainer.ledger.reader import LedgerReader
from drainer.telemetry.privacy import AddressView, has_mailbox

_DATABASE = re.compile(r"((?:postgresql|mysql|mariadb)[+\w]*://[^\s/@]*@)")
"""The start of a database's URL: whom it names is a user of it."""


def show_as_configured(config: Config) -> None:
    """Let the messages of this command show addresses as its configuration says."""
    if config.telemetry.addresses != "plain":
        show_addresses(_AddressHasher(config))


class _AddressHasher:
    """Hashes the addresses in messages; the first one opens the ledger for its key.

    A command without a ledger hashes with a key of its own.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._view: AddressView | None = None

    def __call__(self, text: str, own: Iterable[str]) -> str:
        mailboxes = tuple(own)
        parts = _DATABASE.split(text)  # every second one is such a start
        if not mailboxes and not any(map(has_mailbox, parts[::2])):
            return text
        if self._view is None:
            self._view = AddressView(_salt(self._config), plain=False)
        known, view = self._view.own(mailboxes), self._view
        parts[::2] = [view.text(each, known) for each in parts[::2]]
        return "".join(parts)


def _salt(config: Config) -> bytes:
    try:
        with LedgerReader(ledger_url(config)) as reader:
            return reader.salt()
    except LedgerError:
        return secrets.token_bytes(16)
