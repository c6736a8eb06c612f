"""What tests of other users' folders share: a place open to all, and an attacker.

The attacker has a user id that belongs to no account and no other right. What it does
in a test is done by a process of its own, or laid out by root as its work.
"""

import ctypes
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

ATTACKER: Final = 12345
OTHER: Final = 23456
SECRET: Final = b"root:hash\n"

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can act on behalf of another user"
)

_EXCHANGE: Final = 2
"""RENAME_EXCHANGE of renameat2(2)."""


@contextmanager
def open_place() -> Iterator[Path]:
    """Give an empty folder of root that every user can enter."""
    with tempfile.TemporaryDirectory(prefix="drainer-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def folder_of(path: Path, owner: int = ATTACKER) -> Path:
    """Make a folder that belongs to a user."""
    path.mkdir(parents=True)
    os.chown(path, owner, owner)
    return path


def give(path: Path, owner: int = ATTACKER) -> None:
    """Let everything below a path belong to a user, links themselves too."""
    for each in (path, *path.rglob("*")):
        os.chown(each, owner, owner, follow_symlinks=False)


def secret_of(path: Path) -> Path:
    """Make a file that only root can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


def link(path: Path, target: Path, owner: int = ATTACKER) -> Path:
    """Make a symbolic link of a user."""
    path.symlink_to(target)
    os.chown(path, owner, owner, follow_symlinks=False)
    return path


def owners(path: Path) -> set[tuple[int, int]]:
    """Return who owns what is below a path, the path itself included."""
    found = (os.lstat(each) for each in (path, *path.rglob("*")))
    return {(each.st_uid, each.st_gid) for each in found}


@contextmanager
def racing(folder: Path, one: str, two: str) -> Iterator[None]:
    """Let the attacker exchange two names of its folder as fast as it can."""
    reading, writing = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # other threads are idle
        child = os.fork()
    if child == 0:
        try:
            _become(ATTACKER)
            _exchange(folder, one, two, writing)
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 1) == b"."
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def _become(user: int) -> None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def _exchange(folder: Path, one: str, two: str, ready: int) -> None:
    libc, place = ctypes.CDLL(None), os.open(folder, os.O_RDONLY)
    names = os.fsencode(one), os.fsencode(two)
    os.write(ready, b".")
    while True:
        libc.renameat2(place, names[0], place, names[1], _EXCHANGE)


def as_user(look: Callable[[], str], user: int = ATTACKER) -> str:
    """Return what a function finds in a process of another user."""
    reading, writing = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # other threads are idle
        child = os.fork()
    if child == 0:
        try:
            _become(user)
            try:
                text = look()
            except BaseException as error:  # noqa: BLE001 - the parent gets to see it
                text = repr(error)
            os.write(writing, text.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def file_system_user() -> tuple[int, int]:
    """Return the user and group ids that this thread uses files with."""
    libc, ask = ctypes.CDLL(None), ctypes.c_uint(2**32 - 1)
    return libc.setfsuid(ask), libc.setfsgid(ask)
