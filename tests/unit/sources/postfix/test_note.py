"""The note on held messages: a write that fails leaves nothing that counts."""

import os
import pickle
from pathlib import Path

import pytest

from drainer.errors import SourceError
from drainer.sources.postfix.note import HoldNote, parse_note


def test_what_a_failed_write_leaves_is_cut_off_by_the_next(tmp_path: Path) -> None:
    """Also when the file could not be cut at once, as on a read-only file system."""
    path = tmp_path / "note"
    note = HoldNote(path)
    note.taking({"A1": "one"})
    writable = note.descriptor
    note.descriptor = os.open(path, os.O_RDONLY)
    with pytest.raises(SourceError, match="cannot use"):
        note.record_held(["A1"])
    with path.open("ab") as file:
        file.write(b"taking B2 tw")  # a part had been written before it failed
    os.close(note.descriptor)
    note.descriptor = writable
    note.taking({"C3": "three"})
    assert set(parse_note(path)) == set(note.entries()) == {"A1", "C3"}
    note.close()


def test_a_process_that_cannot_read_it_says_so(tmp_path: Path) -> None:
    """It gets the note by its path, and reads it when the disk may have failed."""
    note = HoldNote(tmp_path / "note")
    sent = pickle.dumps(note)
    note.close()
    (tmp_path / "note").unlink()
    with pytest.raises(SourceError, match=r"cannot use .*note"):
        pickle.loads(sent)  # noqa: S301 - our own
