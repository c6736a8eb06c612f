"""Export quarantined messages to a Maildir or a folder of .eml files.

Nothing is ever overwritten. A message that our own sources would not read back with the
same envelope and content is skipped, with the reason.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from drainer.bounce.quarantine.store import sidecar_of
from drainer.errors import MessageUnreadable, UsageError
from drainer.mail.content import MAX_HEADER_BYTES, survey
from drainer.mail.message import Message, SpooledMessage
from drainer.runtime.folders import sync_folder
from drainer.runtime.private_files import (
    link_private,
    make_private_folder,
    read_private,
    remove_private,
    write_private,
)
from drainer.sources.common.files import read_beginning
from drainer.sources.common.trace_envelope import TraceRules
from drainer.sources.common.trace_headers import read_trace
from drainer.sources.eml.sidecar import parse_sidecar

_THERE = "it exists already"


class SkippedMessage(Exception):
    """A message that was not written, and why."""


def target_of(text: str, quarantine: Path) -> "MaildirTarget | EmlTarget":
    """Return the target that ``maildir:DIR`` or ``eml:DIR`` names; else UsageError.

    Missing folders are created. ``add`` writes a message for the recipients of its
    envelope. It raises SkippedMessage, MessageUnreadable if the content cannot be read,
    and OSError without room on the disk.
    """
    kind, _, name = text.partition(":")
    folder = Path(name).expanduser().absolute()
    if kind not in ("maildir", "eml") or not name:
        message = f"{text[:200]!r} is not a target"
        raise UsageError(message, hint="write maildir:DIR or eml:DIR")
    if folder.resolve().is_relative_to(quarantine.resolve()):
        message = f"{folder} is the quarantine itself"
        raise UsageError(message, hint="name another folder")
    try:
        return MaildirTarget(folder) if kind == "maildir" else EmlTarget(folder)
    except OSError as error:
        message = f"cannot create {folder}: {error.strerror}"
        raise UsageError(message, hint="name another folder") from error


class EmlTarget:
    """A folder with ``ID.eml`` and the envelope beside it, with every parameter."""

    def __init__(self, folder: Path) -> None:
        """Create the folder if necessary."""
        self._folder = folder
        make_private_folder(folder)

    def add(self, spooled: SpooledMessage) -> None:
        """Write the envelope first: the folder never has a file without it."""
        message = spooled.message
        sidecar = sidecar_of(message, message.envelope.recipients)
        try:
            parse_sidecar(sidecar)
        except MessageUnreadable as error:
            raise SkippedMessage(f"cannot write its envelope: {error}") from error
        path, beside = (self._folder / f"{message.id}.{s}" for s in ("eml", "json"))
        if os.path.lexists(path):
            raise SkippedMessage(_THERE)
        try:
            _write(beside, self._folder, [sidecar])
        except SkippedMessage:  # a crash may have left just that
            if read_private(beside) != sidecar:
                raise
        _write(path, self._folder, spooled.content.chunks())

    def finish(self) -> None:
        """Make the names durable."""
        sync_folder(self._folder)


class MaildirTarget:
    """A Maildir whose messages have Return-Path and Delivered-To on top."""

    def __init__(self, folder: Path) -> None:
        """Create the folders if necessary."""
        self._folder = folder
        for name in ("tmp", "new", "cur"):
            make_private_folder(folder / name)

    def add(self, spooled: SpooledMessage) -> None:
        """Deliver it as a delivery agent would, with lines ending in LF."""
        message = spooled.message
        facts = survey(spooled.content.chunks())
        if facts.bare_newlines or not facts.size_bytes:
            raise SkippedMessage("its line ends would be changed; export it to eml:DIR")
        fields = _fields(message)
        head = fields + read_beginning(_lf(spooled.content.chunks()), MAX_HEADER_BYTES)
        if not _reads_back(head, len(fields), message):
            words = "its own header starts like a delivery's; export it to eml:DIR"
            raise SkippedMessage(words)
        name = f"{int(message.arrived.timestamp())}.{message.id}.drainer"
        if any(self._folder.glob(f"cur/{name}*")):
            raise SkippedMessage(_THERE)
        temporary = self._folder / "tmp"
        chunks = (fields, *_lf(spooled.content.chunks()))
        _write(self._folder / "new" / name, temporary, chunks)

    def finish(self) -> None:
        """Make the names durable."""
        sync_folder(self._folder / "new")


def _fields(message: Message) -> bytes:
    envelope = message.envelope
    lines = [f"Return-Path: <{envelope.reverse_path}>"]
    lines += [f"Delivered-To: {each.forward_path}" for each in envelope.recipients]
    return "".join(f"{line}\n" for line in lines).encode()


def _reads_back(head: bytes, length: int, message: Message) -> bool:
    """Return whether our sources find this envelope on top, and nothing more."""
    trace, envelope = read_trace(head, TraceRules()), message.envelope
    found = [each.forward_path for each in trace.envelope.recipients]
    return (
        trace.problem is None
        and trace.envelope.reverse_path == envelope.reverse_path
        and found == [each.forward_path for each in envelope.recipients]
        and max(end for _, end in trace.stripped) == length
    )


def _lf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Turn CRLF into LF; there is no other CR or LF."""
    for chunk in chunks:
        yield chunk.replace(b"\r", b"")


def _write(path: Path, temporary: Path, chunks: Iterable[bytes]) -> None:
    """Write a durable file that did not exist; raise SkippedMessage if it does."""
    unfinished = temporary / f".{path.name}.{os.getpid()}"
    try:
        write_private(unfinished, chunks)
        link_private(unfinished, path)  # unlike a rename it never replaces another
    except FileExistsError:
        raise SkippedMessage(_THERE) from None
    finally:
        with suppress(OSError):
            remove_private(unfinished)
