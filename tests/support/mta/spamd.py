"""A private spamd with two rules of its own: it starts fast and asks no network.

Started by root, it reads its rules as nobody: they are in a folder for everybody.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Self

from tests.support.mta.postfix import SEARCH_PATH, free_port, wait_until

_RULES: Final = """\
loadplugin Mail::SpamAssassin::Plugin::Check
util_rb_tld com org
required_score 5
header OFFER Subject =~ /offer/
score OFFER 3.5
header BARGAIN Subject =~ /bargain/
score BARGAIN 3
"""


class Spamd:
    """The process and its children; a context manager."""

    def __init__(self) -> None:
        """Prepare its files."""
        self._port = free_port()
        self._folder = tempfile.TemporaryDirectory()
        self._base = Path(self._folder.name)
        for each in (self._base, self._base / "rules", self._base / "site"):
            each.mkdir(exist_ok=True)
            each.chmod(0o755)
        (self._base / "rules" / "own.cf").write_text(_RULES, "ascii")
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing_reason() -> str | None:
        """Say why it cannot run on this host; None if it can."""
        found = shutil.which("spamd", path=SEARCH_PATH)
        return None if found else "spamd is not installed (make services)"

    @property
    def address(self) -> str:
        """What [scan] takes."""
        return f"127.0.0.1:{self._port}"

    @property
    def log(self) -> str:
        """What it has written so far."""
        return (self._base / "log").read_text("utf-8")

    def start(self) -> None:
        """Start it; returns when its port answers."""
        program = shutil.which("spamd", path=SEARCH_PATH) or "spamd"
        base = self._base
        self._process = subprocess.Popen(
            [program, "--local", "--nouser-config", f"--listen=127.0.0.1:{self._port}",
             "--max-children=2", "--min-children=1", f"--configpath={base}/rules",
             f"--siteconfigpath={base}/site", f"--helper-home-dir={base}",
             f"--syslog={base}/log"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        wait_until(self._answers, timeout=60, what="spamd")

    def _answers(self) -> bool:
        """Return whether it has read its rules: it listens before that."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as peer:
                peer.sendall(b"PING SPAMC/1.2\r\n\r\n")
                return b"PONG" in peer.recv(100)
        except OSError:
            return False

    def kill(self) -> None:
        """End it and its children without a word; harmless when repeated."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and remove its files."""
        self.kill()
        self._folder.cleanup()
