"""`make bench`: drainer beside `postqueue -f`, and the throttle over a minute.

Whatever is compared was measured in the same run, on the same spool, sink and disk,
in turns; so the ratio counts, and the figures beside it say how quiet the machine was.
"""

import argparse
import sys

from tests.bench import flush, throttle
from tests.postfix import instance_directory, missing_reason
from tests.roles import SmtpSink


def main(arguments: list[str]) -> int:
    """Measure what was asked for; 0 unless it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=2, metavar="N")
    parser.add_argument("--seconds", type=int, default=60, help="of each rate")
    parser.add_argument("--only", choices=("postfix", "throttle"))
    chosen = parser.parse_args(arguments)
    reason = missing_reason() or SmtpSink.missing_reason()
    if chosen.only != "throttle":
        if reason:
            print(f"cannot compare with Postfix: {reason}")
            return 1
        with instance_directory() as folder:
            flush.run(folder, messages=chosen.messages, rounds=chosen.rounds)
    if chosen.only != "postfix":
        throttle.run(seconds=chosen.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
