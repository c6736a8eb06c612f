"""The servers of a drain: a backup that keeps mail, a primary that delivers it, a sink.

Backup and primary are private Postfix instances that change nothing in what passes
through them, so that a test may compare the bytes one stored with the bytes the other
delivered.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.support.mta.postfix import PrivatePostfix, free_port, program, wait_until

#: The first header field, with its folded lines.
_FIRST_FIELD: Final = re.compile(rb"[^\n]*\n(?:[ \t][^\n]*\n)*")
#: What virtual(8) writes above the trace field, in this order.
_TOP: Final = (b"Return-Path: ", b"X-Original-To: ", b"Delivered-To: ")


def backup(
    base: Path,
    *,
    domains: Iterable[str] = ("example.org",),
    relay_port: int | None = None,
    parameters: Mapping[str, str] | None = None,
) -> PrivatePostfix:
    """Return a backup MX that accepts mail for these domains and keeps it.

    Without a relay port everything is deferred unattempted; with one (nothing need
    listen there) delivery is attempted, as during an outage, and again on ``flush``.
    """
    keeping = (
        {"defer_transports": "smtp, relay"}
        if relay_port is None
        else {"relayhost": f"[127.0.0.1]:{relay_port}"}
    )
    role = {"relay_domains": ", ".join(domains)} | keeping | dict(parameters or {})
    return PrivatePostfix(base, hostname="backup.example", parameters=role)


def primary(
    base: Path,
    *,
    domains: Iterable[str] = ("example.org",),
    parameters: Mapping[str, str] | None = None,
) -> "Primary":
    """Return a primary that delivers all mail for these domains into one Maildir.

    It leaves even those bytes alone that a default Postfix cleans: stray CR and LF, and
    header fields that only a final delivery drops.
    """
    role = {
        "virtual_mailbox_domains": ", ".join(domains),
        "virtual_mailbox_base": str(base / "mail"),
        "virtual_mailbox_maps": "static:all/",
        "virtual_uid_maps": "static:65534",
        "virtual_gid_maps": "static:65534",
        "virtual_mailbox_limit": "0",
        "message_size_limit": "0",
        "message_drop_headers": "",
        "cleanup_replace_stray_cr_lf": "no",
    }
    return Primary(
        base, hostname="primary.example", parameters=role | dict(parameters or {})
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One delivery of the primary; addresses as on the wire, lines ended by LF."""

    #: The address of RCPT TO.
    recipient: bytes
    #: Empty for the null sender.
    reverse_path: bytes
    #: The primary's own trace field.
    trace: bytes
    #: What lies below that field: the bytes that the client transmitted.
    content: bytes
    #: The whole file.
    stored: bytes


class Primary(PrivatePostfix):
    """A Postfix whose deliveries a test can read."""

    def __init__(
        self, base: Path, *, hostname: str, parameters: Mapping[str, str]
    ) -> None:
        """Lay it out as ``primary`` says."""
        super().__init__(base, hostname=hostname, parameters=parameters)
        self._mail = base / "mail"
        self._mail.mkdir(exist_ok=True)
        os.chown(self._mail, 65534, 65534)

    def _files(self) -> list[Path]:
        folder = self._mail / "all" / "new"
        return list(folder.iterdir()) if folder.exists() else []

    def received(self) -> list[Received]:
        """Return one entry per message and recipient, in the order of delivery."""
        ordered = sorted(self._files(), key=lambda path: path.stat().st_mtime_ns)
        return [_parse(path.read_bytes()) for path in ordered]

    def wait_received(self, count: int, *, timeout: float = 30) -> list[Received]:
        """Wait for this many deliveries, at least, and return all.

        Raises TimeoutError.
        """
        wait_until(
            lambda: len(self._files()) >= count,
            timeout=timeout,
            what=f"{count} deliveries",
        )
        return self.received()


def _parse(stored: bytes) -> Received:
    fields: list[bytes] = []
    at = 0
    for _ in range(len(_TOP) + 1):
        found = _FIRST_FIELD.match(stored, at)
        if found is None:
            msg = f"no delivered message: {stored[:200]!r}"
            raise ValueError(msg)
        fields.append(found[0])
        at = found.end()
    *top, trace = fields
    if not all(map(bytes.startswith, top, _TOP)) or not trace.startswith(b"Received: "):
        msg = f"unexpected fields at the top: {fields!r}"
        raise ValueError(msg)
    path, recipient, _ = (line.partition(b": ")[2].strip() for line in top)
    return Received(
        recipient=recipient,
        reverse_path=path.removeprefix(b"<").removesuffix(b">"),
        trace=trace,
        content=stored[at:],
        stored=stored,
    )


class SmtpSink:
    """Postfix's smtp-sink on a free loopback port: the fastest server there is.

    Options are its own (``man smtp-sink``), such as ``-w 1`` to delay the reply to
    DATA.
    """

    def __init__(self, *options: str, ready_queue: int = 1000) -> None:
        """Choose a port; nothing runs yet."""
        self.options: Sequence[str] = options
        self.port = free_port()
        self._ready_queue = ready_queue
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing_reason() -> str | None:
        """Say why there is no sink on this host, or None."""
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
        return (
            None
            if shutil.which("smtp-sink", path=path)
            else "smtp-sink is not installed"
        )

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    @property
    def pid(self) -> int:
        """The process; raises RuntimeError when it does not run."""
        if self._process is None:
            msg = "the sink is not running"
            raise RuntimeError(msg)
        return self._process.pid

    def start(self) -> None:
        """Start it; returns when the port answers."""
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        place = [f"127.0.0.1:{self.port}", str(self._ready_queue)]
        self._process = subprocess.Popen(
            [program("smtp-sink"), *as_user, *self.options, *place],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._answers, timeout=10, what=f"smtp-sink on port {self.port}")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def stop(self) -> None:
        """End it; harmless when repeated."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(timeout=10)
