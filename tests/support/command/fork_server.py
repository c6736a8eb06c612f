"""Processes of the command that start in an instant.

``start`` gives a process like any other: tests kill it, send it signals, read what it
prints. But it is forked from one that has loaded the modules of every command, which
takes most of the time of a start. What measures memory or processor time, or needs
another user or interpreter, starts ``python -m drainer`` itself.
"""

import atexit
import functools
import importlib
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from drainer import cli
from drainer.runtime.workers import JOBS
from tests.support.paths import ROOT

#: As the installed command: the current folder is not a place of modules.
COMMAND: Final = (sys.executable, "-P", "-m", "drainer")
_NUMBER: Final = struct.Struct("i")
#: More than the server ever has.
_DESCRIPTORS: Final = 1024
#: Of these each process may have its own; others are read when modules are loaded.
_OWN: Final = ("DRAINER_", "PYTEST_", "XDG_", "TMPDIR")


def start(
    arguments: Sequence[object],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    fresh: bool = False,
    **options: Any,
) -> "subprocess.Popen[Any]":
    """Start the command; the options are those of Popen.

    ``fresh``: as an interpreter of its own, for its costs or its command line. So is
    every command that is not of a test: benchmarks count the start.
    """
    environment = dict(os.environ if env is None else env)
    kind = subprocess.Popen
    fresh = fresh or "PYTEST_CURRENT_TEST" not in os.environ
    if not fresh and options.keys() <= {
        "stdin",
        "stdout",
        "stderr",
        "text",
        "process_group",
    }:
        kind = _Forked if _shared(environment) == _server().shared else kind
    command = [*COMMAND, *map(str, arguments)]
    return kind(command, env=environment, cwd=cwd or Path.cwd(), **options)


def _shared(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what must be the same in the server."""
    return {k: v for k, v in environment.items() if not k.startswith(_OWN)}


class _Server:
    """The process that forks, as its parent sees it."""

    def __init__(self) -> None:
        """Start it; it ends with this process."""
        self.shared = _shared(os.environ)
        self._one_at_a_time = threading.Lock()
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=ROOT,
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,  # as commands have: no terminal, no file
                env=self.shared,
                start_new_session=True,
            )
        atexit.register(self.close)

    def fork(self, order: Sequence[object], descriptors: Sequence[int]) -> int:
        """Fork a process; return its number."""
        with self._one_at_a_time:
            socket.send_fds(self._link, [json.dumps(order).encode()], descriptors)
            return int(_NUMBER.unpack(self._link.recv(_NUMBER.size))[0])

    def close(self) -> None:
        """End it; what it has forked goes on."""
        self._link.close()
        self._process.communicate()


@functools.cache
def _server() -> _Server:
    return _Server()


class _Forked(subprocess.Popen[Any]):
    """A process that the server forked, and whose end the server reports."""

    def _execute_child(self, arguments: Sequence[str], *given: Any) -> None:
        """Take the place of fork and exec, for which Popen has made the pipes."""
        cwd, environment, group = given[4], given[5], given[-1]
        pipes = given[9:15]
        wanted = ((pipes[0], 0), (pipes[3], 1), (pipes[5], 2))
        streams = [usual if own == -1 else own for own, usual in wanted]
        self._report, theirs = os.pipe()
        order = (arguments[len(COMMAND) :], str(cwd), environment, group)
        self.pid = _server().fork(order, (*streams, theirs))
        self._child_created = True
        os.close(theirs)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, flags: int) -> tuple[int, int]:
        """Take the place of waitpid: it is the server's child."""
        looking = select.poll()
        looking.register(self._report, select.POLLIN)
        if not looking.poll(0 if flags & os.WNOHANG else None):
            return 0, 0
        (status,) = _NUMBER.unpack(os.read(self._report, _NUMBER.size))
        os.close(self._report)
        return self.pid, status

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        """Say whether it has ended, without waiting."""
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


# ---- in the server


def _become(order: Sequence[Any], descriptors: Sequence[int]) -> None:
    """Be a process of the command: its streams, folder, environment, arguments."""
    arguments, folder, environment, group = order
    for number, each in enumerate(descriptors[:3]):
        os.dup2(each, number)
    os.closerange(3, _DESCRIPTORS)
    if group is not None and group != -1:
        os.setpgid(0, group)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    random.seed()
    sys.argv = ["drainer", *arguments]
    del sys.path[0]


def _serve(link: socket.socket) -> bool:
    """Fork a process for each order; True in such a process, False at the end."""
    looking = select.poll()
    looking.register(link, select.POLLIN)
    reports: dict[int, tuple[int, int]] = {}
    while True:
        for descriptor, _ in looking.poll():
            if descriptor != link.fileno():
                looking.unregister(descriptor)
                _report(descriptor, *reports.pop(descriptor))
                continue
            data, descriptors, _, _ = socket.recv_fds(link, 1 << 20, 4)
            if not data:
                return False
            pid = os.fork()
            if pid == 0:
                link.detach()
                _become(json.loads(data), descriptors)
                return True
            link.send(_NUMBER.pack(pid))
            process = os.pidfd_open(pid)
            reports[process] = pid, descriptors[3]
            looking.register(process, select.POLLIN)
            for each in descriptors[:3]:
                os.close(each)


def _report(process: int, pid: int, report: int) -> None:
    """Write how a process ended to the one that waits for it."""
    _, status = os.waitpid(pid, 0)
    os.close(process)
    with suppress(BrokenPipeError):
        os.write(report, _NUMBER.pack(status))
    os.close(report)


def main() -> None:
    """Load what commands load; then fork."""
    commands = {f"drainer.cli.{each.module}" for each in cli.COMMANDS.values()}
    for name in (*commands, *JOBS.values()):
        importlib.import_module(name)
    with socket.socket(fileno=0) as link:
        is_command = _serve(link)
    if is_command:
        cli.main()


if __name__ == "__main__":
    main()
