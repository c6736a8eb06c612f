"""The export process: project what the ledger holds, until the drain is over."""

import logging
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from drainer.errors import LedgerError
from drainer.runtime.databases import reason
from drainer.runtime.redaction import redact, redact_url
from drainer.telemetry import LAST_WORDS
from drainer.telemetry.exporters import make_exporter
from drainer.telemetry.projector import ExportFailure, Projector, exclusive

POLL = 0.25
"""Seconds between two looks at the ledger."""


def serve(link: socket.socket, order: Sequence[str], _: Sequence[int]) -> int:
    """Project until the link closes, then the rest; 0 = all was sent (workers.JOBS).

    ``order`` is the ledger's URL, where traces go, the endpoint, how addresses are
    written, and the folder of locks.
    """
    ledger, traces, endpoint, addresses, locks = order
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we report it below
    name = f"{traces} {redact_url(endpoint)}" if traces == "otlp" else traces
    try:
        lock = exclusive(Path(locks), name)
    except OSError as error:
        print(f"drainer: no traces: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    if lock is None:
        return 0  # another drain's export serves this cursor
    exporter = make_exporter(traces, endpoint)
    url, plain = make_url(ledger), addresses == "plain"
    try:
        projector = Projector(url, exporter, name=name, plain=plain)
    except LedgerError as error:
        print(f"drainer: traces wait: {error}", file=sys.stderr)  # noqa: T201
        return 1
    try:
        return _follow(projector, link)
    finally:
        projector.close()


def _follow(projector: Projector, link: socket.socket) -> int:
    deadline: float | None = None
    exported = 0
    while True:
        try:
            exported = projector.step()
        except (ExportFailure, OSError, SQLAlchemyError) as error:
            if exported >= 0:  # once, not at every try
                words = redact(reason(error))
                print(f"drainer: traces wait: {words}", file=sys.stderr)  # noqa: T201
            exported = -1
        if exported == 0 and deadline is not None:
            return 0
        if deadline is not None and (exported < 0 or time.monotonic() > deadline):
            return 1
        if exported <= 0 and deadline is None and _is_over(link, POLL):
            deadline = time.monotonic() + LAST_WORDS


def _is_over(link: socket.socket, wait: float) -> bool:
    """Wait a little; True when the drain has closed its end."""
    readable, _, _ = select.select([link], [], [], wait)
    return bool(readable) and not link.recv(1)
