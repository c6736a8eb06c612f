"""A private spamd with two rules of its own: it starts fast and asks no network.

Started by root, it reads its rules as nobody: they are in a folder for everybody.
"""

import socket
import tempfile
from pathlib import Path
from typing import Final

from tests.support.mta.postfix import free_port
from tests.support.mta.scan_daemon import ScanDaemon

_RULES: Final = """\
loadplugin Mail::SpamAssassin::Plugin::Check
util_rb_tld com org
required_score 5
header OFFER Subject =~ /offer/
score OFFER 3.5
header BARGAIN Subject =~ /bargain/
score BARGAIN 3
"""


class Spamd(ScanDaemon):
    """The process and two children."""

    program = "spamd"

    def __init__(self) -> None:
        """Prepare its files."""
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._folder = tempfile.TemporaryDirectory()
        base = self._base = Path(self._folder.name)
        for each in (base, base / "rules", base / "site"):
            each.mkdir(exist_ok=True)
            each.chmod(0o755)
        (base / "rules" / "own.cf").write_text(_RULES, "ascii")
        self.arguments = (
            "--local", "--nouser-config", f"--listen={self.address}",
            "--max-children=2", "--min-children=1", f"--configpath={base}/rules",
            f"--siteconfigpath={base}/site", f"--helper-home-dir={base}",
            f"--syslog={base}/log",
        )  # fmt: skip

    @property
    def log(self) -> str:
        """What it has written so far."""
        return (self._base / "log").read_text("utf-8")

    def answers(self) -> bool:
        """Return whether it has read its rules: it listens before that."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as peer:
                peer.sendall(b"PING SPAMC/1.2\r\n\r\n")
                return b"PONG" in peer.recv(100)
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        """End it, and remove its files."""
        self.kill()
        self._folder.cleanup()
