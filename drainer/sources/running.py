"""Whether a server's process is at work in a directory, by the kernel's /proc.

What may not be looked at (another user's process) counts as not being there.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


def runs_in(root: str, command: re.Pattern[str]) -> int:
    """Return the number of a process that works in a directory, or 0.

    It works there when its current directory or its root is the directory or
    lies in it, and ``command`` matches the beginning of its name.
    """
    for process in _processes():
        try:
            name = (process / "comm").read_text(errors="replace").strip()
            if command.match(name) and _stands_in(process, root):
                return int(process.name)
        except OSError:
            continue
    return 0


def names_in_command(path: str, command: re.Pattern[str]) -> int:
    """Return the number of a process that was started with a path, or 0.

    ``command`` is searched in the whole command line.
    """
    for process in _processes():
        try:
            line = (process / "cmdline").read_bytes()
            words = os.fsdecode(line).split("\0")
            if not command.search(" ".join(words)):
                continue
            if any(_is_same(process, word, path) for word in words if word):
                return int(process.name)
        except OSError:
            continue
    return 0


def _processes() -> Iterator[Path]:
    own = str(os.getpid())
    for name in os.listdir(_PROC):  # noqa: PTH208 - names are what is needed
        if name.isdigit() and name != own:
            yield _PROC / name


def _stands_in(process: Path, root: str) -> bool:
    for link in ("cwd", "root"):
        place = str((process / link).readlink())
        if place == root or place.startswith(f"{root.rstrip('/')}/"):
            return True
    return False


def _is_same(process: Path, word: str, path: str) -> bool:
    return os.path.realpath((process / "cwd").readlink() / word) == path
