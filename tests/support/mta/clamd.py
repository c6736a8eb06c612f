"""A private clamd whose only signature is EICAR's: no database is downloaded."""

import socket
from pathlib import Path
from typing import Final

from tests.support.mta.scan_daemon import ScanDaemon

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


class Clamd(ScanDaemon):
    """``most`` limits what it takes, as clamd does."""

    program = "clamd"

    def __init__(self, base: Path, most: str = "25M") -> None:
        """Prepare it to keep its files in ``base``."""
        self._socket = base / "clamd"
        self.address = f"unix:{self._socket}"
        self.arguments = ("--config-file", str(base / "clamd.conf"))
        (base / "db").mkdir()
        words = b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE".hex()
        (base / "db" / "own.ndb").write_text(f"Test.Eicar:0:*:{words}\n", "ascii")
        config = _CONFIG.format(base=base, most=most)
        (base / "clamd.conf").write_text(config, "utf-8")

    def answers(self) -> bool:
        """Return whether its socket takes a connection."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self._socket))
            except OSError:
                return False
        return True
