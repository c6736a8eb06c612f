"""Make tests/data/sendmail and tests/data/sendmail.json with a real sendmail, as root.

    python -m tests.data.make_sendmail_samples SENDMAIL LIBRARIES CF_DIRECTORY

The Debian package conflicts with Postfix, so it is unpacked and not installed:
``apt-get download sendmail-bin sendmail-cf libwrap0 liblockfile1`` and ``dpkg -x``.
SENDMAIL is the program, LIBRARIES the folder of the two libraries, CF_DIRECTORY the
package's ``usr/share/sendmail/cf``; m4 must be installed. tests/data/queue_cases.py
says what happens. Loopback only, in a host name space of its own, because sendmail
waits a minute for a host name with a dot.
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
HOST: Final = "mx2.example.org"
CONFIGURATION: Final = """\
divert(0)dnl
OSTYPE(`linux')dnl
define(`confDOMAIN_NAME',`@HOST@')dnl
define(`ALIAS_FILE',`')dnl
define(`STATUS_FILE',`')dnl
define(`HELP_FILE',`')dnl
define(`SMART_HOST',`relay:[127.0.0.1]')dnl
define(`RELAY_MAILER_ARGS', `TCP $h @PRIMARY@')dnl
define(`confDELIVERY_MODE',`queueonly')dnl
define(`confPID_FILE',`@BASE@/pid')dnl
define(`QUEUE_DIR',`@BASE@/mqueue')dnl
define(`confCW_FILE',`-o @BASE@/cw')dnl
define(`confSERVICE_SWITCH_FILE',`/dev/null')dnl
define(`confTO_IDENT',`0')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`promiscuous_relay')dnl
FEATURE(`nocanonify')dnl
DAEMON_OPTIONS(`Port=@PORT@,Addr=127.0.0.1,Name=MTA')dnl
MAILER(`smtp')dnl
"""


class Sendmail:
    """A private sendmail."""

    def __init__(self, base: Path, arguments: list[str], primary: int) -> None:
        """Write its configuration."""
        self.base = base
        self.port = free_port()
        self._program, libraries, macros = arguments
        self._environment = dict(os.environ, LD_LIBRARY_PATH=libraries)
        (base / "mqueue").mkdir(mode=0o700)
        (base / "cw").touch()
        text = CONFIGURATION
        values = {"HOST": HOST, "BASE": base, "PORT": self.port, "PRIMARY": primary}
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        (base / "x.mc").write_text(text)
        done = subprocess.run(
            ["m4", f"-D_CF_DIR_={macros}/", f"{macros}/m4/cf.m4", base / "x.mc"],
            check=True,
            capture_output=True,
            cwd=macros,
        )
        (base / "x.cf").write_bytes(done.stdout)

    def _command(self, *arguments: str) -> list[str]:
        script = f'hostname {HOST}; exec "$0" "$@"'
        sendmail = [self._program, "-C", f"{self.base}/x.cf", *arguments]
        return ["unshare", "--uts", "sh", "-c", script, *sendmail]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let it listen."""
        daemon = subprocess.Popen(
            self._command("-bD"), env=self._environment, stdin=subprocess.DEVNULL
        )
        try:
            queue_cases.wait_until((self.base / "pid").exists, "sendmail")
            yield
        finally:
            daemon.terminate()
            daemon.wait()

    def flush(self) -> None:
        """Run the queue once."""
        command = self._command("-qf", "-OMinQueueAge=0", "-OTimeout.hoststatus=1s")
        subprocess.run(command, env=self._environment, check=True)


def main() -> int:
    """Make everything anew."""
    target = DATA / "sendmail"
    with (
        tempfile.TemporaryDirectory(dir="/run") as name,
        PeerThread(queue_cases.refusing()) as peer,
    ):
        server = Sendmail(Path(name), sys.argv[1:], peer.port)
        with server.running():
            for case in queue_cases.cases(dsn=True):
                queue_cases.submit(server.port, case)
        server.flush()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(Path(name) / "mqueue", target)
        peer.script = queue_cases.accepting()
        before = len(peer.accepted)
        server.flush()
        received = queue_cases.oracle(peer.accepted[before:])
        text = json.dumps(received, indent=1)
        (DATA / "sendmail.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
