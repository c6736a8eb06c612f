"""Make tests/data/opensmtpd and tests/data/opensmtpd.json with a real smtpd, as root.

    python -m tests.data.make_opensmtpd_samples SMTPD

The Debian package conflicts with Postfix, so it is unpacked and not installed:
``apt-get download opensmtpd`` and ``dpkg -x``. Its paths and users are built in:
it runs in a mount name space where /var/spool, /var/lib, /run and the tables of users
are private ones. tests/data/queue_cases.py says what happens. What it put off is made
due again by taking the lines about attempts out of the envelopes.
"""

import contextlib
import json
import re
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
CONFIGURATION: Final = """\
smtp max-message-size 1M
listen on 127.0.0.1 port @PORT@ hostname mx2.example.org
action "relay" relay host smtp://127.0.0.1:@PRIMARY@ helo mx2.example.org
match from any for any action "relay"
"""
START: Final = """\
set -e
base=$1; shift
mount --bind "$base/spool" /var/spool
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
mkdir -p /var/lib/opensmtpd/empty
for table in passwd group; do
  cp "/etc/$table" "$base/$table"
done
echo 'opensmtpd:x:901:901::/var/lib/opensmtpd/empty:/bin/false' >>"$base/passwd"
echo 'opensmtpq:x:902:902::/var/lib/opensmtpd/empty:/bin/false' >>"$base/passwd"
echo 'opensmtpd:x:901:' >>"$base/group"
echo 'opensmtpq:x:902:' >>"$base/group"
mount --bind "$base/passwd" /etc/passwd
mount --bind "$base/group" /etc/group
exec "$@"
"""


class Smtpd:
    """A private smtpd."""

    def __init__(self, base: Path, program: str, primary: int) -> None:
        """Write its configuration."""
        self.base = base
        self.port = free_port()
        self._program = program
        self.queue = base / "spool" / "smtpd"
        self.queue.mkdir(parents=True, mode=0o711)
        text = CONFIGURATION.replace("@PORT@", str(self.port))
        path = base / "smtpd.conf"
        path.write_text(text.replace("@PRIMARY@", str(primary)))
        path.chmod(0o600)

    def envelopes(self) -> list[Path]:
        """Return the envelope files."""
        return [
            path
            for path in (self.queue / "queue").glob("*/*/*")
            if path.name != "message"
        ]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let it listen and send."""
        smtpd = [self._program, "-d", "-f", f"{self.base}/smtpd.conf"]
        server = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", START, "sh", str(self.base), *smtpd],
            stdin=subprocess.DEVNULL,
        )
        try:
            queue_cases.wait_for_port(self.port)
            yield
        finally:
            server.terminate()
            server.wait()

    def make_due(self) -> None:
        """Let it forget that it tried."""
        for path in self.envelopes():
            text = re.sub(r"(?m)^(?:retry|last-try): .*\n", "", path.read_text())
            path.write_text(text)


def main() -> int:
    """Make everything anew."""
    target = DATA / "opensmtpd"
    with (
        tempfile.TemporaryDirectory(dir="/opt") as name,
        PeerThread(queue_cases.refusing()) as peer,
    ):
        Path(name).chmod(0o755)
        server = Smtpd(Path(name), sys.argv[1], peer.port)
        with server.running():
            cases = queue_cases.cases(dsn=True, quoted=False)
            for case in cases:
                queue_cases.submit(server.port, case)
            queue_cases.wait_until(
                lambda: (
                    len(server.envelopes()) == sum(len(case.rcpt) for case in cases) - 1
                    and all(
                        "retry: 1" in path.read_text() for path in server.envelopes()
                    )
                ),
                "the first attempt",
            )
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(server.queue, target)
        peer.script = queue_cases.accepting()
        before = len(peer.accepted)
        server.make_due()
        with server.running():
            queue_cases.wait_until(lambda: not server.envelopes(), "the rest")
        received = queue_cases.oracle(peer.accepted[before:])
        text = json.dumps(received, indent=1)
        (DATA / "opensmtpd.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
