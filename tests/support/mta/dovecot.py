"""A private Dovecot that takes mail by LMTP, over a loopback port and a Unix socket.

It has its own configuration, sockets, users and log under one directory; the system's
own Dovecot is neither read nor touched. It takes root, since Dovecot changes users, who
must be able to walk to the directory: not pytest's tmp_path (mode 0700).

``start`` returns when the socket answers, ``stop`` when the master has ended its
processes.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from tests.support.mta.postfix import SEARCH_PATH, free_port, program, wait_until
from tests.support.tls.certificates import Certificate

LMTP: Final = Path("/usr/lib/dovecot/lmtp")
NOBODY: Final = 65534

_CONFIGURATION: Final = """\
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/log
protocols = lmtp
hostname = mailbox.example
mail_location = maildir:{base}/mail/%n
mail_uid = {nobody}
mail_gid = {nobody}
first_valid_uid = 1
lmtp_rcpt_check_quota = no
login_trusted_networks = 127.0.0.0/8
userdb {{
  driver = passwd-file
  args = username_format=%n {base}/users
}}
passdb {{
  driver = static
  args = nopassword=y
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener lmtp {{
    mode = 0666
  }}
}}
plugin {{
  quota = maildir:User quota
  quota_rule = *:storage=0
  quota_grace = 0
}}
protocol lmtp {{
  mail_plugins = quota
}}
"""


def missing_reason() -> str | None:
    """Say why no instance can run on this host, or None when one can."""
    if not LMTP.exists() or shutil.which("dovecot", path=SEARCH_PATH) is None:
        return "Dovecot's LMTP server is not installed"
    return None if os.geteuid() == 0 else "a Dovecot must be started by root"


class PrivateDovecot:
    """One Dovecot below ``base``; as a context manager it runs.

    ``users`` are local parts with the bytes that their mailboxes hold; 0: any number.
    The quota is checked after the final dot. With a certificate it offers STARTTLS. It
    lets this host name the client (XCLIENT).
    """

    def __init__(
        self,
        base: Path,
        users: Mapping[str, int],
        certificate: Certificate | None = None,
    ) -> None:
        """Lay it out on disk; nothing runs yet."""
        self.base = base
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        mail = base / "mail"
        mail.mkdir()
        os.chown(mail, NOBODY, NOBODY)
        lines = [
            f"{name}::{NOBODY}:{NOBODY}::{mail / name}::"
            + (f"userdb_quota_rule=*:bytes={most}" if most else "")
            for name, most in users.items()
        ]
        (base / "users").write_text("\n".join(lines) + "\n", "utf-8")
        tls = "ssl = no\n"
        if certificate is not None:
            tls = (
                f"ssl = yes\nssl_cert = <{certificate.certificate}\n"
                f"ssl_key = <{certificate.key}\n"
            )
        text = _CONFIGURATION.format(base=base, port=self.port, nobody=NOBODY)
        (base / "dovecot.conf").write_text(text + tls, "utf-8")

    @property
    def socket(self) -> str:
        """The Unix socket as drainer names it."""
        return f"unix:{self.base}/run/lmtp"

    def received(self, user: str) -> list[bytes]:
        """Return the messages in a mailbox, as they are stored."""
        folder = self.base / "mail" / user / "new"
        return (
            [path.read_bytes() for path in folder.iterdir()] if folder.exists() else []
        )

    def __enter__(self) -> Self:
        """Start."""
        self._process = subprocess.Popen(
            [program("dovecot"), "-F", "-c", str(self.base / "dovecot.conf")],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._answers, timeout=30, what="Dovecot's LMTP socket")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(10)
            try:
                probe.connect(self.socket.removeprefix("unix:"))
                return probe.recv(100).startswith(b"220 ")
            except OSError:
                return False
