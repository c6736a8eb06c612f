"""The export process: project what the ledger holds, until the drain is over."""

import logging
import os
import select
import sys
import time
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from drainer.observe import LAST_WORDS
from drainer.observe.exporters import make_exporter
from drainer.observe.project import ExportFailed, Projector, exclusive
from drainer.process import leave_signals_to_parent, rarely_collect

POLL = 0.5
"""Seconds between two looks at the ledger."""


def main(arguments: list[str]) -> int:
    """Project until standard input closes, then the rest; 0 = all has left."""
    traces, endpoint, addresses, locks = arguments
    rarely_collect()
    leave_signals_to_parent()
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we tell it below
    url = make_url(os.environ.pop("DRAINER_EXPORT_LEDGER"))
    name = f"{traces} {endpoint}" if traces == "otlp" else traces
    lock = exclusive(Path(locks), name)
    if lock is None:
        return 0  # another drain's export serves this cursor
    exporter = make_exporter(traces, endpoint)
    projector = Projector(url, exporter, name=name, plain=addresses == "plain")
    try:
        return _follow(projector)
    finally:
        projector.close()


def _follow(projector: Projector) -> int:
    deadline: float | None = None
    exported = 0
    while True:
        try:
            exported = projector.step()
        except (ExportFailed, OSError, SQLAlchemyError) as error:
            if exported >= 0:  # once, not at every try
                print(f"drainer: traces wait: {error}", file=sys.stderr)  # noqa: T201
            exported = -1
        if exported == 0 and deadline is not None:
            return 0
        if deadline is not None and (exported < 0 or time.monotonic() > deadline):
            return 1
        if exported <= 0 and deadline is None and _is_over(POLL):
            deadline = time.monotonic() + LAST_WORDS


def _is_over(wait: float) -> bool:
    """Wait a little; True when the drain has closed our standard input."""
    readable, _, _ = select.select([sys.stdin], [], [], wait)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
