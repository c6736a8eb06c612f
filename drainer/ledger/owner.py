"""Which processes work on a ledger, and whether they are still alive.

An owner holds a lock (flock) on a file of its own while its processes live, the worker
and its writer. After kill -9 the lock is free, so that the next run takes over as soon
as the last commit is done. An owner on another host counts as dead when its lease has
run out.
"""

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
import tenacity
from msgspec import Struct

from drainer.errors import LedgerError, LedgerLost
from drainer.ledger import schema
from drainer.runtime import databases
from drainer.runtime.locks import is_free, lock_private
from drainer.runtime.private_files import (
    make_private_folder,
    open_present,
    remove_private,
)

LEASE = timedelta(minutes=2)
RENEW_EVERY = timedelta(seconds=30)
GIVE_UP_AFTER = 5.0
"""Seconds for which a commit that fails in a file is tried again."""
RECONNECT_FOR = 15.0
"""Seconds for which a database server may be away: it restarts, or fails over."""


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


class Owner(Struct, frozen=True, kw_only=True):
    """This process, as the ledger knows it."""

    id: str
    host: str
    boot: str
    pid: int
    lock: Path
    descriptor: int

    @classmethod
    def acquire(cls, folder: Path) -> "Owner":
        """Take a lock of our own in ``folder``, which is made if need be.

        Raises LedgerError when that is impossible.
        """
        name = uuid.uuid4().hex
        lock = folder / f"{name}.lock"
        with writable(folder):
            make_private_folder(folder)
            descriptor = lock_private(lock, os.O_EXCL)
        return cls(
            id=name,
            host=socket.gethostname(),
            boot=_boot_id(),
            pid=os.getpid(),
            lock=lock,
            descriptor=descriptor,
        )

    def row(self, now: int) -> dict[str, object]:
        """Return the row that announces this owner."""
        return {
            "id": self.id,
            "host": self.host,
            "boot": self.boot,
            "pid": self.pid,
            "lock": str(self.lock),
            "lease": lease_end(now),
        }

    def release(self) -> None:
        """Release the lock and remove its file."""
        with suppress(OSError):  # it only matters that it is not locked any more
            remove_private(self.lock)
        os.close(self.descriptor)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn what prevents making a lock or a reserve into a LedgerError."""
    try:
        yield
    except OSError as error:
        message = f"cannot lock in {folder}: {databases.reason(error)}"
        if databases.is_refused(error):
            hint = "the folder must belong to root or to the service's user"
            raise LedgerError(message, hint=hint) from error
        hint = "make room there; then run the same command again"
        raise LedgerLost(message, hint=hint) from error


def lease_end(now: int) -> int:
    """Return when a lease taken now ends, in microseconds."""
    return now + LEASE // timedelta(microseconds=1)


def dead_owners(connection: sa.Connection, now: int) -> list[str]:
    """Return the ids of the owners that are known to be dead."""
    rows = connection.execute(sa.select(schema.owners)).mappings()
    return [row["id"] for row in rows if _is_dead(row, now)]


def _is_dead(row: sa.RowMapping, now: int) -> bool:
    if row["host"] != socket.gethostname():
        return bool(row["lease"] < now)
    if row["boot"] != _boot_id():
        return True
    return lock_is_free(Path(row["lock"]))


async def wait_for_last_commits(connection: sa.Connection) -> None:
    """Wait until the writers of killed workers on this host have ended too."""
    rows = connection.execute(sa.select(schema.owners)).mappings()
    locks = [Path(row["lock"]) for row in rows if _is_killed(row)]
    ended = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_result(lambda free: not free),
        wait=tenacity.wait_fixed(0.01),
        stop=tenacity.stop_after_delay(RECONNECT_FOR + 1),
        retry_error_callback=lambda _: None,  # then it counts as alive
    )
    await ended(_are_free, locks)


async def _are_free(locks: list[Path]) -> bool:
    return all(map(lock_is_free, locks))


def _is_killed(row: sa.RowMapping) -> bool:
    if row["host"] != socket.gethostname() or row["boot"] != _boot_id():
        return False
    try:
        os.kill(row["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def lock_is_free(lock: Path) -> bool:
    """Return whether no living process holds the lock of an owner."""
    try:
        descriptor = open_present(lock, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return is_free(descriptor)
