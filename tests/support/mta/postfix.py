"""Private Postfix instances, so that tests meet the real thing.

Each instance has its own configuration, queue, data and log under one directory and
listens on one loopback port; the system's own Postfix is neither read nor touched.
Everything runs without a chroot. It takes root, since Postfix changes to the user
``postfix``, and that user must be able to walk to the directory: use
``instance_directory``, not pytest's tmp_path (mode 0700).

What is promised: ``start`` returns when the port answers, ``stop`` when no process of
the instance is left, and only processes that the instance started are ever ended, by
process group.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

#: Hosts without these cannot run an instance.
PROGRAMS: Final = (
    "postfix",
    "postconf",
    "postcat",
    "postsuper",
    "postqueue",
    "sendmail",
)
SEARCH_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
POLL_SECONDS: Final = 0.02

#: Owned by the mail owner. The last two also belong to the submission group.
_QUEUES: Final = (
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming",
    "private", "saved", "trace",
)  # fmt: skip
_SUBMISSION: Final = {"maildrop": 0o730, "public": 0o710}

#: name, type, private, unprivileged, chroot, wakeup, maxproc, command; chroot is 'n'
#: throughout.
_SERVICES: Final = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def missing_reason() -> str | None:
    """Say why no instance can run on this host, or None when one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]
    if absent:
        return f"Postfix is not installed (no {', '.join(absent)})"
    if os.geteuid() != 0:
        return "a Postfix instance must be started by root"
    return None


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nothing listens on at the moment.

    It is none that the kernel gives to a client meanwhile (ip_local_port_range).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port


@contextlib.contextmanager
def instance_directory() -> Iterator[Path]:
    """Give a directory that the user postfix can walk to, and remove it afterwards."""
    base = Path(tempfile.mkdtemp(prefix="postfix-"))
    base.chmod(0o755)
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def program(name: str) -> str:
    """Return the path of a Postfix program, also where /usr/sbin is not on the PATH."""
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        raise FileNotFoundError(name)
    return found


def wait_until(holds: Callable[[], bool], *, timeout: float, what: str) -> None:
    """Poll a condition of another process, which offers no event to wait for.

    Raises TimeoutError naming what was waited for.
    """
    end = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > end:
            msg = f"waited {timeout} s in vain for {what}"
            raise TimeoutError(msg)
        time.sleep(POLL_SECONDS)


class PrivatePostfix:
    """One Postfix instance below ``base``; as a context manager it runs."""

    def __init__(
        self, base: Path, *, hostname: str, parameters: Mapping[str, str] | None = None
    ) -> None:
        """Lay the instance out on disk; nothing runs yet."""
        self.base = base
        self.config_dir = base / "etc"
        self.queue_dir = base / "spool"
        self.log_file = base / "log" / "mail.log"
        self.port = free_port()
        self.master_pid: int | None = None
        self._parameters = self._defaults(hostname) | dict(parameters or {})
        self._services: dict[tuple[str, str], str] = {}
        self._create_directories()
        self.add_master(f"127.0.0.1:{self.port} inet n - n - - smtpd\n{_SERVICES}")
        self._write_main()

    def _defaults(self, hostname: str) -> dict[str, str]:
        """Return a quiet, 8-bit clean, unlimited server; roles add to it."""
        return {
            "compatibility_level": "3.6",
            "config_directory": str(self.config_dir),
            "queue_directory": str(self.queue_dir),
            "data_directory": str(self.base / "data"),
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "maillog_file": str(self.log_file),
            "maillog_file_prefixes": str(self.base),
            "myhostname": hostname,
            "myorigin": "$myhostname",
            "mydestination": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "smtputf8_enable": "yes",
            "alias_maps": "",
            "alias_database": "",
            "biff": "no",
            # Mail arrives over SMTP from elsewhere in real life: nothing is added to
            # it.
            "local_header_rewrite_clients": "",
            "always_add_missing_headers": "no",
            "notify_classes": "",
        }

    def _create_directories(self) -> None:
        for directory in (self.config_dir, self.queue_dir, self.queue_dir / "pid"):
            directory.mkdir(parents=True, exist_ok=True)
        owned = [self.base / "data", self.log_file.parent]
        for directory in owned + [self.queue_dir / name for name in _QUEUES]:
            directory.mkdir(mode=0o700, exist_ok=True)
            shutil.chown(directory, user="postfix")
        # postsuper logs as this user, and to the file itself while the server is down.
        self.log_file.touch()
        shutil.chown(self.log_file, user="postfix")
        for name, mode in _SUBMISSION.items():
            directory = self.queue_dir / name
            directory.mkdir(exist_ok=True)
            shutil.chown(directory, user="postfix", group="postdrop")
            directory.chmod(mode)

    def _write_main(self) -> None:
        lines = (f"{name} = {value}\n" for name, value in self._parameters.items())
        path = self.config_dir / "main.cf"
        path.write_text("".join(lines), encoding="utf-8")
        # Every Postfix program waits while this file is younger than two seconds.
        past = time.time() - 60
        os.utime(path, (past, past))

    # ---- configuration

    def set(self, **parameters: str) -> None:
        """Write main.cf parameters; a running instance sees them after ``reload``."""
        self._parameters |= parameters
        self._write_main()

    def add_master(self, lines: str) -> None:
        """Add or replace master.cf services, each with its continuation lines."""
        key: tuple[str, str] | None = None
        for line in lines.splitlines():
            if line[:1].isspace() and key:
                self._services[key] += line + "\n"
            elif line.strip():
                name, kind = line.split()[:2]
                key = (name, kind)
                self._services[key] = line + "\n"
        text = "".join(self._services.values())
        (self.config_dir / "master.cf").write_text(text, encoding="utf-8")

    # ---- running

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Start the instance.

        This is ``postfix start``, which renames the files of a copied queue.
        Raises RuntimeError with the log when the server does not come up.
        """
        done = self._call(["postfix", "start"], check=False)
        pid_file = self.queue_dir / "pid" / "master.pid"
        if done.returncode != 0 or not pid_file.exists():
            msg = f"postfix start: {done.stderr.decode()}\n{self.log()}"
            raise RuntimeError(msg)
        self.master_pid = int(pid_file.read_text(encoding="ascii"))
        try:
            wait_until(self._greets, timeout=10, what=f"a greeting of {self.base}")
        except TimeoutError as error:
            self.stop()
            msg = f"{error}\n{self.log()}"
            raise RuntimeError(msg) from None

    def _greets(self) -> bool:
        """Tell whether smtpd works; the master alone accepts connections too."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=2) as client,
        ):
            return client.recv(4) == b"220 "
        return False

    def stop(self, *, timeout: float = 20) -> None:
        """End the instance, to its last process; harmless when repeated.

        Delivery agents get the signal too (RFC 5321 clients must stand a cut connection
        anyway), and are killed when they do not heed it.
        """
        group, self.master_pid = self.master_pid, None
        if group is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
            with contextlib.suppress(TimeoutError):
                wait_until(
                    lambda: not group_alive(group), timeout=timeout / 2, what="its end"
                )
                return
        msg = f"process group {group} of {self.base} does not end"
        raise TimeoutError(msg)

    def kill(self) -> None:
        """End every process of the instance at once, as a power failure would."""
        group, self.master_pid = self.master_pid, None
        if group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            wait_until(lambda: not group_alive(group), timeout=10, what="its end")

    def reload(self) -> None:
        """Make the instance read its configuration; wait until its master has."""
        marker = "reload -- version"
        before = self.log().count(marker)
        self._call(["postfix", "reload"])
        wait_until(
            lambda: self.log().count(marker) > before, timeout=10, what="the reload"
        )

    # ---- commands

    def _call(
        self, argv: Sequence[str], *, data: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a Postfix program on this instance, never with a terminal.

        Raises RuntimeError with its complaint and the end of the log when it fails.
        """
        name, *rest = argv
        option = "-C" if name == "sendmail" else "-c"
        command = [program(name), option, str(self.config_dir), *rest]
        environment = {
            "PATH": SEARCH_PATH,
            "MAIL_CONFIG": str(self.config_dir),
            "TZ": "UTC",
        }
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            timeout=120,
            env=environment,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
        )
        if check and done.returncode != 0:
            msg = f"{' '.join(argv)}: {done.stderr.decode()}\n{self.log()[-2000:]}"
            raise RuntimeError(msg)
        return done

    def call(self, *argv: str) -> subprocess.CompletedProcess[bytes]:
        """Run a Postfix program on this instance, whatever its exit status is."""
        return self._call(argv, check=False)

    def sendmail(self, args: Sequence[str], data: bytes) -> None:
        """Submit a message locally."""
        self._call(["sendmail", *args], data=data)

    def check(self) -> str:
        """Return what ``postfix check`` and ``postconf -n`` complain about."""
        done = [self._call(["postfix", "check"]), self._call(["postconf", "-n"])]
        return "".join(each.stderr.decode() for each in done)

    def postcat(self, args: Sequence[str]) -> bytes:
        """Return what postcat prints."""
        return self._call(["postcat", *args]).stdout

    def postsuper(self, args: Sequence[str]) -> None:
        """Hold, release, requeue or delete messages."""
        self._call(["postsuper", *args])

    def postqueue(self, args: Sequence[str]) -> bytes:
        """Return what postqueue prints."""
        return self._call(["postqueue", *args]).stdout

    def flush(self) -> None:
        """Make everything deferred due now."""
        self.postqueue(["-f"])

    # ---- looking

    def queue_files(self, queues: Sequence[str] = ("deferred",)) -> list[Path]:
        """Return the message files of these queue directories, in order of name."""
        return sorted(
            Path(folder) / name
            for queue in queues
            for folder, _, names in os.walk(self.queue_dir / queue)
            for name in names
            if name.isalnum()
        )

    def wait_queue(
        self, count: int, queues: Sequence[str] = ("deferred",), *, timeout: float = 30
    ) -> list[Path]:
        """Wait until these queues hold exactly so many messages; return their files.

        Raises TimeoutError with the log.
        """
        try:
            wait_until(
                lambda: len(self.queue_files(queues)) == count,
                timeout=timeout,
                what=f"{count} in {', '.join(queues)}",
            )
        except TimeoutError as error:
            found = len(self.queue_files(queues))
            msg = f"{error}: there are {found}\n{self.log()}"
            raise TimeoutError(msg) from None
        return self.queue_files(queues)

    def log(self) -> str:
        """Return the instance's log so far."""
        if not self.log_file.exists():
            return ""
        return self.log_file.read_text(encoding="utf-8", errors="replace")


def group_alive(group: int) -> bool:
    """Tell whether a process group still has a member other than zombies.

    A zombie has ended; where process 1 reaps nobody, as in some containers, it stays
    for ever.
    """
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, member = (
                    (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                )
                if int(member) == group and state != "Z":
                    return True
    return False
