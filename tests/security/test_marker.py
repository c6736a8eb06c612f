"""Attack: what names the ledger of a source is made, changed or held by a stranger.

Whoever may write in a spool may put anything there under the name of the marker.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from drainer.errors import ClaimConflict, SourceError
from drainer.sources.common.claim import Claimant, FileSource, SourceClaim
from drainer.sources.common.marker import MARKER, MAX_BYTES, Marker
from drainer.sources.exim.source import EximSpool
from drainer.sources.maildir.source import Maildir
from drainer.sources.protocol import Source
from tests.contract.test_sources import KITS, Kit
from tests.support.command.installed import write_maildir
from tests.support.spools.store_kits import STORES

OURS: Final = Claimant("a" * 32, "/a/ledger.db", "here", "me")
THEIRS: Final = Claimant("b" * 32, "/b/ledger.db", "there", "they")

#: A name that each format gives to a message.
NATIVE: Final[Mapping[str, bytes]] = {
    "postfix": b"A1B2C3D4E5",
    "maildir": b"1795453619.1.mx2",
    "exim": b"1rABCD-000001-2B",
    "sendmail": b"4ANG6xAB001234",
    "haraka": b"1795453619000_1795453619000_0_99999_abcdef_1_host",
    "opensmtpd": b"0123456789abcdef",
    "qmail": b"12345",
    "eml": b"one",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a Maildir."""
    write_maildir(tmp_path / "mail", 2)
    return tmp_path / "mail"


def claim(source: object, claimant: Claimant = OURS, *states: Path) -> SourceClaim:
    """Return a claim that is not taken yet."""
    assert isinstance(source, FileSource)
    return SourceClaim(source, claimant, states)


def is_open(path: Path) -> bool:
    """Tell whether this process has a file open."""
    descriptors = Path("/proc/self/fd").iterdir()
    return path in [each.readlink() for each in descriptors if each.is_symlink()]


# ---- every format


def listing(source: Source) -> list[tuple[str, str, str]]:
    """Return what a source lists: id, place, problem."""
    return [
        (m.id, m.locator, m.problem.code if m.problem else "")
        for m in (spooled.message for spooled in source.scan())
    ]


@pytest.mark.parametrize("name", [*KITS, *STORES])
def test_a_marker_refuses_another_ledger_and_is_no_message(
    name: str, tmp_path: Path
) -> None:
    """In the spools of all formats; it does not change what they list."""
    open_it = lay_out(name, tmp_path)
    source = open_it()
    before = listing(source)
    assert len(before) == 1
    first = claim(source)
    first.take()
    assert listing(source) == before
    assert listing(open_it()) == before
    with pytest.raises(ClaimConflict, match="another ledger is draining"):
        claim(open_it(), THEIRS).take()
    first.release(finished=False)
    with pytest.raises(ClaimConflict, match="was started with another ledger"):
        claim(open_it(), THEIRS).take()
    again = claim(source)
    again.take()
    again.release(finished=True)
    assert list(tmp_path.rglob("*.drainer")) == []
    other = claim(open_it(), THEIRS)
    other.take()
    other.release(finished=True)


def lay_out(name: str, folder: Path) -> Callable[[], Source]:
    """Lay out a spool of a format with one message; return what opens it."""
    if name in KITS:
        kit: Kit = KITS[name]
        kit.write(folder / "queue", NATIVE[name], "one")
        return partial(kit.open, folder / "queue")
    store = STORES[name]
    root = folder / f"spool{store.suffix}"
    store.write(root, [("one", "body")])
    return partial(store.open, root)


# ---- hostile files


def _link(path: Path) -> None:
    path.symlink_to(path.parents[1] / "target")


def _dangling(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def _hard_link(path: Path) -> None:
    path.hardlink_to(path.parents[1] / "target")


def _long(path: Path) -> None:
    path.write_bytes(b"x" * MAX_BYTES + b"\n")


def _deep(path: Path) -> None:
    path.write_bytes(b"[" * (MAX_BYTES - 1) + b"\n")


HOSTILE: Final[Mapping[str, Callable[[Path], object]]] = {
    "a link to a file": _link,
    "a link to nothing": _dangling,
    "a second name of a file": _hard_link,
    "a pipe": os.mkfifo,
    "a directory": Path.mkdir,
    "longer than a marker": _long,
    "nested too deeply": _deep,
    "not JSON": lambda path: path.write_text("mine!\n"),
    "JSON of another kind": lambda path: path.write_text('{"ledger": 7}\n'),
    "bytes": lambda path: path.write_bytes(bytes(range(128, 255)) + b"\n"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("take_over", [False, True])
def test_what_no_drainer_wrote_is_refused_and_left_alone(
    root: Path, name: str, *, take_over: bool
) -> None:
    """Neither followed, nor waited for, nor written to; the refusal names it."""
    target = root.parent / "target"
    target.write_text("precious")
    path = root / MARKER
    HOSTILE[name](path)
    before = path.lstat()
    with pytest.raises(ClaimConflict) as caught:
        claim(Maildir(root)).take(take_over=take_over)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()
    assert target.read_text() == "precious"
    after = path.lstat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert not is_open(path)


def test_words_of_a_marker_are_escaped(root: Path) -> None:
    """They are anybody's, and are shown on a terminal."""
    evil = "\x1b]0;owned\x07\u202e" + "x" * 400
    marker = Marker("c" * 32, *([evil] * 7))
    (root / MARKER).write_text(json.dumps(marker._asdict()) + "\n")
    with pytest.raises(ClaimConflict) as caught:
        claim(Maildir(root)).take()
    assert str(caught.value).isprintable()
    assert caught.value.hint.isprintable()


@pytest.mark.parametrize("left", [b"", b'{"ledger": "bbbb', b"\0" * 512])
def test_a_marker_that_a_crash_left_unfinished_counts_as_none(
    root: Path, left: bytes
) -> None:
    """Its drain had not started: it starts when the marker is durable."""
    (root / MARKER).write_bytes(left)
    first = claim(Maildir(root))
    first.take()
    assert json.loads((root / MARKER).read_text())["ledger"] == OURS.ledger
    first.release(finished=False)


@pytest.fixture
def locked(root: Path) -> Iterator[Path]:
    """Give a Maildir whose marker a stranger keeps locked."""
    path = root / MARKER
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield root
    os.close(descriptor)


def test_a_lock_that_stays_is_not_waited_for_without_end(locked: Path) -> None:
    """The refusal names the file that is locked."""
    with pytest.raises(ClaimConflict, match="another process keeps") as caught:
        claim(Maildir(locked)).take()
    assert str(locked / MARKER) in str(caught.value)


def test_a_folder_that_is_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    """A Maildir folder that leads elsewhere gets no marker there."""
    write_maildir(tmp_path / "elsewhere", 1)
    (root / ".Sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="cannot read"):
        claim(Maildir(root, folders=["Sub"])).take()
    assert list(tmp_path.rglob(MARKER)) == []


# ---- its life


def test_a_marker_that_was_removed_meanwhile_is_not_removed_again(root: Path) -> None:
    """What stands there then is somebody else's."""
    first = claim(Maildir(root))
    first.take()
    (root / MARKER).unlink()
    second = claim(Maildir(root), THEIRS)
    second.take()
    first.release(finished=True)
    assert json.loads((root / MARKER).read_text())["ledger"] == THEIRS.ledger
    second.release(finished=True)


def test_the_last_of_two_drains_removes_the_marker(root: Path) -> None:
    """While one of them works it stays, whoever ends first."""
    first, second = claim(Maildir(root)), claim(Maildir(root))
    first.take()
    second.take()
    first.release(finished=True)
    with pytest.raises(ClaimConflict, match="is draining"):
        claim(Maildir(root), THEIRS).take(take_over=True)
    second.release(finished=True)
    assert not (root / MARKER).exists()


def test_a_named_queue_of_exim_is_a_spool_of_its_own(tmp_path: Path) -> None:
    """Drained with its spool by one ledger, it is not drained alone by another."""
    for folder in ("input", "named/input"):
        (tmp_path / folder).mkdir(parents=True)
    whole = claim(EximSpool(tmp_path, queues=["input", "named"]))
    whole.take()
    with pytest.raises(ClaimConflict, match="is draining"):
        claim(EximSpool(tmp_path / "named"), THEIRS).take()
    whole.release(finished=True)


def test_a_mount_elsewhere_and_a_renumbered_device_are_the_same_source(
    root: Path, tmp_path: Path
) -> None:
    """In the state folder: the inode with the device, or with the path."""
    state = tmp_path / "state"
    state.mkdir()
    status = root.stat()
    for path, device, is_same in (
        ("other path", str(status.st_dev), True),
        ("", "999999", True),
        ("other path", "999999", False),
    ):
        probe = claim(Maildir(root), THEIRS)._marker(root)
        marker = probe._replace(path=path or probe.path, device=device)
        name = state / f"{status.st_ino}-{device}"
        name.write_text(json.dumps(marker._asdict()) + "\n")
        ours = claim(Maildir(root), OURS, state)
        if is_same:
            with pytest.raises(ClaimConflict):
                ours.take()
        else:
            ours.take()
            ours.release(finished=True)
        assert not (root / MARKER).exists()
        name.unlink()
