"""One target by chance: ``python -m tests.fuzz.chance NAME FOLDER SECONDS``.

What breaks it is written to FOLDER/finding-by-chance.
"""

import random
import sys
import time
from pathlib import Path

from tests.fuzz.target import spoil
from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until the time is up; what the target raises ends the process."""
    target, folder = TARGETS[sys.argv[1]], Path(sys.argv[2])
    work = folder / "work"
    work.mkdir(exist_ok=True)
    run = target.prepare(work)
    draw = random.Random()  # noqa: S311 - chance, not a secret
    end, runs = time.monotonic() + float(sys.argv[3]), 0
    while time.monotonic() < end:
        seed, count = draw.choice(target.seeds), draw.randrange(1, 8)
        changes = [
            (draw.getrandbits(16), draw.getrandbits(16), draw.getrandbits(16))
            for _ in range(count)
        ]
        data = spoil(seed, changes, target.tokens)
        try:
            run(data)
        except BaseException:
            (folder / "finding-by-chance").write_bytes(data)
            raise
        runs += 1
    print(f"{runs} runs")


if __name__ == "__main__":
    main()
