"""Metrics in a file, for the node exporter's textfile collector.

Its reader never sees half of it: drainer writes a new file and renames it.
"""

import os
from pathlib import Path

from drainer.config import Config
from drainer.config.build.paths import LedgerURL
from drainer.errors import DrainerError, UsageError
from drainer.ledger.reader import LedgerReader
from drainer.runtime.private_files import replace_file
from drainer.watch.ledger_facts import LedgerFacts, ledger_facts
from drainer.watch.metrics import LedgerInputs, exposition

FOR_ALL = 0o644
"""The mode of the file: the node exporter is another user."""


def ledger_inputs(config: Config, url: LedgerURL) -> LedgerInputs:
    """Return the sources of a ledger's metrics; never raises for a ledger."""
    try:
        with LedgerReader(url) as reader:
            found = LedgerFacts(ledger_facts(reader, config.retry.lifetime))
    except DrainerError as error:
        found = LedgerFacts({}, str(error))
    return LedgerInputs(found)


def ledger_metrics(config: Config, url: LedgerURL) -> bytes:
    """Return what Prometheus reads of a ledger; never raises for a ledger."""
    return exposition(ledger_inputs(config, url))


def write_textfile(config: Config, url: LedgerURL, path: Path) -> None:
    """Write the metrics of a ledger to a file that every user may read.

    Raises UsageError when the file cannot be written.
    """
    try:
        replace_file(path, ledger_metrics(config, url), FOR_ALL)
    except OSError as error:
        message = f"cannot write the metrics to {path}: {os.strerror(error.errno or 0)}"
        hint = "its folder must exist, and this user must be able to write there"
        raise UsageError(message, hint=hint) from None
