"""Processes of our own that do one job each: scan, write, export, gather evidence.

A worker process waits for its job on a socket, its standard input, and does it; when
the other end closes before, it ends. Forked from a command that has just loaded its
modules it costs nothing to start. Threads and open databases do not survive a fork. So
later another process forks it (drainer.runtime.forkserver): that process has loaded the
modules too, opens nothing, and ends when this one does.
"""

import atexit
import importlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NoReturn

from drainer.errors import DrainerError
from drainer.runtime.frames import HEAD, frame_pickle, pickle_reader, receive
from drainer.runtime.host_limits import limit_behind, no_process
from drainer.runtime.process import (
    clean_environment,
    leave_signals_to_parent,
    tune_gc,
)

JOBS = {
    "scan": "drainer.delivery.scanner",
    "write": "drainer.ledger.writer.process",
    "export": "drainer.telemetry.worker",
    "evidence": "drainer.bounce.evidence.worker",
}
"""The module of each job: its ``serve(link, order, descriptors)`` does it."""
PRELOADED = ("scan", "write", "export")
"""The jobs of every drain: the fork server loads their modules in advance."""

_OUTPUTS = (1, 2)
_REPORT = 3
_NUMBER = struct.Struct(">i")
"""What a worker process reports: the process, and at its end the exit status."""
_MAX_DESCRIPTORS = 4
_fresh: set[int] = set()
"""Processes that may fork: SQLite, for one, breaks when it is open meanwhile."""
_fork_servers: list["ForkServer"] = []
_one_at_a_time = threading.Lock()


class WorkerProcess:
    """One worker process, as the process sees it that started it."""

    def __init__(self, pid: int, link: socket.socket, report: int) -> None:
        """Hold what ``start`` made; the process writes its status to ``report``."""
        self.pid = pid
        #: Our end of its standard input; closing it makes it end.
        self.link = link
        self._report = report
        self._process = os.pidfd_open(pid)
        self._status: int | None = None

    def begin(
        self, job: str, order: object, descriptors: Sequence[int] = ()
    ) -> socket.socket:
        """Send it its job, once; return the link that the job uses.

        It gets copies of the descriptors, and ``order`` by pickle. When it has died the
        link has only its end, as when it dies later.
        """
        with suppress(BrokenPipeError, ConnectionResetError):
            send_order(self.link, (job, order), descriptors)
        return self.link

    def kill(self) -> None:
        """End it at once; ``wait`` must still be called."""
        if self._status is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit status, or -SIGKILL for any signal.

        After ``timeout`` seconds it is killed if it has not ended.
        """
        if self._status is None:
            looking = select.poll()  # select(2) refuses descriptors from 1024 on
            looking.register(self._process, select.POLLIN)
            if not looking.poll(None if timeout is None else timeout * 1000):
                self.kill()
                looking.poll()
            with suppress(ChildProcessError):  # not ours: a fork server forked it
                os.waitid(os.P_PIDFD, self._process, os.WEXITED)
            status = _number(self._report)
            self._status = -signal.SIGKILL if status is None else status
            os.close(self._process)
            os.close(self._report)
        return self._status

    def end(self) -> None:
        """Kill it, if it has not ended, and wait."""
        self.kill()
        self.link.close()
        self.wait()


class ForkServer:
    """The process that forks worker processes, as its parent sees it."""

    def __init__(self) -> None:
        """Start it; it ends with this process."""
        self._link, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # never import from the current folder, which any user may control
                [sys.executable, "-P", "-m", "drainer.runtime.forkserver"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=clean_environment(),
                start_new_session=True,  # Ctrl-C is for the drain
            )
        atexit.register(self.close)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it can fork."""
        return self._process.poll() is None

    def spawn(self) -> WorkerProcess:
        """Return a new worker process, with the current environment, folder, outputs.

        Raises OSError when the fork server has died.
        """

        def launch(descriptors: Sequence[int]) -> None:
            order = clean_environment(), _current_folder()
            send_order(self._link, order, descriptors)

        return _make(launch)

    def close(self) -> None:
        """Let it end; its worker processes have ends of their own."""
        self._link.close()
        self._process.wait()


def _make(launch: Callable[[Sequence[int]], None]) -> WorkerProcess:
    """Return a worker process; ``launch`` gets what its descriptors 0 to 3 shall be.

    Raises OSError when there is none.
    """
    with ExitStack() as undoing:
        report, theirs = os.pipe()
        undoing.callback(os.close, report)
        with os.fdopen(theirs, "wb"):
            ours, link = socket.socketpair()
            undoing.callback(ours.close)
            with link:
                launch((link.fileno(), *_OUTPUTS, theirs))
        pid = _number(report)
        if pid is None:
            raise BrokenPipeError
        os.set_blocking(report, False)  # what the process leaves behind may have it
        worker = WorkerProcess(pid, ours, report)
        undoing.pop_all()
    return worker


def _current_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - text, to be sent
    except FileNotFoundError:
        return "/"


def _number(report: int) -> int | None:
    """Return the next number that a worker process reports; None if there is none."""
    try:
        data = os.read(report, _NUMBER.size)
    except BlockingIOError:
        return None
    return int(_NUMBER.unpack(data)[0]) if data else None


def start() -> WorkerProcess:
    """Start a worker process that waits for its job; HostLimit if impossible."""
    with _one_at_a_time, _explaining():
        if not _fork_servers or not _fork_servers[-1].lives:
            _fork_servers.append(ForkServer())
        return _fork_servers[-1].spawn()


@contextmanager
def _explaining() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise limit_behind(error) or no_process(error) from error


def mark_forkable() -> None:
    """State that this process has just started, and has opened nothing yet."""
    _fresh.add(os.getpid())


def fork() -> WorkerProcess:
    """Fork a worker process where that was allowed; else start one. Raise HostLimit."""
    if os.getpid() not in _fresh or threading.active_count() > 1:
        return start()

    def launch(descriptors: Sequence[int]) -> None:
        if os.fork() == 0:
            run_child(descriptors, clean_environment())

    with _explaining():
        return _make(launch)


def run_child(descriptors: Sequence[int], environment: dict[str, str]) -> NoReturn:
    """Be a worker process, and nothing of what the parent was; never return.

    The descriptors are its link, its outputs, and where it reports its number at the
    start and its exit status at the end.
    """
    status = 1
    try:
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        os.closerange(len(descriptors), os.sysconf("SC_OPEN_MAX"))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment)
        _report(os.getpid())
        status = main()
    except DrainerError as error:
        print(f"drainer: {error}; {error.hint}", file=sys.stderr)  # noqa: T201
    except BaseException as error:  # noqa: BLE001 - the parent's code must not run here
        limit = limit_behind(error)
        if limit is None:
            traceback.print_exc()
        else:
            print(f"drainer: {limit}; {limit.hint}", file=sys.stderr)  # noqa: T201
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        _report(status)
        os._exit(status)


def _report(number: int) -> None:
    """Send the parent a number. If it has ended, its link says so next."""
    with suppress(OSError):
        os.write(_REPORT, _NUMBER.pack(number))


def main() -> int:
    """Wait for a job, and do it."""
    tune_gc()
    leave_signals_to_parent()
    with socket.socket(fileno=0) as link:
        received = receive_order(link)
        if received is None:
            return 0  # there was none
        (job, order), descriptors = received
        serve = importlib.import_module(JOBS[job]).serve
        status: int = serve(link, order, descriptors)
        return status


def send_order(
    link: socket.socket, order: object, descriptors: Sequence[int] = ()
) -> None:
    """Send an order by pickle, with copies of the descriptors. Raise OSError."""
    data = frame_pickle(order)
    sent = socket.send_fds(link, [data], list(descriptors))
    if sent < len(data):  # sending nothing fails, too, once the other side has ended
        link.sendall(data[sent:])


def receive_order(link: socket.socket) -> tuple[Any, list[int]] | None:
    """Return the next order and its descriptors; None at the end of the link."""
    head, descriptors, _, _ = socket.recv_fds(link, HEAD.size, _MAX_DESCRIPTORS)
    if not head:
        return None
    return receive(link, pickle_reader(), head), descriptors
