"""A scanner's daemon: started, frozen while it is asked, and killed."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import ClassVar, Self

from tests.support.mta.postfix import SEARCH_PATH, wait_until


class ScanDaemon:
    """The process and its children; a context manager."""

    program: ClassVar[str]
    arguments: tuple[str, ...] = ()
    #: HOST:PORT or unix:/PATH: what [scan] takes.
    address: str = ""
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing_reason(cls) -> str | None:
        """Say why it cannot run on this host; None if it can."""
        found = shutil.which(cls.program, path=SEARCH_PATH)
        return None if found else f"{cls.program} is not installed (make services)"

    def answers(self) -> bool:
        """Return whether it is ready."""
        raise NotImplementedError

    def is_asked(self) -> bool:
        """Return whether a client is connected, even while the daemon is frozen."""
        if self.address.startswith("unix:"):
            path = self.address.removeprefix("unix:")
            lines = Path("/proc/net/unix").read_text("utf-8").splitlines()
            return sum(line.endswith(f" {path}") for line in lines) > 1
        end = f":{int(self.address.rpartition(':')[2]):04X}"
        rows = map(str.split, Path("/proc/net/tcp").read_text("utf-8").splitlines())
        return any(row[1].endswith(end) and row[3] == "01" for row in rows)

    def start(self) -> None:
        """Start it; returns when it is ready."""
        program = shutil.which(self.program, path=SEARCH_PATH) or self.program
        self._process = subprocess.Popen(
            [program, *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self.answers, timeout=60, what=self.program)

    def freeze(self) -> None:
        """Let it hang."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it continue."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word; harmless when repeated."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(timeout=10)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.kill()
