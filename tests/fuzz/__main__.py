"""Fuzz every target, or those whose names hold a word: ``make fuzz SECONDS=3600``.

With atheris (an extra: ``pip install -e '.[fuzz]'``) inputs are chosen by the code
that they reach, and kept from run to run; without it they are drawn by chance. What
is found stands in a file of its own, and the command ends with status 1.
"""

import argparse
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.fuzz.targets import TARGETS

FOLDER: Final = Path(".fuzz")
GRACE: Final = 60
"""Seconds that a target may take longer than it should, to start and to end."""


def main() -> int:
    """Give each target its share of the time; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("words", nargs="*", help="only targets that hold one of these")
    parser.add_argument("--seconds", type=int, default=300, help="for all of them")
    asked = parser.parse_args()
    words = asked.words or [""]
    chosen = [name for name in TARGETS if any(word in name for word in words)]
    if not chosen:
        parser.error(f"no such target; there are: {', '.join(TARGETS)}")
    guided = importlib.util.find_spec("atheris") is not None
    share = max(1, asked.seconds // len(chosen))
    way = "guided by coverage" if guided else "by chance: there is no atheris"
    print(f"{len(chosen)} targets, {share} s each, {way}", flush=True)
    found = [name for name in chosen if not fuzzed(name, share, guided=guided)]
    print(f"{len(found)} with findings" + "".join(f"\n  {name}" for name in found))
    return 1 if found else 0


def fuzzed(name: str, seconds: int, *, guided: bool) -> bool:
    """Fuzz one target in a process of its own; False, and its words, for a finding."""
    folder = FOLDER / name.replace("/", "_").replace(" ", "_").replace("*", "x")
    folder.mkdir(parents=True, exist_ok=True)
    module = "tests.fuzz.guided" if guided else "tests.fuzz.chance"
    command = [sys.executable, "-m", module, name, str(folder), str(seconds)]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds + GRACE,
        )
        output, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output, status = (error.stdout or b"") + b"\nit did not end", 1
    finally:
        shutil.rmtree(folder / "work", ignore_errors=True)
    text = output.decode(errors="backslashreplace")
    last = next((x for x in reversed(text.splitlines()) if "runs" in x), "")
    print(f"{'ok' if status == 0 else 'FOUND':6} {name}: {last}", flush=True)
    if status:
        print(text[-4000:])
    return status == 0


if __name__ == "__main__":
    sys.exit(main())
