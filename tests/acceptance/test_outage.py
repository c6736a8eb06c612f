"""After an outage, and however often killed: each proven sender is told once."""

import random
from pathlib import Path

from tests.support.scenarios.outage import outage

MESSAGES = 735
"""A few hundredths of what `python -m tests.bench --only bounces` drains."""


def test_twenty_proven_senders_among_many_refused_get_one_report_each(
    tmp_path: Path,
) -> None:
    """All others in quarantine, the welcome delivered, the balance right; killed."""
    seed = random.randrange(1 << 30)  # noqa: S311 - printed, to repeat a failure
    print(f"seed {seed}")
    with outage(tmp_path, messages=MESSAGES, seed=seed) as made:
        made.run()
        made.judge()
