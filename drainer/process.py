"""The time of day, and what concerns our processes as such, in one place."""

import gc
import os
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


def child_environment() -> dict[str, str]:
    """Return the environment of a child process: nothing of ours, so no secret."""
    return {k: v for k, v in os.environ.items() if not k.startswith("DRAINER_")}
