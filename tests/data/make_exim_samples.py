"""Make tests/data/exim and tests/data/exim.json with a real Exim 4, as root.

    python -m tests.data.make_exim_samples

Debian's packages are unpacked into a private directory, nothing is installed. That
Exim receives every case of exim_cases.py, delivers some in part to a scripted peer,
and is killed amid one of them. Its spool is copied as it lies. Then it sends a second
copy to a peer that takes everything: exim.json keeps what this peer saw, and tests
hold our reader to that. Made anew, the files differ in ids and times but not in kind.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.data.exim_cases import (
    CONFIGURATION,
    FLAT,
    FROZEN,
    KILLED,
    PARTIAL,
    ROUTERS,
    THAWED,
    USUAL,
    Case,
)
from tests.support.mta.postfix import wait_until
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Message, Script, Stall, Step, View

DATA: Final = Path(__file__).parent
PACKAGES: Final = ("exim4-daemon-light", "libidn12", "libnss-wrapper")
EXTENSIONS: Final = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE", "DSN")
USER: Final = "Debian-exim:x:4269:4269::/nonexistent:/usr/sbin/nologin\n"


def reply(view: View) -> Step:
    """Answer RCPT by the local part."""
    replies: dict[str, Step] = {
        "late": "450 4.2.1 busy",
        "bad": "550 5.1.1 unknown",
        "stall": Stall(),
    }
    found = (step for part, step in replies.items() if view.path.startswith(part))
    return next(found, "250 2.1.5 ok")


@dataclass(slots=True)
class Exim:
    """A private Exim and the message ids that the cases got."""

    base: Path
    spool: Path
    environment: dict[str, str]
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Where the packages were unpacked."""
        return self.base / "root"

    def configure(self, name: str, port: int, **words: object) -> None:
        """Write a configuration file."""
        usual = {"routers": ROUTERS, "split": "true", "max_rcpt": 1}
        places = {"root": self.root, "base": self.base, "spool": self.spool}
        text = CONFIGURATION.format(port=port, **(places | usual | words))
        (self.base / name).write_text(text, encoding="ascii")

    def command(self, *args: str, conf: str = "conf") -> list[str]:
        """Return the command line of a call."""
        return [f"{self.root}/usr/sbin/exim4", "-C", f"{self.base}/{conf}", *args]

    def run(self, *args: str, conf: str = "conf", data: bytes = b"") -> bytes:
        """Run Exim to its end; what it says."""
        done = subprocess.run(
            self.command(*args, conf=conf), input=data, env=self.environment,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    def submit(self, case: Case, conf: str = "conf") -> str:
        """Send a case through, and remember and return its id."""
        args = ("-oMa", "192.0.2.7.40404", "-oMs", "client.example.net", *case.args)
        said = self.run(*args, "-bs", conf=conf, data=conversation(case))
        found = re.search(rb"250 OK id=(\S+)", said)
        if found is None:
            msg = f"{case.name}: {said!r}"
            raise RuntimeError(msg)
        self.ids[case.name] = found[1].decode()
        return self.ids[case.name]

    def die(self, case: Case, peer: PeerThread) -> None:
        """Kill it while it receives one message and delivers another."""
        identifier = self.submit(case)
        command = self.command("-M", identifier)
        with self._started(command):
            peer.wait(lambda: any(b"stall@" in c.line for c in peer.commands))
        before = set(self.spool.rglob("*-D"))
        with self._started(self.command("-bs")) as half:
            assert half.stdin
            half.stdin.write(conversation(Case(name="half"))[:-10] + b"x" * 20000)
            half.stdin.flush()

            def arrived() -> set[Path]:
                return set(self.spool.rglob("*-D")) - before

            wait_until(lambda: bool(arrived()), timeout=10, what="half a message")
        (path,) = arrived()
        self.ids["half received"] = path.name.removesuffix("-D")

    @contextlib.contextmanager
    def _started(self, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        """Run Exim in a process group, which is killed at the end."""
        process = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        with process:
            try:
                yield process
            finally:
                os.killpg(process.pid, signal.SIGKILL)


def conversation(case: Case) -> bytes:
    """Return what the client says, in one piece."""
    lines = ["EHLO client.example.net", f"MAIL FROM:{case.mail}"]
    lines += [f"RCPT TO:{each}" for each in case.rcpt]
    said = "".join(f"{line}\r\n" for line in lines).encode()
    if case.bdat:
        return said + b"BDAT %d LAST\r\n%sQUIT\r\n" % (len(case.content), case.content)
    stuffed = re.sub(rb"(?m)^\.", b"..", case.content).replace(b"\n", b"\r\n")
    return said + b"DATA\r\n" + stuffed + b".\r\nQUIT\r\n"


@contextlib.contextmanager
def private_exim() -> Iterator[Exim]:
    """Unpack the packages into a directory that is removed afterwards."""
    base = Path(tempfile.mkdtemp(prefix="exim-", dir="/tmp"))
    base.chmod(0o755)
    try:
        for package in PACKAGES:
            subprocess.run(
                ["apt-get", "download", package], cwd=base, check=True,
                capture_output=True,
            )  # fmt: skip
        for archive in base.glob("*.deb"):
            subprocess.run(["dpkg", "-x", archive, base / "root"], check=True)
        (wrapper,) = base.rglob("libnss_wrapper.so")
        accounts = Path("/etc/passwd").read_text() + USER
        (base / "passwd").write_text(accounts)
        (base / "group").write_text(
            Path("/etc/group").read_text() + "Debian-exim:x:4269:\n"
        )
        spool = base / "spool"
        spool.mkdir()
        for path in (base, spool):
            shutil.chown(path, 4269, 4269)
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(wrapper.parent),
            "LD_PRELOAD": str(wrapper),
            "NSS_WRAPPER_PASSWD": f"{base}/passwd",
            "NSS_WRAPPER_GROUP": f"{base}/group",
        }
        yield Exim(base, spool, environment)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def oracle(exim: Exim, identifier: str, queue: str, peer: PeerThread) -> list[Any]:
    """Let Exim send a message; return what the peer saw, by transaction."""
    before = len(peer.messages)
    what = [f"-qffG{queue}"] if queue else ["-M", identifier]
    exim.run(*what, conf="all")
    return [seen(message) for message in peer.messages[before:]]


def seen(message: Message) -> dict[str, Any]:
    """Return what tests compare of a transaction."""
    content = message.content or b""
    return {
        "reverse_path": message.reverse_path,
        "parameters": message.parameters,
        "recipients": {r.forward_path: r.parameters for r in message.recipients},
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def copy_spool(source: Path, target: Path) -> None:
    """Copy the messages, and nothing that names this host."""
    shutil.rmtree(target, ignore_errors=True)
    host = re.compile(rb"\b" + re.escape(socket.gethostname().encode()) + rb"\b")
    for path in source.rglob("*-[HDJ]"):
        if host.search(path.read_bytes()):
            msg = f"{path} names this host"
            raise RuntimeError(msg)
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())


def fill(exim: Exim, peer: PeerThread) -> None:
    """Bring every case into the spool."""
    exim.configure("conf", peer.port)
    exim.configure("flat", peer.port, split="false")
    for case in USUAL:
        exim.submit(case)
    exim.submit(FLAT, conf="flat")
    for case in PARTIAL:
        exim.run("-M", exim.submit(case))
    exim.run("-M", exim.ids["case"])
    exim.run("-Mf", exim.submit(FROZEN))
    exim.run("-Mf", exim.submit(THAWED))
    exim.run("-Mt", exim.ids[THAWED.name])
    exim.die(KILLED, peer)


def describe(exim: Exim, peer: PeerThread) -> dict[str, Any]:
    """Return the content of exim.json: messages by the path of their -H file."""
    exim.configure("all", peer.port, routers="", max_rcpt=0)
    names = {identifier: name for name, identifier in exim.ids.items()}
    found = {}
    paths = sorted(path.relative_to(exim.spool) for path in exim.spool.rglob("*-H"))
    for path in paths:
        identifier = path.name.removesuffix("-H")
        queue = "" if path.parts[0] == "input" else path.parts[0]
        found[str(path)] = {
            "case": names.get(identifier, "made by Exim"),
            "sent": oracle(exim, identifier, queue, peer),
        }
    version = exim.run("-bV").split(b"\n")[0].decode().split(" #")[0]
    return {"exim": version, "ids": exim.ids, "files": found}


def main() -> None:
    """Make everything anew."""
    script = Script(extensions=EXTENSIONS, rcpt=reply)
    with (
        PeerThread(script) as peer,
        PeerThread(Script(extensions=EXTENSIONS)) as taker,
        private_exim() as exim,
    ):
        fill(exim, peer)
        copy_spool(exim.spool, DATA / "exim")
        described = describe(exim, taker)
    text = json.dumps(described, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    (DATA / "exim.json").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(described['files'])} messages\n")


if __name__ == "__main__":
    main()
