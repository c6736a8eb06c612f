"""Forks worker processes for a process that may not: with threads, or an open ledger.

It has loaded the modules of a drain's jobs and opened nothing. Each order brings what
the worker process gets: its link, standard output and error, where it reports its end,
and as a value the environment and the current folder.
"""

import importlib
import os
import signal
import socket
import sys
from contextlib import suppress

from drainer.runtime.host_limits import limit_behind
from drainer.runtime.process import leave_signals_to_parent, tune_gc
from drainer.runtime.workers import JOBS, PRELOADED, receive_order, run_child


def spawn(link: socket.socket) -> bool:
    """Fork one worker process; return False when no order comes."""
    received = receive_order(link)
    if received is None:
        return False
    (environment, folder), descriptors = received
    with suppress(OSError):
        os.chdir(folder)
    with suppress(OSError):  # if it fails, the parent gets no report
        if os.fork() == 0:
            run_child(descriptors, environment)
    for descriptor in descriptors:
        os.close(descriptor)
    return True


def main() -> int:
    """Fork worker processes until the parent has ended."""
    leave_signals_to_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
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
    with socket.socket(fileno=0) as link:
        while spawn(link):
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
