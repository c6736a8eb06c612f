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


def is_running(number: int, command: re.Pattern[str]) -> bool:
    """Tell whether a process exists and ``command`` matches the begin of its name."""
    try:
        name = (_PROC / str(number) / "comm").read_text(errors="replace")
    except OSError:
        return False
    return bool(command.match(name))


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
