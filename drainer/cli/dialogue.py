"""The addresses in the SMTP dialogue: as ``[telemetry] addresses`` says."""

import logging
import secrets

from drainer.cli.log import DIALOGUE
from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.errors import LedgerError
from drainer.ledger.reader import LedgerReader
from drainer.telemetry.privacy import AddressView


def show_addresses(config: Config) -> None:
    """Let the dialogue of this command show addresses as its configuration says."""
    DIALOGUE.filters[:] = [_AddressFilter(config)]


class _AddressFilter(logging.Filter):
    """Changes the addresses in log lines; the first one opens the ledger for its key.

    A command without a ledger hashes with a key of its own.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config
        self._view: AddressView | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every line."""
        if self._view is None:
            plain = self._config.telemetry.addresses == "plain"
            self._view = AddressView(_salt(self._config), plain=plain)
        record.msg, record.args = self._view.text(record.getMessage()), None
        return True


def _salt(config: Config) -> bytes:
    try:
        with LedgerReader(ledger_url(config)) as reader:
            return reader.salt()
    except LedgerError:
        return secrets.token_bytes(16)
