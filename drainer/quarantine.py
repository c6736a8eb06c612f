"""Copies of our own of messages that may become final without being delivered.

A folder beside the ledger: ``ID.eml`` with the content as it would be transmitted,
and ``ID.json`` with the envelope, in the form of the eml source; so a quarantine is
a spool that drainer reads. A copy is made before the attempt that may make a
refusal final, and is durable before that attempt begins.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        """Make a durable copy for these recipients; again, it is also for the others.

        Raises MessageUnreadable when the content cannot be read, and OSError when
        there is no room.
        """
        make_private_folder(self.folder)
        name = _name(spooled.message.id, claimed)
        known = self._recipients(name)
        # The envelope first: without it the fields of the message would count as one.
        self._write(f"{name}.json", [_envelope(spooled, claimed, known)])
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
        """Forget these recipients of a message, and a copy that is for nobody else."""
        gone = {_path(each) for each in claimed}
        for path in sorted(self.folder.glob(f"{message}.*.json")):
            known = self._recipients(path.stem)
            left = [each for each in known if each["forward_path"] not in gone]
            if not left:
                path.with_suffix(".eml").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
            elif len(left) < len(known):
                facts = json.loads(path.read_bytes()) | {"recipients": left}
                self._write(path.name, [_json(facts)])

    def _recipients(self, name: str) -> list[dict[str, Any]]:
        """Return whom a copy is for; nobody when there is none."""
        try:
            facts = json.loads((self.folder / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return []
        found: list[dict[str, Any]] = facts["recipients"]
        return found

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


def _path(claimed: Claimed) -> str:
    """Return the address as the spool has it."""
    return claimed.recipient.original or claimed.recipient.forward_path


def _envelope(
    spooled: Spooled, claimed: Iterable[Claimed], known: Iterable[dict[str, Any]]
) -> bytes:
    message = spooled.message
    envelope, client = message.envelope, message.client
    recipients = {each["forward_path"]: each for each in known} | {
        _path(each): {
            "forward_path": _path(each),
            "orcpt": each.recipient.orcpt,
            "notify": list(each.recipient.notify),
        }
        for each in claimed
    }
    facts = {
        "id": message.id,
        "native_id": message.native_id,
        "source": message.source,
        "arrived": message.arrived.isoformat(),
        "reverse_path": envelope.reverse_path,
        "recipients": list(recipients.values()),
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
    return _json(facts)


def _json(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, indent=1).encode() + b"\n"
