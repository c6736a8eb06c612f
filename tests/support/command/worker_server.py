"""A fork server of worker processes that has loaded what any of them may need.

drainer's own loads the modules of every drain, and each worker process the rest: that
is a quarter of the time of a test that looks for evidence. Which process loads a module
does not matter there; a command in a process of its own (``start``, ``fresh``) has
drainer's own fork server.
"""

import atexit
import importlib
import pkgutil
import socket
import subprocess
import sys

import drainer
from drainer.runtime import forkserver, workers
from drainer.runtime.process import clean_environment
from drainer.runtime.public_suffixes import organisation_of
from tests.support.paths import ROOT

_PARTS = ("bounce", "delivery", "ledger", "sources", "telemetry")


class LoadedForkServer(workers.ForkServer):
    """The process that forks worker processes; it starts from this module."""

    def __init__(self) -> None:
        """Start it; it ends with this process."""
        self._link, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=ROOT,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=clean_environment(),
                start_new_session=True,
            )
        atexit.register(self.close)


def install() -> None:
    """Let worker processes of this process come from it."""
    workers.ForkServer = LoadedForkServer  # type: ignore[misc]


def load() -> None:
    """Load every module of drainer that a worker process may use, and the suffixes."""
    for part in _PARTS:
        folder = f"{drainer.__path__[0]}/{part}"
        for each in pkgutil.walk_packages([folder], f"drainer.{part}."):
            importlib.import_module(each.name)
    organisation_of("example.org")


def main() -> int:
    """Load; then do as the fork server of drainer does."""
    load()
    del sys.path[0]
    return forkserver.main()


if __name__ == "__main__":
    sys.exit(main())
