"""The projection in a process of its own, so that it never slows a session.

Its standard input is a pipe from the drain: when that closes, the drain is over
or dead, and the process exports what is left, for a while, and ends.
"""

import os
import select
import subprocess
import sys
import time
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from drainer.config import TelemetrySection
from drainer.observe.exporters import make_exporter
from drainer.observe.project import ExportFailed, Projector, exclusive

POLL = 0.5
LAST_WORDS = 20.0
"""Seconds that the rest may take once the drain is over."""


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
    environment = os.environ | {
        "DRAINER_EXPORT_LEDGER": url.render_as_string(hide_password=False)
    }
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "drainer.observe.export", *arguments],
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the drain
    )
    return Exporting(process)


def main(arguments: list[str]) -> int:
    """Project until standard input closes, then the rest; 0 = all has left."""
    traces, endpoint, addresses, locks = arguments
    os.nice(5)  # sessions come first; what is late is sent at the end
    url = make_url(os.environ.pop("DRAINER_EXPORT_LEDGER"))
    name = f"{traces} {endpoint}" if traces == "otlp" else traces
    lock = exclusive(Path(locks), name)
    if lock is None:
        return 0  # another drain's export serves this cursor
    exporter = make_exporter(traces, endpoint)
    projector = Projector(url, exporter, name=name, plain=addresses == "plain")
    try:
        return _follow(projector)
    finally:
        projector.close()


def _follow(projector: Projector) -> int:
    deadline: float | None = None
    while True:
        try:
            exported = projector.step()
        except (ExportFailed, OSError) as error:
            exported = -1
            print(f"drainer: traces: {error}", file=sys.stderr)  # noqa: T201
        if exported == 0 and deadline is not None:
            return 0
        if deadline is not None and (exported < 0 or time.monotonic() > deadline):
            return 1
        if exported <= 0 and deadline is None and _is_over(POLL):
            deadline = time.monotonic() + LAST_WORDS


def _is_over(wait: float) -> bool:
    """Wait a little; True when the drain has closed our standard input."""
    readable, _, _ = select.select([sys.stdin], [], [], wait)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
