"""A socket that systemd opened for us (sd_listen_fds(3)).

It listens while the watch restarts, so that no hook is refused meanwhile.
"""

import os
import socket
from collections.abc import Mapping
from typing import Final

from drainer.errors import UsageError

HANDED: Final = "systemd"
"""The value of ``[hook] listen`` in that case."""
_FIRST: Final = 3
_HINT: Final = "let drainer.socket start the service, or name ADDRESS:PORT"


def take_socket(environment: Mapping[str, str] = os.environ) -> socket.socket:
    """Return the socket that was handed over; UsageError if it is not a TCP socket."""
    ours = environment.get("LISTEN_PID") == str(os.getpid())
    if not ours or environment.get("LISTEN_FDS") != "1":
        message = f"[hook] listen = {HANDED}: not one socket was handed over"
        raise UsageError(message, hint=_HINT)
    found = socket.socket(fileno=_FIRST)
    found.set_inheritable(False)
    if found.family not in (socket.AF_INET, socket.AF_INET6):
        found.close()
        message = f"[hook] listen = {HANDED}: it is not a TCP socket"
        raise UsageError(message, hint="ListenStream=127.0.0.1:8025")
    return found
