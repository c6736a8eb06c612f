"""The note on our held messages in a Postfix: a small file, durable before each hold.

Lines are added, never changed: ``taking ID IDENTITY`` before the message is moved,
``held ID`` after drainer found it in hold, ``back ID`` when it is no longer ours.
``found ID IDENTITY`` is for a message that others hold, and that drainer sends on
request. So every message that a crash leaves on hold has its line. The next run, or
``drainer spool give-back``, can distinguish it from messages that others hold. An ID is
percent-encoded, because a file may have any name.

A process must lock it to write, so that none releases what another one is sending.
"""

import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from drainer.errors import OwnedElsewhere, SourceError
from drainer.runtime.folders import sync_folder
from drainer.runtime.locks import is_current, lock_private
from drainer.runtime.private_files import (
    make_private_folder,
    open_private,
    read_private,
    remove_private,
    rename_private,
)
from drainer.sources.common.files import source_error, write_durably

PATIENCE = 2.0
"""Seconds that the postsuper of a killed run may still have the lock."""


class HoldEntry(NamedTuple):
    """A message that we hold, or were about to hold."""

    identity: str
    #: Whether it was in hold after the move.
    held: bool
    #: Whether it was on hold before: others hold it too.
    of_others: bool = False


class HoldNote:
    """The note on one Postfix, locked; a pickled one is read-only."""

    def __init__(self, path: Path) -> None:
        """Open and lock; OwnedElsewhere when another process has it."""
        self._path = path
        self._one_writer = threading.Lock()
        try:
            make_private_folder(path.parent)
            self.descriptor = _lock(path)
            while not is_current(self.descriptor, path):  # it was replaced meanwhile
                os.close(self.descriptor)
                self.descriptor = _lock(path)
            sync_folder(path.parent)
            self._cut_torn_line()
            #: Of the complete lines, in bytes.
            self._size = os.fstat(self.descriptor).st_size
            self._entries = parse_note(path)
        except OSError as error:
            raise _unusable(path, error) from error

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the locked descriptor."""
        return {"_path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read the entries up to this time; SourceError when that is impossible."""
        self._path = state["_path"]
        try:
            self._entries = parse_note(self._path)
        except OSError as error:
            raise _unusable(self._path, error) from error

    def _cut_torn_line(self) -> None:
        """Remove an incomplete line: nothing was done for it yet."""
        data = read_private(self._path)
        if not data.endswith(b"\n"):
            os.ftruncate(self.descriptor, data.rfind(b"\n") + 1)

    def entries(self) -> dict[str, HoldEntry]:
        """Return what we hold now, by queue id; it changes with the note."""
        return self._entries

    def taking(self, identities: Mapping[str, str]) -> None:
        """Record what is about to be held: queue id -> identity; durable."""
        self._add(f"taking {_word(n)} {each}" for n, each in identities.items())

    def found(self, identities: Mapping[str, str]) -> None:
        """Record what others hold and drainer sends: queue id -> identity; durable."""
        self._add(f"found {_word(n)} {each}" for n, each in identities.items())

    def record_held(self, names: Iterable[str]) -> None:
        """Record what is on hold now."""
        self._add(f"held {_word(name)}" for name in names)

    def back(self, names: Iterable[str]) -> None:
        """Record what is no longer ours."""
        self._add(f"back {_word(name)}" for name in names)

    def _add(self, lines: Iterable[str]) -> None:
        lines = list(lines)
        if not lines:
            return
        with self._one_writer:  # one thread holds messages, another removes them
            try:
                os.ftruncate(self.descriptor, self._size)  # what a failure left
                _write(self.descriptor, lines)
                self._size = os.fstat(self.descriptor).st_size
            except OSError as error:
                with suppress(OSError):  # else the next one does it
                    os.ftruncate(self.descriptor, self._size)
                raise _unusable(self._path, error) from error
            _apply(lines, self._entries)

    def close(self) -> None:
        """Keep only the lines that still count, and close it."""
        with suppress(OSError):  # then it stays unchanged
            self._rewrite()
        os.close(self.descriptor)

    def _rewrite(self) -> None:
        entries = self._entries
        fresh = self._path.with_suffix(".new")
        remove_private(fresh)
        descriptor = open_private(fresh, os.O_WRONLY | os.O_EXCL | os.O_NOFOLLOW)
        try:
            _write(descriptor, (_line(n, e) for n, e in entries.items()))
            held = (n for n, e in entries.items() if e.held and not e.of_others)
            _write(descriptor, (f"held {_word(n)}" for n in held))
        finally:
            os.close(descriptor)
        rename_private(fresh, self._path.name)
        sync_folder(self._path.parent)


def parse_note(path: Path) -> dict[str, HoldEntry]:
    """Return what a note says, by queue id, without its lock; raises OSError."""
    entries: dict[str, HoldEntry] = {}
    _apply(read_private(path).decode("ascii", "replace").splitlines(), entries)
    return entries


def _apply(lines: Iterable[str], entries: dict[str, HoldEntry]) -> None:
    for line in lines:
        verb, word, *rest = line.split(" ")
        name = os.fsdecode(unquote_to_bytes(word))
        if verb == "taking":
            entries[name] = HoldEntry(rest[0], held=False)
        elif verb == "found":
            entries[name] = HoldEntry(rest[0], held=True, of_others=True)
        elif verb == "held" and name in entries:
            entries[name] = entries[name]._replace(held=True)
        elif verb == "back":
            entries.pop(name, None)


def _word(name: str) -> str:
    return quote(os.fsencode(name), safe="")


def _line(name: str, entry: HoldEntry) -> str:
    verb = "found" if entry.of_others else "taking"
    return f"{verb} {_word(name)} {entry.identity}"


def _lock(path: Path) -> int:
    try:
        return lock_private(path, os.O_APPEND, patience=PATIENCE)
    except BlockingIOError:
        message = "another drain holds the mail of this Postfix"
        hint = "wait for it; `drainer status` shows its progress"
        raise OwnedElsewhere(message, hint=hint) from None


def _write(descriptor: int, lines: Iterable[str]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode("ascii")
    write_durably(descriptor, data)


def _unusable(path: Path, error: OSError) -> SourceError:
    message = f"cannot use {path}, the note on held messages: {error.strerror}"
    return source_error(message, error, "name another --ledger")
