"""The time of day, and what concerns our processes as such, in one place."""

import gc
import os
import signal
from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return now, in UTC."""
    return datetime.now(UTC)


def tune_gc(objects: int = 200_000) -> None:
    """Look for cycles of garbage less often: batches make many objects, few cycles.

    Measured on 20,000 queue files of 4 kB: a quarter of the scan's time, a tenth of the
    export's. ``objects`` is how many must be new before it looks.
    """
    gc.freeze()
    gc.set_threshold(objects, 20, 20)


def leave_signals_to_parent() -> None:
    """Let a child end when its pipe does: a service manager signals all of a group."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def clean_environment() -> dict[str, str]:
    """Return the environment of a child process: nothing of ours, so no secret."""
    return {k: v for k, v in os.environ.items() if not k.startswith("DRAINER_")}
