"""Forks worker processes for a process that may not: with threads, or an open ledger.

It has loaded the modules of a drain's jobs and opened nothing. Each order brings what
the worker process gets: its link, where its end is reported, standard output and error,
and as a value the environment and the current folder.
"""

import importlib
import os
import select
import socket
import sys
from contextlib import suppress

from drainer.runtime.host_limits import limit_behind
from drainer.runtime.process import leave_signals_to_parent, tune_gc
from drainer.runtime.workers import JOBS, NUMBER, PRELOADED, receive_order, run_child


def spawn(link: socket.socket, living: dict[int, int]) -> bool:
    """Fork one worker process and record it; return False when no order comes."""
    received = receive_order(link)
    if received is None:
        return False
    (environment, folder), (theirs, told, *outputs) = received
    with suppress(OSError):
        os.chdir(folder)
    try:
        pid = os.fork()
    except OSError:  # the parent finds out when `told` closes without a number
        os.close(told)
    else:
        if pid == 0:
            run_child(theirs, outputs, environment)
        os.write(told, NUMBER.pack(pid))
        living[os.pidfd_open(pid)] = told
    for descriptor in (theirs, *outputs):
        os.close(descriptor)
    return True


def reap(ended: int, told: int) -> None:
    """Report how a worker process ended, if its parent still listens."""
    found = os.waitid(os.P_PIDFD, ended, os.WEXITED)
    assert found is not None  # noqa: S101 - it has ended
    killed = found.si_code != os.CLD_EXITED
    with suppress(BrokenPipeError):
        os.write(told, NUMBER.pack(-found.si_status if killed else found.si_status))
    os.close(told)
    os.close(ended)


def main() -> int:
    """Fork worker processes until the parent has ended."""
    leave_signals_to_parent()
    try:
        for job in PRELOADED:
            importlib.import_module(JOBS[job])
    except (ImportError, MemoryError, OSError) as error:
        limit = limit_behind(error)
        if limit is None:
            raise
        print(f"drainer: {limit}; {limit.hint}", file=sys.stderr)  # noqa: T201
        return 1
    tune_gc()
    living: dict[int, int] = {}
    with socket.socket(fileno=0) as link:
        while True:
            ready, _, _ = select.select([link.fileno(), *living], [], [])
            for each in ready:
                if each in living:
                    reap(each, living.pop(each))
                elif not spawn(link, living):
                    return 0


if __name__ == "__main__":
    sys.exit(main())
