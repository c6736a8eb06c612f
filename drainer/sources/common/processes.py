"""Find out whether a server's process works in a directory, by the kernel's /proc.

A process that we may not examine (another user's) counts as absent.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from drainer.errors import UsageError
from drainer.runtime.folders import open_in
from drainer.runtime.locks import is_free

PROC = Path("/proc")


def runs_in(root: str, command: re.Pattern[str]) -> int:
    """Return the number of a process that works in a directory, or 0.

    It works there when its current directory or its root is the directory or below it,
    and ``command`` matches the start of its name.
    """
    found = (p for p in _processes() if _is_named(p, command) and _is_in(p, root))
    return next((int(process.name) for process in found), 0)


def refuse_running(root: str, program: str, place: str) -> None:
    """Raise UsageError when a program works in a directory, its ``place`` for mail."""
    number = runs_in(root, re.compile(program))
    if number:
        message = f"{program} (process {number}) runs on {root}"
        hint = (
            f"stop it first. Draining a copy does not help: {program} sends the same"
            f" mail from its own {place}"
        )
        raise UsageError(message, hint=hint)


def runs_at(root: str, command: re.Pattern[str]) -> bool:
    """Return whether a process has exactly this directory as its current one."""
    return any(works_at(process, root, command) for process in _processes())


def works_at(process: Path, root: str, command: re.Pattern[str]) -> bool:
    """Return whether a process of /proc is one of those that ``runs_at`` finds."""
    with suppress(OSError):
        return _is_named(process, command) and (process / "cwd").samefile(root)
    return False


def is_running(number: int, command: re.Pattern[str]) -> bool:
    """Return whether a process exists and ``command`` matches the start of its name."""
    return _is_named(PROC / str(number), command)


def is_locked(name: str, dir_fd: int, *, by_readers: bool = False) -> bool:
    """Return whether another process has a flock on a file of a directory.

    Tries a shared lock without waiting, and drops it at once. ``by_readers`` also
    detects shared locks, by trying an exclusive one. A file that is absent or may not
    be opened, or where there are no locks, counts as not locked.
    """
    try:
        descriptor = open_in(dir_fd, name, os.O_RDONLY | os.O_NONBLOCK)
        return not is_free(descriptor, shared=not by_readers)
    except OSError:
        return False


def _processes() -> Iterator[Path]:
    own = str(os.getpid())
    with suppress(OSError):
        for name in os.listdir(PROC):  # noqa: PTH208 - names are what is needed
            if name.isdigit() and name != own:
                yield PROC / name


def _is_named(process: Path, command: re.Pattern[str]) -> bool:
    with suppress(OSError):
        name = (process / "comm").read_text(errors="replace").strip()
        return bool(command.match(name))
    return False


def _is_in(process: Path, root: str) -> bool:
    with suppress(OSError):
        for link in ("cwd", "root"):
            place = str((process / link).readlink())
            if place == root or place.startswith(f"{root.rstrip('/')}/"):
                return True
    return False
