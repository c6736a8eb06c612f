"""Locks of files: between processes, with patience, on private files only."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path
from stat import S_IMODE

import pytest

from drainer.runtime.locks import is_current, is_free, lock_private, try_lock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the name of a lock in a private folder."""
    return tmp_path / "some.lock"


def open_descriptors() -> set[str]:
    """Return the descriptors of this process."""
    return {each.name for each in Path("/proc/self/fd").iterdir()}


def test_one_holds_the_lock_and_a_file_of_it_is_private(path: Path) -> None:
    """The second one learns at once that it is locked, and keeps nothing open."""
    descriptor = lock_private(path)
    assert S_IMODE(path.stat().st_mode) == 0o600
    before = open_descriptors()
    with pytest.raises(BlockingIOError) as raised:
        lock_private(path)
    assert raised.value.errno == errno.EWOULDBLOCK
    assert str(path) in str(raised.value)
    assert open_descriptors() == before
    os.close(descriptor)
    os.close(lock_private(path))


def test_patience_waits_for_the_other(path: Path) -> None:
    """The lock is taken as soon as it is free."""
    descriptor = lock_private(path)
    threading.Timer(0.2, os.close, (descriptor,)).start()
    os.close(lock_private(path, patience=10))


def test_patience_ends(path: Path) -> None:
    """After this time the other one counts as its owner."""
    descriptor = lock_private(path)
    with pytest.raises(BlockingIOError):
        lock_private(path, patience=0.1)
    os.close(descriptor)


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    """Its target is neither made nor locked."""
    path.symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=r"symbolic links|not a regular file"):
        lock_private(path)
    assert not (tmp_path / "target").exists()


def test_a_lock_of_its_own_must_be_new(path: Path) -> None:
    """With O_EXCL a file that is there is refused."""
    path.touch()
    with pytest.raises(FileExistsError):
        lock_private(path, os.O_EXCL)


@pytest.mark.parametrize("name", ["flock", "lockf"])
@pytest.mark.parametrize("held", [fcntl.LOCK_SH, fcntl.LOCK_EX])
@pytest.mark.parametrize("wanted", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_shared_locks_exclude_only_exclusive_ones(
    path: Path, name: str, held: int, wanted: int
) -> None:
    """Whichever call the other program uses; a killed one has no lock any more."""
    call, shared = getattr(fcntl, name), wanted == fcntl.LOCK_SH
    code = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+')\n"
        f"fcntl.{name}(file, {held})\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    path.touch()
    other = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with other, path.open("r+b") as file:
        assert other.stdout is not None
        assert other.stdout.readline()
        is_possible = held == wanted == fcntl.LOCK_SH
        assert try_lock(file.fileno(), shared=shared, call=call) is is_possible
        other.kill()
        other.wait()
        assert try_lock(file.fileno(), shared=shared, call=call)


def test_a_file_that_is_free_is_not_locked_afterwards(path: Path) -> None:
    """Even if a process that was forked meanwhile has the file open too."""
    path.touch()
    descriptor = os.open(path, os.O_RDWR)
    copy = os.dup(descriptor)
    assert is_free(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    locked = lock_private(path)
    assert not is_free(os.open(path, os.O_RDONLY), shared=True)
    os.close(copy)
    os.close(locked)


def test_a_name_is_current_until_the_file_is_replaced_or_removed(path: Path) -> None:
    """A lock on the former file excludes no process that opens the name."""
    descriptor = lock_private(path)
    assert is_current(descriptor, path)
    path.rename(path.with_suffix(".old"))
    assert not is_current(descriptor, path)
    path.touch()
    assert not is_current(descriptor, path)
    os.close(descriptor)
