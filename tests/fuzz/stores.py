"""Readers of what is no queue: an mbox, an archive, exports, .eml with a sidecar.

A whole store may be refused, which a message of a queue may not.
"""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

import zstandard

from drainer.delivery.loader import examine
from drainer.errors import SourceError
from drainer.policy.admission.admit import Admission
from drainer.sources.eml.source import EmlDirectory
from drainer.sources.maildir.source import Maildir
from drainer.sources.mbox.source import Mbox
from drainer.sources.protocol import Source
from tests.fuzz.target import Run, Target, check_message
from tests.support.spools.queue_kits import EmlKit
from tests.support.spools.store_kits import STORES, Store

_RULES: Final = Admission()
_MAILS: Final = [("one", "From the body\nx"), ("two", "y")]
_VARIANTS: Final[tuple[Literal["plain", "mboxrd", "mboxcl", "mboxcl2"], ...]] = (
    "plain",
    "mboxrd",
    "mboxcl",
    "mboxcl2",
)
_MBOX_TOKENS: Final = (
    b"\nFrom s@example.com  Mon Nov 23 17:06:59 2026\n", b"\n>From ", b"\n\n",
    b"Content-Length: 9\n", b"X-Status: D\n", b"Delivered-To: a@b\n", b"\n\nFrom \n",
    b"\nFrom - 2026-11-23T17:06\r\n", b"From x 23 Nov 2026 17:06\nReceived: x\n", b"\0",
)  # fmt: skip
_POSTCAT_TOKENS: Final = (
    b"*** MESSAGE CONTENTS ", b"*** HEADER EXTRACTED ", b"*** MESSAGE FILE END ",
    b"recipient: a@b\n", b"done_recipient: ", b"named_attribute: a=b\n", b" ***\n",
    b'"queue_id": "', b'"recipients": []', b"\\ud800", b"[[[[", b"NaN",
)  # fmt: skip
_ARCHIVE_TOKENS: Final = (
    b"ustar", b"PK\1\2", b"PK\3\4", b"../", b"0000644\0", b"27 path=/x\n", b"\0" * 512,
)  # fmt: skip
_SIDECAR: Final = {
    "reverse_path": "s@example.com",
    "recipients": ["r@example.org", {"forward_path": "q@example.org", "notify": ["x"]}],
    "done": ["p@example.org"],
    "arrived": "2026-11-23T17:06:59Z",
    "client": {"address": "192.0.2.7", "name": None, "helo": "mail"},
    "verp": "+=",
}
_SIDECAR_TOKENS: Final = (b"null", b"[[[[", b'"\\u0000"', b"1e999", b"\\ud800", b"{}")


def targets() -> Iterator[Target]:
    """Yield a target for each file that such a store has."""
    for variant in _VARIANTS:
        opened = partial(Mbox, variant=variant)
        yield _target("mbox", "", opened, *_MBOX_TOKENS, name=f"mbox, {variant}")
    for file in ("queue.json", "2878E0"):
        yield _target("postcat", file, STORES["postcat"].open, *_POSTCAT_TOKENS)
    for kind in ("tar", "zip"):
        yield _target(kind, "", STORES[kind].open, *_ARCHIVE_TOKENS)
    mail = (
        b"Return-Path: <s@e.com>\nDelivered-To: r@p.org\nReceived: x\n\n" + 9 * b"x\n"
    )
    yield Target(
        name="packed Maildir file",
        prepare=_packed,
        seeds=[pack(mail) for pack in (gzip.compress, bz2.compress, lzma.compress)]
        + [zstandard.compress(mail), gzip.compress(mail) * 2],
        tokens=(b"\x1f\x8b\x08", b"BZh9", b"\x28\xb5\x2f\xfd", b"\0" * 8, b"\xff" * 4),
    )
    yield Target(
        name="eml sidecar",
        prepare=_sidecar,
        seeds=[json.dumps(_SIDECAR).encode()],
        tokens=_SIDECAR_TOKENS,
    )


def _target(
    kind: str,
    file: str,
    opened: Callable[[Path], Source],
    *tokens: bytes,
    name: str = "",
) -> Target:
    store = STORES[kind]
    return Target(
        name=name or f"{kind} {file}".strip(),
        prepare=lambda folder: _scanning(_laid_out(store, folder), file, opened),
        seeds=[_usual(store, file)],
        tokens=tokens,
    )


def _laid_out(store: Store, folder: Path) -> Path:
    """Lay a store out and return where."""
    root = folder / f"spool{store.suffix}"
    store.write(root, _MAILS)
    return root


def _usual(store: Store, file: str) -> bytes:
    """Return what stands in a file of it."""
    with TemporaryDirectory() as folder:
        return (_laid_out(store, Path(folder)) / file).read_bytes()


def _sidecar(folder: Path) -> Run:
    root = folder / "spool"
    EmlKit().write(root, b"a", "x")
    return _scanning(root, "a.json", EmlDirectory)


def _packed(folder: Path) -> Run:
    root = folder / "spool"
    for name in ("tmp", "new", "cur"):
        (root / name).mkdir(parents=True)
    return _scanning(root, "new/1.x.host", Maildir)


def _scanning(root: Path, file: str, opened: Callable[[Path], Source]) -> Run:
    """Return what scans the store with other bytes in that file."""

    def run(data: bytes) -> None:
        (root / file).write_bytes(data)
        with suppress(SourceError):
            for spooled in opened(root).scan():
                check_message(examine(spooled, _RULES))

    return run
