"""`make bench`: `postqueue -f`, broken primaries, bounces, throttle, traces, a census.

Whatever is compared was measured in the same run, on the same spool, sink and disk,
in turns; so the ratio counts, and the figures beside it say how quiet the machine was.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import (
    adaptive,
    bounces,
    census,
    curves,
    distance,
    flush,
    large,
    refusals,
    routes,
    throttle,
    tracing,
)
from tests.support.mta.postfix import instance_directory, missing_reason
from tests.support.mta.roles import SmtpSink


def _postfix(chosen: argparse.Namespace) -> None:
    with instance_directory() as folder:
        flush.run(folder, messages=chosen.messages, rounds=chosen.rounds)


def _distance(chosen: argparse.Namespace) -> None:
    with instance_directory() as folder:
        count = min(chosen.messages, 4000)
        distance.run(folder, messages=count, rounds=chosen.rounds)


def _large(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        large.run(Path(name), messages=chosen.messages)


def _tracing(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        messages = min(chosen.messages, 5000)
        tracing.run(Path(name), messages=messages, rounds=chosen.rounds)


def _census(_: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        census.run(Path(name))


def _routes(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        routes.run(Path(name), messages=chosen.messages // 2, rounds=chosen.rounds)


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "postfix": _postfix,
    "curves": lambda chosen: curves.run(messages=chosen.messages // 4),
    "distance": _distance,
    "refusals": lambda chosen: refusals.run(unknown_among=chosen.unknown_among),
    "bounces": lambda _: bounces.run(),
    "large": _large,
    "routes": _routes,
    "throttle": lambda chosen: throttle.run(seconds=chosen.seconds),
    "adaptive": lambda _: adaptive.run(),
    "tracing": _tracing,
    "census": _census,
}
NEED_POSTFIX = frozenset(("postfix", "curves", "distance", "refusals"))


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
    wanted = [chosen.only] if chosen.only else list(PARTS)
    if reason and NEED_POSTFIX.intersection(wanted):
        print(f"cannot compare with Postfix: {reason}")
        return 1
    for name in wanted:
        PARTS[name](chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
