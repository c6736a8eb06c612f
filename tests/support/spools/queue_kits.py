"""Queues and folders laid out by hand, for the suite that every source passes."""

import json
import os
from pathlib import Path
from typing import Literal

from drainer.sources.eml.source import EmlDirectory
from drainer.sources.haraka.source import HarakaQueue
from drainer.sources.opensmtpd.source import OpensmtpdQueue
from drainer.sources.qmail.source import QmailQueue
from drainer.sources.sendmail.source import SendmailQueue

HEADER = "Received: from c by mx2\n\tid 1; Mon\nSubject: {}\n"

Mode = Literal["keep", "remove"]


def mode(*, drops: bool) -> Mode:
    """Return what acknowledging does."""
    return "remove" if drops else "keep"


def control_file(header: str, recipients: str = "RPFD:<r@example.org>\n") -> str:
    """Return a control file of sendmail."""
    front = f"V8\nT1795453619\nK0\nN0\nP30000\nS<s@example.com>\n{recipients}"
    fields = header.replace("\nSubject", "\nH??Subject")
    return f"{front}H?P?Return-Path: <\x81g>\nH??{fields}.\n"


class SendmailKit:
    """A queue directory of sendmail, flat."""

    def open(self, root: Path, *, drops: bool = False) -> SendmailQueue:
        """Open the queue directory."""
        return SendmailQueue(root, acknowledge=mode(drops=drops))

    def write(self, root: Path, name: bytes, subject: str, body: str = "body") -> Path:
        """Write a body and a control file."""
        root.mkdir(exist_ok=True)
        text = os.fsdecode(name)
        (root / f"df{text}").write_text(f"{body}\n")
        path = root / f"qf{text}"
        path.write_text(control_file(HEADER.format(subject)), "latin-1")
        return path

    def move_within(self, path: Path) -> Path:
        """Move a message to another queue of the group, as qtool does."""
        queue = path.parent / "q2"
        for folder in ("qf", "df"):
            (queue / folder).mkdir(parents=True, exist_ok=True)
        body = path.with_name(f"df{path.name[2:]}")
        body.rename(queue / "df" / body.name)
        return path.rename(queue / "qf" / path.name)

    def file_name(self, native_id: str) -> str:
        """Name a control file."""
        return f"qf{native_id}"


def address(user: str, host: str) -> dict[str, object]:
    """Return an address as Haraka stores it."""
    return {"original": f"<{user}@{host}>", "user": user, "host": host}


def todo(uuid: str) -> dict[str, object]:
    """Return what the JSON of a queue file of Haraka holds."""
    return {
        "queue_time": 1795453619413,
        "domain": "example.org",
        "rcpt_to": [address("r", "example.org")],
        "mail_from": address("s", "example.com"),
        "notes": {},
        "uuid": uuid,
        "force_tls": False,
    }


def haraka_file(values: object, content: bytes) -> bytes:
    """Return a queue file of Haraka; the content must be dot-stuffed."""
    text = f"\n{json.dumps(values)}\n".encode()
    return len(text).to_bytes(4, "big") + text + content


class HarakaKit:
    """A queue directory of Haraka."""

    def open(self, root: Path, *, drops: bool = False) -> HarakaQueue:
        """Open the queue directory."""
        return HarakaQueue(root, acknowledge=mode(drops=drops))

    def write(self, root: Path, name: bytes, subject: str, body: str = "body") -> Path:
        """Write a queue file."""
        root.mkdir(exist_ok=True)
        text = f"{HEADER.format(subject)}\n{body}\n".replace("\n", "\r\n")
        tag = os.fsdecode(name)
        path = root / f"1795453619413_1795453619413_0_99999999_{tag}_1_mx2"
        path.write_bytes(haraka_file(todo(tag), text.encode()))
        return path

    def move_within(self, path: Path) -> Path:
        """Put a message off, as an attempt that failed does."""
        tag = path.name.split("_")[4]
        name = f"1795453619413_1795453719413_1_99999998_{tag}_7_mx2"
        return path.rename(path.with_name(name))

    def file_name(self, native_id: str) -> str:
        """Name a file."""
        return native_id


ENVELOPE = """\
version: 3
dispatcher: relay
type: mta
smtpname: mx2.example.org
helo: mail.example.com
hostname: localhost
errorline: 450 4.2.1 busy
sockaddr: 127.0.0.1
sender: s@example.com
rcpt: r@example.org
dest: r@example.org
ctime: 1795453619
last-try: 0
last-bounce: 0
ttl: 0
retry: 1
dsn-notify: 0
esc-class: 4
esc-code: 0
"""


class OpensmtpdKit:
    """A spool of OpenSMTPD; each message has one recipient."""

    def open(self, root: Path, *, drops: bool = False) -> OpensmtpdQueue:
        """Open the spool."""
        return OpensmtpdQueue(root, acknowledge=mode(drops=drops))

    def write(self, root: Path, name: bytes, subject: str, body: str = "body") -> Path:
        """Write a content and an envelope."""
        text = os.fsdecode(name)
        folder = root / "queue" / "28" / text
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "message").write_text(f"{HEADER.format(subject)}\n{body}\n")
        (folder / text).write_text(ENVELOPE)
        return folder / text

    def move_within(self, path: Path) -> Path:
        """Move a message to another directory, as a repair by hand would."""
        folder = path.parents[2] / "29"
        folder.mkdir()
        return path.parent.rename(folder / path.parent.name) / path.name

    def file_name(self, native_id: str) -> str:
        """Name an envelope."""
        return native_id


class QmailKit:
    """A queue of qmail, preprocessed, with one remote recipient."""

    def open(self, root: Path, *, drops: bool = False) -> QmailQueue:
        """Open the queue."""
        return QmailQueue(root, acknowledge=mode(drops=drops))

    def write(self, root: Path, name: bytes, subject: str, body: str = "body") -> Path:
        """Write content, sender and recipient."""
        text = f"{HEADER.format(subject)}\n{body}\n".encode()
        files = {
            "info": b"Fs@example.com\0",
            "remote": b"Tr@example.org\0",
            "mess": text,
        }
        return lay_out_qmail(root, os.fsdecode(name), files)

    def move_within(self, path: Path) -> Path:
        """Move a message to another hash directory, as after another conf-split."""
        root = path.parents[2]
        for kind in ("info", "remote", "mess"):
            folder = root / kind / "7"
            folder.mkdir(parents=True)
            (root / kind / "5" / path.name).rename(folder / path.name)
        return root / "mess" / "7" / path.name

    def file_name(self, native_id: str) -> str:
        """Name a content."""
        return native_id


class EmlKit:
    """A folder of .eml files with their envelope on top."""

    def open(self, root: Path, *, drops: bool = False) -> EmlDirectory:
        """Open the folder."""
        return EmlDirectory(root, acknowledge=mode(drops=drops))

    def write(self, root: Path, name: bytes, subject: str, body: str = "body") -> Path:
        """Write a file."""
        root.mkdir(exist_ok=True)
        top = "X-Envelope-From: <s@example.com>\nX-Envelope-To: r@example.org\n"
        path = root / f"{os.fsdecode(name)}.eml"
        path.write_text(f"{top}{HEADER.format(subject)}\n{body}\n")
        return path

    def move_within(self, path: Path) -> Path:
        """Copy a folder to another system and back."""
        return path.rename(path.with_suffix(".EML"))

    def file_name(self, native_id: str) -> str:
        """Name a file."""
        return f"{native_id}.eml"


def lay_out_qmail(root: Path, name: str, files: dict[str, bytes]) -> Path:
    """Write files of a message by their directories; return where content goes."""
    for kind, data in files.items():
        is_flat = kind in ("todo", "intd", "bounce")
        folder = root / kind if is_flat else root / kind / "5"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return root / "mess" / "5" / name
