"""Postfix queue files made by hand, for what no real Postfix would write."""

from collections.abc import Iterable, Sequence
from pathlib import Path

LINE_LENGTH_LIMIT = 2048
ARRIVAL = b"1795453619 413160"


def record(kind: str, payload: bytes | str = b"") -> bytes:
    """Return one record: type, length in groups of seven bits, payload."""
    if isinstance(payload, str):
        payload = payload.encode()
    length, groups = len(payload), bytearray()
    while length > 0x7F:
        groups.append(length & 0x7F | 0x80)
        length >>= 7
    return kind.encode() + bytes((*groups, length)) + payload


def size_record(content_bytes: int, data_offset: int = 97, sendopts: int = 0) -> bytes:
    """Return a 'C' record; the number of recipients and the flags mean nothing here."""
    numbers = (content_bytes, data_offset, 1, 0, content_bytes, sendopts)
    return record("C", "".join(f"{number:15d} " for number in numbers)[:-1])


def lines(text: bytes) -> bytes:
    """Return the content records of LF text, split at 2048 as cleanup does."""
    result = bytearray()
    for line in text.splitlines(keepends=True):
        bare = line.rstrip(b"\n")
        whole = len(bare) - len(bare) % LINE_LENGTH_LIMIT
        for start in range(0, whole, LINE_LENGTH_LIMIT):
            result += record("L", bare[start : start + LINE_LENGTH_LIMIT])
        result += record("N" if line.endswith(b"\n") else "L", bare[whole:])
    return bytes(result)


def queue_file(
    *,
    sender: bytes = b"s@example.com",
    envelope: Iterable[bytes] = (record("R", "r@example.org"),),
    text: bytes = b"Subject: hi\n\nbody\n",
    extracted: Iterable[bytes] = (),
    sendopts: int = 0,
) -> bytes:
    """Return a sound queue file without pointers."""
    front = record("T", ARRIVAL) + record("S", sender) + b"".join(envelope)
    front += record("M")
    content = lines(text)
    size = size_record(len(content), 97 + len(front), sendopts)
    return size + front + content + record("X") + b"".join(extracted) + record("E")


def place(
    root: Path,
    data: bytes,
    name: str = "2878E21E2F1",
    parts: Sequence[str] = ("deferred", "2"),
) -> Path:
    """Write a complete queue file into a queue directory."""
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    path.chmod(0o700)
    return path
