"""What disturbs a drain: each is a context, entered when it strikes, left when over."""

import errno
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.soak.faults import Faults
from tests.soak.spools import Spool, lock_ledger_of
from tests.support.command.processes import tree
from tests.support.disk import Disk

if TYPE_CHECKING:
    import subprocess

HOUR: Final = 3600


@dataclass(frozen=True, slots=True)
class Target:
    """A drain that runs, and what it stands on."""

    process: "subprocess.Popen[str]"
    spool: Spool
    ledger: Path
    disk: Disk
    faults: Faults
    dice: random.Random


Disturbance = Callable[[Target], AbstractContextManager[None]]


@contextmanager
def kill(target: Target) -> Iterator[None]:
    """Kill the command."""
    target.process.send_signal(signal.SIGKILL)
    yield


@contextmanager
def kill_child(target: Target) -> Iterator[None]:
    """Kill one of its processes, as the kernel does for want of memory."""
    with suppress(ProcessLookupError):
        os.kill(target.dice.choice(tree(target.process.pid)), signal.SIGKILL)
    yield


@contextmanager
def terminate(target: Target) -> Iterator[None]:
    """Ask it to end, once or twice."""
    for _ in range(target.dice.randint(1, 2)):
        target.process.send_signal(signal.SIGTERM)
    yield


@contextmanager
def fill_disk(target: Target) -> Iterator[None]:
    """Leave no byte on its disk."""
    target.disk.fill(target.process)
    try:
        yield
    finally:
        target.disk.free()


@contextmanager
def lock_ledger(target: Target) -> Iterator[None]:
    """Hold the lock of its ledger."""
    with lock_ledger_of(target.ledger, target.spool.ledger):
        yield


def _failure(begin: Callable[[Faults], None]) -> Disturbance:
    @contextmanager
    def disturbance(target: Target) -> Iterator[None]:
        begin(target.faults)
        try:
            yield
        finally:
            target.faults.clear()

    return disturbance


def _limit_all(
    process: int, limit: int, value: Callable[[int], int] | None = None
) -> None:
    """Set a limit of every process; without a value, to the most it may have.

    Some limit themselves for good, and stay below what is meant for the others.
    """
    for pid in tree(process):
        with suppress(OSError, ValueError):
            hard = resource.prlimit(pid, limit)[1]
            resource.prlimit(pid, limit, (value(pid) if value else hard, hard))


@contextmanager
def take_descriptors(target: Target) -> Iterator[None]:
    """Leave its processes no free descriptor, or one or two."""
    free = target.dice.randint(0, 2)

    def highest(pid: int) -> int:
        names = [int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()]
        return max(names, default=0) + 1 + free

    _limit_all(target.process.pid, resource.RLIMIT_NOFILE, highest)
    yield
    _limit_all(target.process.pid, resource.RLIMIT_NOFILE)


@contextmanager
def take_memory(target: Target) -> Iterator[None]:
    """Leave its processes no more memory than they have, and a little."""
    more = target.dice.choice((0, 1 << 20, 1 << 23))

    def size(pid: int) -> int:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        return pages * resource.getpagesize() + more

    _limit_all(target.process.pid, resource.RLIMIT_AS, size)
    yield
    _limit_all(target.process.pid, resource.RLIMIT_AS)


DISTURBANCES: Final[Mapping[str, Disturbance]] = {
    "SIGKILL": kill,
    "SIGKILL of one of its processes": kill_child,
    "SIGTERM": terminate,
    "disk full": fill_disk,
    "read-only file system": _failure(lambda faults: faults.fail_write(errno.EROFS)),
    "ledger locked": lock_ledger,
    "I/O error on read": _failure(Faults.fail_read),
    "I/O error on fsync": _failure(Faults.fail_sync),
    "clock an hour ahead": _failure(lambda faults: faults.shift_clock(HOUR)),
    "clock an hour back": _failure(lambda faults: faults.shift_clock(-HOUR)),
    "out of descriptors": take_descriptors,
    "out of memory": take_memory,
}
