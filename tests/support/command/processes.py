"""What processes cost, from /proc: processor time and peak memory."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name: state, parent, group."""
    text = (_PROC / str(pid) / "stat").read_text()
    return text.rpartition(")")[2].split()


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def group(leader: int) -> list[int]:
    """Return the living processes of a process group."""
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if int(_stat(pid)[2]) == leader:
                found.append(pid)
    return found


def tree(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    parents: dict[int, int] = {}
    for pid in _pids():
        with contextlib.suppress(OSError):
            parents[pid] = int(_stat(pid)[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of the children it waited for."""
    return sum(map(int, _stat(pid)[11:15])) / _TICKS


def group_cpu_seconds(leader: int) -> float:
    """Return the processor time of a group, ended children that were waited for too."""
    total = 0.0
    for pid in group(leader):
        with contextlib.suppress(OSError):
            total += cpu_seconds(pid)
    return total


def peak_bytes(pid: int) -> int:
    """Return the most memory that a program has held (VmHWM); 0 when it ended."""
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def proportional_bytes(pid: int) -> int:
    """Return a process's part of the memory in use (Pss); 0 when it ended."""
    with contextlib.suppress(OSError):
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
        return sum(
            int(line.split()[1]) * 1024
            for line in text.splitlines()
            if line.startswith("Pss:")
        )
    return 0


_SLOW = 0.1


class Peaks:
    """Watches a process and its descendants while the block runs.

    A process that lives for less than a period may be missed.
    """

    def __init__(
        self, root: int, *, of_group: bool = False, period: float = 0.02
    ) -> None:
        """Watch the tree below ``root``, or the process group that it leads.

        With a period of a tenth of a second or more what they have ``together`` is
        watched as well: it takes the kernel a while to count.
        """
        self._period = period
        self._root = root
        self._members = group if of_group else tree
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        #: The peak of every process so far.
        self.by_pid: dict[int, int] = {}
        #: The most that all had at a moment; pages that they share count once. Bytes.
        self.together = 0

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._period):
            self.look()

    def look(self) -> None:
        """Note the peaks now."""
        members = self._members(self._root)
        for pid in members:
            with contextlib.suppress(OSError):
                # The last one counts: before its exec a process shows its parent's.
                self.by_pid[pid] = peak_bytes(pid) or self.by_pid.get(pid, 0)
        if self._period >= _SLOW:
            self.together = max(self.together, sum(map(proportional_bytes, members)))
