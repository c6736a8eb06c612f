"""What this host grants a process: descriptors, memory, processes, standard streams."""

import errno
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import ExitStack

from drainer.errors import HostLimit

PER_CONNECTION = 3
"""Descriptors: the socket, its duplicate (smtp.protocol), and a message's file."""
OTHERS = 40
"""Descriptors: ledger, worker processes, folders, and what libraries open."""
MOST = 65_536
"""Descriptors: more are never used, and some programs count up to the limit."""

_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_IMPORT_WORDS = ("cannot allocate memory", "failed to map segment")


def descriptors() -> int:
    """Return how many descriptors this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else soft


def raise_descriptors() -> None:
    """Use all descriptors granted to this process; its child processes inherit that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def affordable(connections: int) -> int:
    """Return how many of these connections there are descriptors for; 0 = none."""
    return min(connections, max(0, descriptors() - OTHERS) // PER_CONNECTION)


def open_standard_streams() -> None:
    """Make sure that descriptors 0 to 2 are open: else a ledger might become one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def has_descriptors(count: int = 1) -> bool:
    """Return whether so many descriptors are free now."""
    with ExitStack() as closing:
        try:
            for _ in range(count):
                opened = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                closing.callback(os.close, opened)
        except OSError:
            return False
    return True


def lacks_descriptor(error: BaseException | None) -> bool:
    """Return whether something failed because no descriptor was free."""
    return isinstance(error, OSError) and error.errno in _NO_DESCRIPTOR


def no_descriptor() -> HostLimit:
    """Return the error for the operator."""
    message = f"no file descriptor is free: this process may have {descriptors()}"
    hint = "raise it: `ulimit -n 8192`, or LimitNOFILE= in the unit; or lower [primary]"
    return HostLimit(message, hint=f"{hint} connections")


def no_process(error: BaseException) -> HostLimit:
    """Return the error for the operator."""
    words = getattr(error, "strerror", None) or str(error)
    message = f"cannot start another process or thread: {words}"
    hint = "raise the limit: `ulimit -u`, or TasksMax= and MemoryMax= in the unit"
    return HostLimit(message, hint=hint)


def limit_behind(error: BaseException) -> HostLimit | None:
    """Return which limit of the host ended a command; None when it was something else.

    Looks into groups of exceptions.
    """
    return next(filter(None, map(_limit, _leaves(error))), None)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _limit(error: BaseException) -> HostLimit | None:
    memory = HostLimit(
        "no memory is free for this process",
        hint="raise the limit: `ulimit -v`, or MemoryMax= in the unit",
    )
    match error:
        case HostLimit():
            return error
        case MemoryError():
            return memory
        case ImportError() if any(w in str(error).lower() for w in _IMPORT_WORDS):
            return memory
        case RuntimeError() if "start new thread" in str(error):
            return no_process(error)
        case OSError() if lacks_descriptor(error):
            return no_descriptor()
        case OSError(errno=errno.EAGAIN | errno.ENOMEM):
            return no_process(error)
        case OSError() if error.errno in _NO_ROOM:
            where = f" for {error.filename}" if error.filename else ""
            message = f"there is no room{where}: {error.strerror}"
            return HostLimit(message, hint="make room; then run the same command again")
        case _:
            return None
