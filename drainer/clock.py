"""The time of day, and the interpreter's own timing, from one place."""

import gc
import sys
from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return now, in UTC."""
    return datetime.now(UTC)


def rarely_collect() -> None:
    """Look for cycles of garbage less often: batches make many objects, no cycles.

    Measured on 20,000 queue files of 4 kB: a quarter of the scan's time.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def switch_often() -> None:
    """Let the ledger's thread have the interpreter soon after each system call."""
    sys.setswitchinterval(0.001)
