"""Exim spool files made by hand, for what no real Exim would write."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

ID = b"1xVXY1-0005y3-2M"
VARIABLES = (
    b"-received_time_usec .413160",
    b"--helo_name client.example.net",
    b"--host_address [192.0.2.7]:40404",
    b"-received_protocol esmtp",
)


def header_file(  # noqa: PLR0913 - one per part of the file
    *,
    identifier: bytes = ID,
    sender: bytes = b"s@example.com",
    variables: Iterable[bytes] = VARIABLES,
    tree: bytes = b"XX\n",
    recipients: Sequence[bytes] = (b"r@example.org",),
    fields: Iterable[tuple[bytes, bytes]] = ((b" ", b"Subject: hi\n"),),
    times: bytes = b"1795453619 0",
) -> bytes:
    """Return a sound ``-H`` file."""
    lines = [identifier + b"-H", b"Debian-exim 4269 4269", b"<" + sender + b">", times]
    result = b"".join(line + b"\n" for line in [*lines, *variables])
    result += tree + b"%d\n" % len(recipients)
    result += b"".join(recipient + b"\n" for recipient in recipients) + b"\n"
    return result + b"".join(
        b"%03d%s %s" % (len(text), flag, text) for flag, text in fields
    )


def data_file(body: bytes = b"body\n", identifier: bytes = ID) -> bytes:
    """Return a ``-D`` file."""
    return identifier + b"-D\n" + body


def place(
    root: Path,
    header: bytes | None = None,
    data: bytes | None = None,
    *,
    name: str = ID.decode(),
    parts: Sequence[str] = ("input",),
) -> Path:
    """Put a message into a spool; return the path of its ``-H`` file."""
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-D").write_bytes(data_file() if data is None else data)
    path = folder / f"{name}-H"
    path.write_bytes(header_file() if header is None else header)
    return path


def write_message(
    root: Path, name: bytes, text: bytes, *, parts: Sequence[str] = ("input",)
) -> Path:
    """Put a message of that text (with LF) into a spool, called by any name."""
    identifier = hashlib.sha256(name).hexdigest()[:16].encode()
    top, _, body = text.partition(b"\n\n")
    lines = b"-body_linecount %d" % body.count(b"\n")
    fields: list[tuple[bytes, bytes]] = []
    for line in (top + b"\n").splitlines(keepends=True):
        if line.startswith((b" ", b"\t")):
            fields[-1] = (fields[-1][0], fields[-1][1] + line)
        else:
            fields.append((b"P" if line.startswith(b"Received") else b" ", line))
    header = header_file(
        identifier=identifier, variables=(*VARIABLES, lines), fields=fields
    )
    data = data_file(body, identifier)
    return place(root, header, data, name=os.fsdecode(name), parts=parts)
