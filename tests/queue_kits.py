"""Queues of servers laid out by hand, for the suite that every source passes."""

import os
from pathlib import Path
from typing import Literal

from drainer.sources.sendmail import SendmailQueue

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
