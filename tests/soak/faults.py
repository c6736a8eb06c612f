"""Errors of the kernel and jumps of the clock, for the processes of a drain alone.

``faults.c`` is compiled when it is needed and loaded into them; a file that they share
says what fails, and below which folders. Nothing of drainer is replaced: it gets the
answers that a bad disk, a read-only file system or a wrong clock gives.
"""

import errno
import mmap
import shutil
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("faults.c")
_NUMBERS: Final = struct.Struct("6i")
_SHIFT: Final = struct.Struct("q")
_PLACE_BYTES: Final = 1024
_SIZE: Final = _NUMBERS.size + _SHIFT.size + 2 * _PLACE_BYTES
_SYNC, _READ, _WRITE, _STEPS, _STOP_AT, _WAITS = range(0, 24, 4)
_INT: Final = struct.Struct("i")


def missing_reason() -> str | None:
    """Say why no fault can be made here; None when one can."""
    return None if shutil.which("cc") else "there is no C compiler (cc)"


def compile_faults(folder: Path) -> Path:
    """Compile the library into a folder; return its path."""
    library = folder / "faults.so"
    command = ("cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE))
    subprocess.run(command, check=True)
    return library


class Faults:
    """What fails for the processes that were started with ``environment``."""

    def __init__(self, library: Path, control: Path, *places: Path) -> None:
        """Make the control file; errors are for what is below one or two places."""
        control.write_bytes(bytes(_SIZE))
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        for number, place in enumerate(places):
            data = str(place).encode()
            at = _NUMBERS.size + _SHIFT.size + number * _PLACE_BYTES
            self._map[at : at + len(data)] = data
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "SOAK_CONTROL": str(control),
        }

    def _set(self, at: int, value: int) -> None:
        _INT.pack_into(self._map, at, value)

    def _get(self, at: int) -> int:
        return int(_INT.unpack_from(self._map, at)[0])

    def fail_sync(self) -> None:
        """Let fsync and fdatasync fail, as on a bad disk."""
        self._set(_SYNC, errno.EIO)

    def fail_read(self) -> None:
        """Let reads fail, of files and of directories, as on a bad disk."""
        self._set(_READ, errno.EIO)

    def fail_write(self, number: int) -> None:
        """Let every change fail: EROFS is a file system that became read-only."""
        self._set(_WRITE, number)

    def shift_clock(self, seconds: int) -> None:
        """Let the clock jump."""
        _SHIFT.pack_into(self._map, _NUMBERS.size, seconds)

    def clear(self) -> None:
        """Let everything work again."""
        for at in (_SYNC, _READ, _WRITE):
            self._set(at, 0)
        self.shift_clock(0)

    # ---- durable steps

    @property
    def steps(self) -> int:
        """How many durable steps there were: fsync, rename, link, unlink."""
        return self._get(_STEPS)

    def stop_at(self, step: int) -> None:
        """Count the steps again, and stop the process that makes this one; 0: none."""
        self._set(_STEPS, 0)
        self._set(_WAITS, 0)
        self._set(_STOP_AT, step)

    @property
    def is_stopped(self) -> bool:
        """Whether a process waits before its durable step."""
        return bool(self._get(_WAITS))

    def go_on(self) -> None:
        """Let it make its step."""
        self._set(_WAITS, 0)

    def wait_stopped(self, process: "subprocess.Popen[str]", timeout: float) -> bool:
        """Wait for that step; False when the process ended before."""
        end = time.monotonic() + timeout
        while not self.is_stopped:
            if process.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True
