"""`make bench`: `postqueue -f`, sick primaries, bounces, a Maildir, throttle, traces.

Whatever is compared was measured in the same run, on the same spool, sink and disk,
in turns; so the ratio counts, and the figures beside it say how quiet the machine was.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.bench import (
    adaptive,
    bounces,
    distance,
    flush,
    large,
    refusals,
    throttle,
    tracing,
)
from tests.support.mta.postfix import instance_directory, missing_reason
from tests.support.mta.roles import SmtpSink

PARTS = (
    "postfix", "distance", "refusals", "bounces", "large", "throttle", "adaptive",
    "tracing",
)  # fmt: skip


def main(arguments: list[str]) -> int:
    """Measure what was asked for; 0 unless it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=2, metavar="N")
    parser.add_argument("--seconds", type=int, default=60, help="of each rate")
    parser.add_argument(
        "--unknown-among", type=int, default=10_000, metavar="N",
        help="messages, 3 %% of them to unknown users",
    )  # fmt: skip
    parser.add_argument("--only", choices=PARTS)
    chosen = parser.parse_args(arguments)
    reason = missing_reason() or SmtpSink.missing_reason()
    wanted = {chosen.only} if chosen.only else set(PARTS)
    if reason and wanted & {"postfix", "distance", "refusals"}:
        print(f"cannot compare with Postfix: {reason}")
        return 1
    if "postfix" in wanted:
        with instance_directory() as folder:
            flush.run(folder, messages=chosen.messages, rounds=chosen.rounds)
    if "distance" in wanted:
        with instance_directory() as folder:
            count = min(chosen.messages, 4000)
            distance.run(folder, messages=count, rounds=chosen.rounds)
    if "refusals" in wanted:
        refusals.run(unknown_among=chosen.unknown_among)
    if "bounces" in wanted:
        bounces.run()
    if "large" in wanted:
        with tempfile.TemporaryDirectory() as name:
            large.run(Path(name), messages=chosen.messages)
    if "throttle" in wanted:
        throttle.run(seconds=chosen.seconds)
    if "adaptive" in wanted:
        adaptive.run()
    if "tracing" in wanted:
        with tempfile.TemporaryDirectory() as name:
            tracing.run(Path(name), messages=min(chosen.messages, 5000))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
