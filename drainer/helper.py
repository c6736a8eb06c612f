"""Processes of our own that do one job each: scan, write the ledger, export traces.

A helper waits to be told its job on a socket, its standard input, and does it; when
the other end closes before, it ends. Forked from a command that has just loaded its
modules it costs nothing to start. Threads and databases that are open do not survive
a fork, so that later it is an interpreter of its own, which loads them again.
"""

import importlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from drainer.process import (
    HEAD,
    child_environment,
    framed,
    leave_signals_to_parent,
    rarely_collect,
)

JOBS = {
    "scan": "drainer.scanning",
    "write": "drainer.ledger.writing",
    "export": "drainer.observe.exporting",
}
"""The module of each job: its ``serve(link, order, descriptors)`` does it."""

_MAX_DESCRIPTORS = 4
_fresh: set[int] = set()
"""Processes that may fork: SQLite, for one, breaks when it is open meanwhile."""


class Helper:
    """One helper, as its parent sees it."""

    def __init__(self, pid: int, link: socket.socket, wait: Callable[[], int]) -> None:
        """Hold what ``start`` made; ``wait`` waits for its end, and blocks."""
        self.pid = pid
        #: Our end of its standard input; closing it tells it to end.
        self.link = link
        self._wait = wait
        self._status: int | None = None

    def begin(
        self, job: str, order: object, descriptors: Sequence[int] = ()
    ) -> socket.socket:
        """Tell it its job, once; return the link, on which the job speaks.

        It gets copies of the descriptors, and ``order`` by pickle.
        """
        frame = framed((job, order))
        sent = socket.send_fds(self.link, [frame], list(descriptors))
        if sent < len(frame):
            self.link.sendall(frame[sent:])
        return self.link

    def kill(self) -> None:
        """End it at once; ``wait`` is still to be called."""
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit status, or minus the signal.

        It is killed when it has not ended after ``timeout`` seconds.
        """
        if self._status is None:
            descriptor = os.pidfd_open(self.pid)
            if not select.select([descriptor], [], [], timeout)[0]:
                self.kill()
            os.close(descriptor)
            self._status = self._wait()
        return self._status

    def end(self) -> None:
        """Kill it, if it has not ended, and wait."""
        self.kill()
        self.link.close()
        self.wait()


def start() -> Helper:
    """Start a helper that waits for its job."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            # never import from the current folder, which may be anybody's
            [sys.executable, "-P", "-m", "drainer.helper"],
            stdin=theirs.fileno(),
            env=child_environment(),
            start_new_session=True,  # Ctrl-C is for the drain
        )
        return Helper(process.pid, ours, process.wait)


def allow_fork() -> None:
    """Say that this process has just begun, and has opened nothing yet."""
    _fresh.add(os.getpid())


def fork() -> Helper:
    """Fork a helper where that was allowed; else start one."""
    if os.getpid() not in _fresh or threading.active_count() > 1:
        return start()
    ours, theirs = socket.socketpair()
    with theirs:
        pid = os.fork()
        if pid == 0:
            _become(theirs)

    def wait() -> int:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return Helper(pid, ours, wait)


def _become(link: socket.socket) -> NoReturn:
    """Be a helper, and nothing of what the parent was; never return."""
    status = 1
    try:
        os.setsid()
        os.dup2(link.fileno(), 0)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        for name in set(os.environ) - set(child_environment()):
            del os.environ[name]
        status = main()
    except BaseException:  # noqa: BLE001 - nothing of the parent may run on here
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


def main() -> int:
    """Wait for a job, and do it."""
    rarely_collect()
    leave_signals_to_parent()
    with socket.socket(fileno=0) as link:
        head, descriptors, _, _ = socket.recv_fds(link, HEAD.size, _MAX_DESCRIPTORS)
        if not head:
            return 0  # there was none
        head += _exactly(link, HEAD.size - len(head))
        body = _exactly(link, HEAD.unpack(head)[0])
        job, order = pickle.loads(body)  # noqa: S301 - from our parent
        serve = importlib.import_module(JOBS[job]).serve
        status: int = serve(link, order, descriptors)
        return status


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


if __name__ == "__main__":
    sys.exit(main())
