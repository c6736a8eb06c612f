"""Mail laid out by hand in an mbox, an archive, or an export of Postfix's tools."""

import json
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from drainer.sources.mbox.source import Mbox
from drainer.sources.postcat.source import PostcatExport
from drainer.sources.protocol import Source
from drainer.sources.registry import open_source
from tests.support.spools.queue_kits import HEADER

TOP = "Return-Path: <s@example.com>\nX-Original-To: r@example.org\n"
FROM = "From s@example.com  Mon Nov 23 17:06:59 2026\n"


class Store(Protocol):
    """How to lay out a store of one kind; it is only ever read."""

    #: How its name ends.
    suffix: str

    def write(self, root: Path, mails: Sequence[tuple[str, str]]) -> None:
        """Lay it out anew with these messages: (Subject, body)."""
        ...

    def open(self, root: Path) -> Source:
        """Open it."""
        ...


def text(subject: str, body: str) -> str:
    """Return a message as the backup accepted it, with LF line ends."""
    return f"{HEADER.format(subject)}\n{body}\n"


class MboxStore:
    """An mbox file."""

    suffix = ""

    def write(self, root: Path, mails: Sequence[tuple[str, str]]) -> None:
        """Write the file."""
        with root.open("w") as file:
            for subject, body in mails:
                file.write(f"{FROM}{TOP}{text(subject, body)}\n")

    def open(self, root: Path) -> Mbox:
        """Open the file."""
        return Mbox(root)


def dump(queue_id: str, content: str, path: str = "") -> str:
    """Return what ``postcat -q`` prints of a message."""
    path = path or f"deferred/{queue_id[:1]}/{queue_id}"
    return (
        f"*** ENVELOPE RECORDS {path} ***\n"
        "message_size:             308             704               1\n"
        "message_arrival_time: Mon Nov 23 20:24:20 2026\n"
        "sender: s@example.com\n"
        "recipient: r@example.org\n"
        f"*** MESSAGE CONTENTS {path} ***\n"
        f"{content}"
        f"*** HEADER EXTRACTED {path} ***\n"
        f"*** MESSAGE FILE END {path} ***\n"
    )


def list_line(queue_id: str, /, **more: object) -> str:
    """Return a line of ``postqueue -j``."""
    facts: dict[str, object] = {
        "queue_name": "deferred",
        "queue_id": queue_id,
        "arrival_time": 1795465460,
        "message_size": 308,
        "forced_expire": False,
        "sender": "s@example.com",
        "recipients": [{"address": "r@example.org", "delay_reason": "x"}],
    }
    return json.dumps(facts | more) + "\n"


class PostcatStore:
    """A list of postqueue, and a dump of postcat for each message."""

    suffix = ""

    def write(self, root: Path, mails: Sequence[tuple[str, str]]) -> None:
        """Write list and dumps."""
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        lines = []
        for number, (subject, body) in enumerate(mails):
            queue_id = f"2878E{number}"
            (root / queue_id).write_text(dump(queue_id, text(subject, body)))
            lines.append(list_line(queue_id))
        (root / "queue.json").write_text("".join(lines))

    def open(self, root: Path) -> PostcatExport:
        """Open the folder."""
        return PostcatExport(root)


class ArchiveStore:
    """A Maildir in an archive."""

    def __init__(self, suffix: str) -> None:
        """Choose the packing by the end of its name."""
        self.suffix = suffix

    def write(self, root: Path, mails: Sequence[tuple[str, str]]) -> None:
        """Lay out a Maildir and pack it."""
        folder = root.parent / "packed" / "mail"
        shutil.rmtree(folder.parent, ignore_errors=True)
        for name in ("tmp", "new", "cur"):
            (folder / name).mkdir(parents=True)
        for number, (subject, body) in enumerate(mails):
            path = folder / "new" / f"1795453619.M{number}.mx2"
            path.write_text(TOP + text(subject, body))
        pack(folder.parent, root)
        shutil.rmtree(folder.parent)

    def open(self, root: Path) -> Source:
        """Open the archive."""
        return open_source(f"maildir:{root}", options={})


def pack(folder: Path, archive: Path) -> None:
    """Pack what a folder contains with the usual tools."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for path in sorted(folder.rglob("*")):
                out.write(path, path.relative_to(folder))
        return
    plain = archive.with_name("plain.tar")
    with tarfile.open(plain, "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    packers = {"gz": "gzip", "xz": "xz", "zst": "zstd"}
    packer = packers.get(archive.name.rpartition(".")[2])
    if packer is None:
        plain.rename(archive)
        return
    with archive.open("wb") as out, plain.open("rb") as source:
        subprocess.run([packer, "-c"], stdin=source, stdout=out, check=True)
    plain.unlink()


STORES: dict[str, Store] = {
    "mbox": MboxStore(),
    "postcat": PostcatStore(),
    "tar": ArchiveStore(".tar"),
    "tar.gz": ArchiveStore(".tar.gz"),
    "tar.xz": ArchiveStore(".tar.xz"),
    "tar.zst": ArchiveStore(".tar.zst"),
    "zip": ArchiveStore(".zip"),
}
