"""Make tests/data/haraka and tests/data/haraka.json with a real Haraka.

    python -m tests.data.make_haraka_samples HARAKA

HARAKA is the folder of the package (``npm install Haraka``: node_modules/Haraka).
tests/data/queue_cases.py says what happens. Haraka stores no DSN parameters. What it
put off is made due again by the time in the file names.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.data import queue_cases
from tests.support.mta.postfix import free_port
from tests.support.smtp_peer.peer import PeerThread

DATA: Final = Path(__file__).parent
PLUGIN: Final = """\
exports.hook_connect = (next, connection) => { connection.relaying = true; next() }
exports.hook_rcpt = (next) => next(OK)
exports.hook_get_mx = (next) => next(OK, {
  exchange: '127.0.0.1', port: @PRIMARY@, priority: 0,
})
"""


class Haraka:
    """A private Haraka."""

    def __init__(self, base: Path, package: Path, primary: int) -> None:
        """Write its configuration."""
        self.base = base
        self.port = free_port()
        self._package = package
        files = {
            "config/smtp.ini": f"listen=127.0.0.1:{self.port}\nnodes=0\n",
            "config/me": "mx2.example.org\n",
            "config/plugins": "samples\n",
            "config/outbound.ini": "always_split=false\nenable_tls=false\n",
            "config/host_list": "",
            "plugins/samples.js": PLUGIN.replace("@PRIMARY@", str(primary)),
        }
        for name, text in files.items():
            path = base / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        shutil.copy(package / "config" / "connection.ini", base / "config")
        (base / "queue").mkdir(mode=0o755)

    def queue_files(self) -> list[str]:
        """Return the complete queue files."""
        return [
            each.name
            for each in (self.base / "queue").iterdir()
            if not each.name.startswith("_")
        ]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let it listen and send."""
        command = ["node", f"{self._package}/bin/haraka", "-c", str(self.base)]
        environment = dict(os.environ, HOME=str(self.base))
        server = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
        try:
            queue_cases.wait_for_port(self.port)
            yield
        finally:
            server.terminate()
            server.wait()

    def make_due(self) -> None:
        """Rename every file so that its next attempt is now."""
        for name in self.queue_files():
            arrival, _, rest = name.split("_", 2)
            path = self.base / "queue" / name
            path.rename(path.with_name(f"{arrival}_{arrival}_{rest}"))


def main() -> int:
    """Make everything anew."""
    target = DATA / "haraka"
    with (
        tempfile.TemporaryDirectory() as name,
        PeerThread(queue_cases.refusing()) as peer,
    ):
        server = Haraka(Path(name), Path(sys.argv[1]).absolute(), peer.port)
        cases = queue_cases.cases(dsn=False)
        with server.running():
            for case in cases:
                queue_cases.submit(server.port, case)
            queue_cases.wait_until(
                lambda: (
                    len(server.queue_files()) == len(cases)
                    and all("_1_" in each for each in server.queue_files())
                ),
                "the first attempt",
            )
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(Path(name) / "queue", target)
        peer.script = queue_cases.accepting()
        before = len(peer.accepted)
        server.make_due()
        with server.running():
            queue_cases.wait_until(lambda: not server.queue_files(), "the rest")
        received = queue_cases.oracle(peer.accepted[before:])
        text = json.dumps(received, indent=1)
        (DATA / "haraka.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
