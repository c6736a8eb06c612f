"""Notify systemd (sd_notify(3)): ready, status, alive, reloading.

Each is a datagram to the socket that systemd names in the environment; without one
nothing is sent. Nothing here may fail a watch.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from drainer.telemetry.privacy import AddressView

MAX_STATUS = 300


class Notifier:
    """Notifies the service manager, if there is one."""

    def __init__(
        self, environment: Mapping[str, str] = os.environ, *, plain: bool = False
    ) -> None:
        """Take the socket from the environment, and whether there is a watchdog.

        A status shows addresses only if ``plain``. Else it has hashes with a key of its
        own; the log line beside it has those of the ledger.
        """
        self._view = AddressView(os.urandom(16), plain=plain)
        path = environment.get("NOTIFY_SOCKET", "")
        # The name of an abstract socket has @ in place of its leading zero byte.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._is_watched = mine and "WATCHDOG_USEC" in environment

    def notify(self, *lines: str) -> None:
        """Send some assignments, such as ``READY=1``."""
        if not self._address:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as link:
            link.connect(self._address)
            link.send("\n".join(lines).encode())

    def status(self, text: str) -> None:
        """Report the status, for ``systemctl status``."""
        line = " ".join(self._view.text(text).split())
        self.notify(f"STATUS={line[:MAX_STATUS]}")

    def ready(self) -> None:
        """Report that it works: after the start, and after a configuration was read."""
        self.notify("READY=1")

    def extend_start(self) -> None:
        """Ask for more time before it is ready: the ledger is unreachable."""
        self.notify("EXTEND_TIMEOUT_USEC=90000000")

    def reloading(self) -> None:
        """Report that it reads its configuration again (Type=notify-reload)."""
        self.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def alive(self) -> None:
        """Give the watchdog a sign, if there is one."""
        if self._is_watched:
            self.notify("WATCHDOG=1")

    def stopping(self) -> None:
        """Report that it ends."""
        self.notify("STOPPING=1")
