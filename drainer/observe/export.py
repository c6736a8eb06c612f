"""The projection in a process of its own, so that it never slows a session.

The process is drainer.observe.__main__. Its standard input is a pipe from the
drain: when that closes, the drain is over or dead, and the process exports what is
left, for a while, and ends.
"""

import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy.engine import URL

from drainer.config import TelemetrySection
from drainer.observe import LAST_WORDS
from drainer.process import child_environment


class Exporting:
    """A running export process."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        """Hold the process that ``start_export`` began."""
        self._process = process

    def finish(self) -> bool:
        """Let it export the rest; True when everything has left."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            return self._process.wait(timeout=LAST_WORDS + 5) == 0
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False


def start_export(
    telemetry: TelemetrySection, url: URL, locks: Path
) -> Exporting | None:
    """Start exporting what ``[telemetry]`` asks for; None when it asks for nothing."""
    if telemetry.traces == "off":
        return None
    arguments = [telemetry.traces, telemetry.endpoint, telemetry.addresses, str(locks)]
    environment = child_environment() | {
        "DRAINER_EXPORT_LEDGER": url.render_as_string(hide_password=False)
    }
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-P", "-m", "drainer.observe", *arguments],
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the drain
    )
    # Sessions come first, from its imports on; what is late is sent at the end.
    os.setpriority(os.PRIO_PROCESS, process.pid, 5)
    return Exporting(process)
