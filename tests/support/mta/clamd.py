"""A private clamd whose only signature is EICAR's: no database is downloaded."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Final, Self

from tests.support.mta.postfix import SEARCH_PATH, wait_until

EICAR: Final = (
    rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
)
SIGNATURE: Final = "Test.Eicar.UNOFFICIAL"
_CONFIG: Final = """\
Foreground yes
DatabaseDirectory {base}/db
TemporaryDirectory {base}
LocalSocket {base}/clamd
FixStaleSocket yes
StreamMaxLength {most}
ConcurrentDatabaseReload no
"""


class Clamd:
    """The process; a context manager. ``most`` limits what it takes, as clamd does."""

    def __init__(self, base: Path, most: str = "25M") -> None:
        """Prepare it to keep its files in ``base``."""
        self._socket = base / "clamd"
        self._config = base / "clamd.conf"
        (base / "db").mkdir()
        words = b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE".hex()
        (base / "db" / "own.ndb").write_text(f"Test.Eicar:0:*:{words}\n", "ascii")
        self._config.write_text(_CONFIG.format(base=base, most=most), "utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing_reason() -> str | None:
        """Say why it cannot run on this host; None if it can."""
        found = shutil.which("clamd", path=SEARCH_PATH)
        return None if found else "clamd is not installed (make services)"

    @property
    def address(self) -> str:
        """What [scan] takes."""
        return f"unix:{self._socket}"

    def start(self) -> None:
        """Start it; returns when its socket answers."""
        program = shutil.which("clamd", path=SEARCH_PATH) or "clamd"
        self._process = subprocess.Popen(
            [program, "--config-file", str(self._config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._answers, timeout=60, what="clamd")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self._socket))
            except OSError:
                return False
        return True

    def send(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP and SIGCONT let it hang and go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without a word; harmless when repeated."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.kill()
