"""Copies of our own of messages that may become final without being delivered.

A folder beside the ledger: ``ID.eml`` with the content as it would be transmitted,
and ``ID.json`` with the envelope, in the form of the eml source; so a quarantine is
a spool that drainer reads. A copy is made before the attempt that may make a
refusal final, and is durable before that attempt begins.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drainer.errors import MessageUnreadable
from drainer.mail.message import Message, Spooled
from drainer.policy.job import Claimed
from drainer.process import make_private_folder

_PRIVATE = 0o600
_CHUNK_BYTES = 128 * 1024


class Quarantine:
    """A folder of copies."""

    def __init__(self, folder: Path) -> None:
        """Make nothing before the first copy."""
        self.folder = folder

    def keep(self, spooled: Spooled, claimed: Sequence[Claimed]) -> None:
        """Make a durable copy for these recipients; again, it replaces the first.

        Raises MessageUnreadable when the content cannot be read, and OSError when
        there is no room.
        """
        make_private_folder(self.folder)
        name = _name(spooled.message.id, claimed)
        # The envelope first: without it the fields of the message would count as one.
        self._write(f"{name}.json", [_envelope(spooled, claimed)])
        self._write(f"{name}.eml", spooled.content.chunks())
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def open(self, message: Message) -> Spooled | None:
        """Return a message as it was copied, or None when there is no copy."""
        copies = sorted(self.folder.glob(f"{message.id}.*.eml"))
        if not copies:
            return None
        return Spooled(message=message, content=_Copy(copies[0]))

    def remove(self, message: str, claimed: Sequence[Claimed]) -> None:
        """Forget the copy that was made for these recipients of a message."""
        name = _name(message, claimed)
        for suffix in (".eml", ".json"):
            with suppress(FileNotFoundError):
                (self.folder / f"{name}{suffix}").unlink()

    def _write(self, name: str, chunks: Iterable[bytes]) -> None:
        unfinished = self.folder / f".{name}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        descriptor = os.open(unfinished, flags, _PRIVATE)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - it must follow no link
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.folder / name)
        except BaseException:
            unfinished.unlink(missing_ok=True)  # where there is no room, take none
            raise


@dataclass(frozen=True, slots=True)
class _Copy:
    """The content of a copy."""

    path: Path

    def chunks(self) -> Iterator[bytes]:
        """Yield it; MessageUnreadable when it is gone."""
        try:
            with self.path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            code = "vanished"
            raise MessageUnreadable(code, f"its copy: {error.strerror}") from error


def _name(message: str, claimed: Sequence[Claimed]) -> str:
    """Return a name of its own for every part of a message."""
    return f"{message}.{claimed[0].n}"


def _envelope(spooled: Spooled, claimed: Iterable[Claimed]) -> bytes:
    message = spooled.message
    envelope, client = message.envelope, message.client
    recipients = [
        {
            "forward_path": each.recipient.forward_path,
            "orcpt": each.recipient.orcpt,
            "notify": list(each.recipient.notify),
        }
        for each in claimed
    ]
    facts = {
        "id": message.id,
        "native_id": message.native_id,
        "source": message.source,
        "arrived": message.arrived.isoformat(),
        "reverse_path": envelope.reverse_path,
        "recipients": recipients,
        "body": envelope.body or None,
        "smtputf8": envelope.smtputf8,
        "envid": envelope.envid or None,
        "ret": envelope.ret or None,
        "login": message.login or None,
        "whole": True,
        "client": {
            "address": client.address,
            "name": client.name,
            "helo": client.helo,
        },
    }
    return json.dumps(facts, indent=1).encode() + b"\n"
