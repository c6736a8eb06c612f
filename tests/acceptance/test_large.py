"""A queue larger than the window: sending begins early, and memory stays what it is."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from drainer.delivery.fair_queue import WINDOW
from tests.bench.large import write_maildir
from tests.support.command.installed import Drainer, drain_arguments
from tests.support.command.processes import Peaks
from tests.support.mta.roles import SmtpSink

pytestmark = pytest.mark.alone

MESSAGES = WINDOW + 2000
LARGEST_BYTES = 150_000_000
TOGETHER_BYTES = 210_000_000
"""Far below the 250 MB of a million messages, which these are too few to reach."""


def test_sending_overlaps_the_scan_and_memory_is_bounded(
    tmp_path: Path, smtp_sink: Callable[..., SmtpSink]
) -> None:
    """The scan cannot end before messages have left; memory is bounded."""
    write_maildir(tmp_path / "spool", MESSAGES)
    sink = smtp_sink()
    drainer = Drainer(tmp_path / "ledger.db", fresh=True)
    options = ("--no-check", "--connections", 20)
    process = drainer.start(*drain_arguments(tmp_path / "spool", sink.port, *options))
    with Peaks(process.pid, period=0.1) as peaks:
        _, stderr = process.communicate(timeout=170)
    assert process.returncode == 0, stderr
    with contextlib.closing(sqlite3.connect(drainer.ledger)) as connection:
        one = "SELECT COUNT(*), MIN(at) FROM decisions WHERE verdict = 'deliver'"
        (delivered, first) = connection.execute(one).fetchone()
        (last,) = connection.execute("SELECT MAX(scanned) FROM messages").fetchone()
        early = "SELECT COUNT(*) FROM decisions WHERE verdict = 'deliver' AND at < ?"
        (overlapping,) = connection.execute(early, (last,)).fetchone()
    assert delivered == MESSAGES
    assert first < last
    assert overlapping >= MESSAGES - WINDOW - 1000, "the rest fits into the window"
    assert max(peaks.by_pid.values()) < LARGEST_BYTES
    assert peaks.together < TOGETHER_BYTES
