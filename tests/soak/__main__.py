"""Disturb drains for some time: ``make soak SECONDS=3600``.

Each walk takes a spool and a disturbance in turn, and its moments by chance. The table
says what was tried, lost, doubled and named `unknown`; the command ends with status 1
when a promise was broken, and says which.
"""

import argparse
import itertools
import random
import re
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.soak.disturbances import DISTURBANCES
from tests.soak.faults import compile_faults, missing_reason
from tests.soak.spools import NAMES, Spools
from tests.soak.walk import Outcome, walk
from tests.support.docs import DOCS, table

_PAGE: Final = DOCS / "reliability.md"
_PART: Final = re.compile(
    r"(<!-- measured: soak -->\n).*?(<!-- end of soak -->)", re.DOTALL
)
Results = dict[tuple[str, str], Outcome]


def main() -> int:
    """Walk until the time is over; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("words", nargs="*", help="only walks that hold one of these")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))  # noqa: S311
    parser.add_argument("--write", action="store_true", help=f"to {_PAGE.name} as well")
    asked = parser.parse_args()
    if reason := missing_reason():
        parser.error(reason)
    print(f"seed {asked.seed}", flush=True)
    words = asked.words or [""]
    pairs = [
        (disturbance, name)
        for disturbance in DISTURBANCES
        for name in NAMES
        if any(word in f"{disturbance} / {name}" for word in words)
    ]
    begun = time.monotonic()
    results = soak(pairs, asked.seconds, asked.seed)
    text = report(results, time.monotonic() - begun)
    print(text)
    if asked.write:
        page = _PAGE.read_text("utf-8")
        _PAGE.write_text(_PART.sub(lambda m: f"{m[1]}{text}{m[2]}", page), "utf-8")
    return 0 if all(each.is_right for each in results.values()) else 1


def soak(pairs: list[tuple[str, str]], seconds: float, seed: int) -> Results:
    """Walk over the pairs again and again, mixed; return what came of each."""
    results: Results = {pair: Outcome() for pair in pairs}
    order = random.Random(seed).sample(pairs, len(pairs))  # noqa: S311 - to repeat it
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="soak-") as name, Spools() as spools:
        root = Path(name)
        library = compile_faults(root)
        for number, pair in enumerate(itertools.cycle(order)):
            if time.monotonic() > end:
                return results
            dice = random.Random(f"{seed} {number}")  # noqa: S311 - to repeat it
            outcome = take(pair, spools, root / str(number), library, dice)
            results[pair].add(outcome)
            if not outcome.is_right:
                print(f"walk {number}: {pair}", *outcome.faults, sep="\n  ", flush=True)
    return results


def take(
    pair: tuple[str, str],
    spools: Spools,
    folder: Path,
    library: Path,
    dice: random.Random,
) -> Outcome:
    """Take one walk: disturb it once to three times, then let it finish."""
    disturbance, name = pair
    folder.mkdir()
    with walk(spools, name, folder, library, dice) as one:
        steps = 3 * one.least_steps
        for _ in range(dice.randint(1, 3)):
            lasts = dice.choice((0.2, 1.0, 12.0))
            made = one.disturb(DISTURBANCES[disturbance], steps, lasts)
            steps = max(one.least_steps, made)
        one.finish()
    return one.outcome


def report(results: Results, seconds: float) -> str:
    """Return the table: a row for each disturbance, a column for each spool."""
    names = [name for name in NAMES if any(name == b for _, b in results)]
    rows = []
    for disturbance in dict.fromkeys(a for a, _ in results):
        outcomes = [results.get((disturbance, name), Outcome()) for name in names]
        rows.append((disturbance, *map(_cell, outcomes), _cell(_sum(outcomes))))
    totals = [_sum([o for (_, b), o in results.items() if b == name]) for name in names]
    rows.append(("all", *map(_cell, totals), _cell(_sum(totals))))
    when = f"{datetime.now(UTC):%Y-%m-%d}, {seconds / 60:.0f} minutes"
    head = f"{when}; tried / lost / doubled / named `unknown`:\n\n"
    return head + table(("disturbance", *names, "all"), rows)


def _cell(outcome: Outcome) -> str:
    counts = (outcome.tried, outcome.lost, outcome.doubled, outcome.unknown)
    return " / ".join(map(str, counts))


def _sum(outcomes: list[Outcome]) -> Outcome:
    total = Outcome()
    for each in outcomes:
        total.add(each)
    return total


if __name__ == "__main__":
    sys.exit(main())
