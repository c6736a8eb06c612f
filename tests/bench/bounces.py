"""The outage of tests/acceptance/test_outage.py at its full size, killed likewise.

1,000 of 21,000 messages are refused, 20 of their senders are proven.
"""

import random
import tempfile
import time
from pathlib import Path

from tests.support.scenarios.outage import PROVEN, outage

MESSAGES = 21_000


def run(*, messages: int = MESSAGES, seed: int | None = None) -> None:
    """Drain it, judge it, print a line."""
    if seed is None:
        seed = random.randrange(1 << 30)  # noqa: S311 - printed, to repeat a failure
    print(f"filling a spool with {messages} messages, seed {seed} ...", flush=True)
    with (
        tempfile.TemporaryDirectory() as name,
        outage(Path(name), messages=messages, seed=seed) as made,
    ):
        begun = time.monotonic()
        made.run()
        seconds = time.monotonic() - begun
        made.judge()
        copies = len(made.bench.reports)
        print(
            f"{messages - made.refused} delivered, {PROVEN} bounced by {copies} reports"
            f" as the relay saw them, {made.refused - PROVEN} quarantined, killed"
            f" {made.kills} times: {seconds:.0f} s"
        )
