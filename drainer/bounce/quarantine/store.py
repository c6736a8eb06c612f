"""Our own copies of messages that may become final without being delivered.

The folder has ``ID.n.eml`` with the content as it would be transmitted, and
``ID.n.json`` with the envelope: a spool for the eml source. A copy is durable before
the attempt that may make a refusal final. It serves all recipients of a message.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict, replace

from drainer.errors import MessageUnreadable
from drainer.mail.envelope import Recipient
from drainer.mail.message import Message, SpooledMessage
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.runtime.folders import sync_folder
from drainer.runtime.private_files import (
    make_private_folder,
    open_present,
    open_private,
    remove_private,
    rename_private,
)
from drainer.sources.eml.sidecar import VERP
from drainer.sources.protocol import Source

_CHUNK_BYTES = 128 * 1024
_NAME = re.compile(r"\.?([0-9a-f]{32})\.[0-9]+\.(?:eml|json)")


class Quarantine:
    """A folder of copies."""

    def __init__(self, folder: Path) -> None:
        """Prepare; the folder is created with the first copy."""
        self.folder = folder

    def keep(
        self, spooled: SpooledMessage, claimed: Sequence[ClaimedRecipient]
    ) -> None:
        """Make a durable copy for these recipients, unless the message is a copy.

        Raises MessageUnreadable if the content cannot be read, and OSError without
        room on the disk.
        """
        if isinstance(spooled.content, _Copy):
            return
        make_private_folder(self.folder)
        name = _name(spooled.message.id, claimed)
        # The envelope first: without it the fields of the message would count as one.
        recipients = [each.recipient for each in claimed]
        self._write(f"{name}.json", [sidecar_of(spooled.message, recipients)])
        self._write(f"{name}.eml", spooled.content.chunks())
        sync_folder(self.folder)

    def open(self, message: Message) -> SpooledMessage | None:
        """Return a message as it was copied, or None if there is no copy."""
        copies = sorted(self.folder.glob(f"{message.id}.*.eml"))
        if not copies:
            return None
        return SpooledMessage(message=message, content=_Copy(copies[0]))

    def messages(self) -> set[str]:
        """Return the ids of all messages that have any file in the quarantine."""
        return {id_ for id_, _ in self._files()}

    def copied(self) -> set[str]:
        """Return the ids of the messages that have a whole copy in the quarantine."""
        return {
            id_
            for id_, path in self._files()
            if path.suffix == ".eml" and not path.name.startswith(".")
        }

    def forget(self, ids: Iterable[str]) -> None:
        """Remove all copies of these messages; what cannot be removed stays."""
        unwanted = set(ids)
        if not unwanted:
            return
        # The envelope last: the folder never has a file without it.
        for id_, path in sorted(self._files()):
            if id_ in unwanted:
                with suppress(OSError):
                    remove_private(path)

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Yield the files by the id of their message; unfinished files, too."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if match := _NAME.fullmatch(path.name):
                    yield match[1], path

    def _write(self, name: str, chunks: Iterable[bytes]) -> None:
        unfinished = self.folder / f".{name}"
        descriptor = open_private(unfinished, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - it must follow no link
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            rename_private(unfinished, name)
        except BaseException:
            with suppress(OSError):
                remove_private(unfinished)  # without room, leave none behind
            raise


class _Copy(Struct, frozen=True):
    path: Path

    def chunks(self) -> Iterator[bytes]:
        """Yield it; raise MessageUnreadable if it is gone."""
        try:
            with open(open_present(self.path), "rb") as file:  # noqa: PTH123
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            code = "vanished"
            raise MessageUnreadable(code, f"its copy: {error.strerror}") from error


def _name(message: str, claimed: Sequence[ClaimedRecipient]) -> str:
    """Return a unique name for every part of a message."""
    return f"{message}.{claimed[0].n}"


def open_message(
    sources: Mapping[str, Source],
    quarantine: Quarantine | None,
    message: Message,
    kept: Quarantine | None = None,
) -> SpooledMessage:
    """Open a message where it is, or its copy if the source has dropped it.

    ``kept`` has copies of delivered mail. The result has what the ledger knows about
    it. Raises MessageUnreadable if there is neither.
    """
    try:
        found = sources[message.source].open(message)
        known = replace(
            found.message,
            number=message.number,
            sha256=message.sha256,
            has_twin=message.has_twin,
        )
        return SpooledMessage(message=known, content=found.content)
    except MessageUnreadable:
        copies = (store.open(message) for store in (quarantine, kept) if store)
        copy = next(filter(None, copies), None)
        if copy is None:
            raise
        return copy


def sidecar_of(message: Message, recipients: Iterable[Recipient]) -> bytes:
    """Return the envelope for these recipients as the eml source reads it."""
    envelope = message.envelope
    facts = {
        "id": message.id,
        "native_id": message.native_id,
        "source": message.source,
        "arrived": message.arrived.isoformat(),
        "reverse_path": envelope.reverse_path,
        "recipients": [
            {
                "forward_path": each.forward_path,
                "orcpt": each.orcpt,
                "notify": list(each.notify),
            }
            for each in recipients
        ],
        "body": envelope.body or None,
        "smtputf8": envelope.smtputf8,
        "envid": envelope.envid or None,
        "ret": envelope.ret or None,
        # Invalid delimiters expand nothing, and would make the copy useless.
        "verp": envelope.verp if VERP.fullmatch(envelope.verp) else None,
        "login": message.login or None,
        "client": asdict(message.client),
        "whole": True,
    }
    return json.dumps(facts, indent=1).encode() + b"\n"
