"""Primaries that are not Postfix: Exim, OpenSMTPD and Haraka, each a private instance.

`make services` unpacks them below the project; the system's own servers are neither
read nor touched. Exim and OpenSMTPD know their users and paths when they are built. So
they run in a mount namespace, with account files and folders of their own.

Each delivers one file for each recipient, and refuses whom it does not know.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

from tests.support.mta.postfix import free_port, wait_until
from tests.support.paths import ROOT

_ACCOUNTS: Final = "\n".join(
    f"{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin"
    for name, number in (("Debian-exim", 998), ("opensmtpd", 997), ("opensmtpq", 996))
)
_GROUPS: Final = "Debian-exim:x:998:\nopensmtpd:x:997:\nopensmtpq:x:996:\n"
_SANDBOX: Final = """\
mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group &&
for each in /var/spool /var/lib /run; do mount -t tmpfs none $each || exit; done &&
mkdir -p /var/lib/opensmtpd/empty /var/empty && chmod 755 /var/lib /var/spool /run &&
{ [ ! -d "$1/libexec" ] || mount --bind "$1/libexec" /usr/libexec; } &&
shift && exec "$@"
"""


class OtherPrimary:
    """A server of its own kind; as a context manager it runs."""

    #: Below the project: what must be there.
    program: ClassVar[str]

    def __init__(self, base: Path, users: Iterable[str]) -> None:
        """Prepare it for these addresses; anyone may walk to ``base``."""
        self.base = base
        self.users = sorted(users)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._mail = base / "mail"
        self._mail.mkdir()
        self._mail.chmod(0o777)

    @classmethod
    def missing_reason(cls) -> str | None:
        """Say why it cannot run on this host; None if it can."""
        if not (ROOT / cls.program).exists():
            return f"{cls.program} is not there (make services)"
        return None if os.geteuid() == 0 else "a mount namespace takes root"

    def configure(self) -> Sequence[str]:
        """Write its configuration; return the command that runs in the foreground."""
        raise NotImplementedError

    @property
    def environment(self) -> Mapping[str, str]:
        """What its process needs beside a path."""
        return {}

    def delivered(self) -> Counter[str]:
        """Return how many messages each address got."""
        return Counter(
            path.parent.parent.name
            for path in self._mail.glob("*/new/*")
            if path.is_file()
        )

    def wait_delivered(self, count: int) -> Counter[str]:
        """Wait until so many messages are delivered; servers do that after the dot."""
        wait_until(
            lambda: self.delivered().total() >= count,
            timeout=60,
            what=f"{count} deliveries by {type(self).__name__}",
        )
        return self.delivered()

    def log(self) -> str:
        """Return what it has written."""
        return (self.base / "output").read_text("utf-8", "replace")

    def _sandboxed(self, *command: str) -> list[str]:
        for name, lines in (("passwd", _ACCOUNTS), ("group", _GROUPS)):
            known = Path("/etc", name).read_text("utf-8")
            (self.base / name).write_text(f"{known}{lines}\n", "utf-8")
        run = ["unshare", "--mount", "sh", "-c", _SANDBOX, "sh", str(self.base)]
        return [*run, *command]

    def __enter__(self) -> Self:
        """Start it; returns when the port answers."""
        command = self.configure()
        with (self.base / "output").open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": f"{os.environ['PATH']}:/usr/sbin", **self.environment},
                start_new_session=True,
            )
        wait_until(self._answers, timeout=60, what=f"{self.program}: {self.log()}")
        return self

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        """End it and what it started."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=10)


class EximPrimary(OtherPrimary):
    """Exim with Debian's usual answers."""

    program = ".exim/usr/sbin/exim4"

    @property
    def environment(self) -> Mapping[str, str]:
        """Its libraries are unpacked beside it."""
        libraries = next((ROOT / ".exim" / "usr" / "lib").glob("*-linux-gnu"))
        return {"LD_LIBRARY_PATH": str(libraries)}

    def configure(self) -> Sequence[str]:
        """Let it verify recipients by a file, and deliver into Maildirs."""
        spool = self.base / "spool"
        spool.mkdir()
        for place in (self.base, spool):
            os.chown(place, 998, 998)
        (self.base / "users").write_text("\n".join(self.users) + "\n", "utf-8")
        config, exim = self.base / "exim4.conf", str(ROOT / self.program)
        config.write_text(
            _EXIM.format(base=self.base, port=self.port, exim=exim), "utf-8"
        )
        return self._sandboxed(exim, "-C", str(config), "-bdf", "-q1m")


_EXIM: Final = """\
spool_directory = {base}/spool
log_file_path = {base}/log-%s
primary_hostname = primary.example
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
smtp_accept_max_per_host = 50
smtp_accept_queue_per_connection = 0
exim_path = {exim}
deliver_drop_privilege
acl_smtp_rcpt = check_recipient
begin acl
check_recipient:
  require verify = recipient
  accept domains = example.org
  deny message = relay not permitted
begin routers
users:
  driver = accept
  address_data = ${{lookup{{$local_part@$domain}}lsearch,ret=key{{{base}/users}}\
    {{$value}}fail}}
  transport = maildir
begin transports
maildir:
  driver = appendfile
  maildir_format
  directory = {base}/mail/$address_data
begin retry
* * F,1h,1m
"""


class OpenSmtpdPrimary(OtherPrimary):
    """OpenSMTPD."""

    program = ".opensmtpd/usr/sbin/smtpd"

    def configure(self) -> Sequence[str]:
        """Let it deliver for a table of users, into Maildirs."""
        shutil.copytree(ROOT / ".opensmtpd" / "usr" / "libexec", self.base / "libexec")
        table = self.base / "users"
        table.write_text("".join(f"{each}\n" for each in self.users), "utf-8")
        everyone = self.base / "everyone"
        everyone.write_text("@ nobody\n", "utf-8")
        for each in (table, everyone):
            each.chmod(0o644)
        config = self.base / "smtpd.conf"
        config.write_text(_OPENSMTPD.format(base=self.base, port=self.port), "utf-8")
        config.chmod(0o600)
        return self._sandboxed(str(ROOT / self.program), "-d", "-f", str(config))


_OPENSMTPD: Final = """\
table users file:{base}/users
table everyone file:{base}/everyone
listen on 127.0.0.1 port {port} hostname primary.example
action deliver maildir "{base}/mail/%{{rcpt}}" virtual <everyone>
match from any for rcpt-to <users> action deliver
"""


class HarakaPrimary(OtherPrimary):
    """Haraka, with a plugin that knows the users and writes a file for each."""

    program = ".haraka/node_modules/Haraka/bin/haraka"

    def configure(self) -> Sequence[str]:
        """Write its folder of configuration and plugins."""
        config = self.base / "config"
        for folder in (config, self.base / "plugins", self.base / "queue"):
            folder.mkdir()
        (config / "smtp.ini").write_text(
            f"listen=127.0.0.1:{self.port}\nnodes=0\n[main]\n", "utf-8"
        )
        (config / "me").write_text("primary.example\n", "utf-8")
        (config / "plugins").write_text("users\n", "utf-8")
        (self.base / "users").write_text("\n".join(self.users), "utf-8")
        (self.base / "plugins" / "users.js").write_text(
            _HARAKA.replace("BASE", str(self.base)), "utf-8"
        )
        return ["node", str(ROOT / self.program), "-c", str(self.base)]


_HARAKA: Final = """\
'use strict';
const fs = require('fs');
const users = new Set(fs.readFileSync('BASE/users', 'utf8').split('\\n'));
exports.hook_rcpt = function (next, connection, params) {
  next(users.has(params[0].address()) ? OK : DENY);
};
exports.hook_queue = function (next, connection) {
  const transaction = connection.transaction;
  for (const each of transaction.rcpt_to) {
    const folder = `BASE/mail/${each.address()}/new`;
    fs.mkdirSync(folder, { recursive: true });
    fs.writeFileSync(`${folder}/${transaction.uuid}`, '');
  }
  next(OK);
};
"""

KINDS: Final = {
    "exim": EximPrimary,
    "opensmtpd": OpenSmtpdPrimary,
    "haraka": HarakaPrimary,
}
