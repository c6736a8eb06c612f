"""What every source promises (drainer/sources), held against each format."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal, Protocol

import pytest

from drainer.errors import MessageUnreadable, SourceError
from drainer.mail.message import SpooledMessage
from drainer.sources.common.queue_directory import QueueDirectory, Touched
from drainer.sources.common.queue_entry import OpenEntry, SourceEntry
from drainer.sources.exim.source import EximSpool
from drainer.sources.maildir.source import Maildir
from drainer.sources.postfix.source import PostfixQueue
from drainer.sources.protocol import Source
from tests.support.spools.exim_files import write_message
from tests.support.spools.postfix_files import place, queue_file
from tests.support.spools.queue_kits import (
    EmlKit,
    HarakaKit,
    OpensmtpdKit,
    QmailKit,
    SendmailKit,
)

CONTENT = "Received: from c by mx2\r\n\tid 1; Mon\r\nSubject: {}\r\n\r\n{}\r\n"


class Kit(Protocol):
    """How to lay out a spool of one format."""

    def open(self, root: Path, *, drops: bool = False) -> Source:
        """Open the spool."""
        ...

    def write(self, root: Path, name: bytes, subject: str, body: str = "body") -> Path:
        """Put a complete message into the spool."""
        ...

    def move_within(self, path: Path) -> Path:
        """Move a message as the server or a reader would."""
        ...

    def file_name(self, native_id: str) -> str:
        """Return the name of a message's file beside the one that was written."""
        ...


class PostfixKit:
    """Queue directories, hashed."""

    def open(self, root: Path, *, drops: bool = False) -> PostfixQueue:
        """Open the queue directory."""
        mode: Literal["remove", "keep"] = "remove" if drops else "keep"
        return PostfixQueue(root, acknowledge=mode)

    def write(self, root: Path, name: bytes, subject: str, body: str = "body") -> Path:
        """Put a queue file into deferred."""
        text = CONTENT.format(subject, body).replace("\r\n", "\n").encode()
        return place(root, queue_file(text=text), os.fsdecode(name))

    def move_within(self, path: Path) -> Path:
        """Move a message to active, as qmgr does."""
        target = path.parents[2] / "active" / path.name
        target.parent.mkdir(exist_ok=True)
        return path.rename(target)

    def file_name(self, native_id: str) -> str:
        """Name a file as its message."""
        return native_id


class MaildirKit:
    """A Maildir that Postfix delivered to."""

    def open(self, root: Path, *, drops: bool = False) -> Maildir:
        """Open the Maildir."""
        return Maildir(root, acknowledge="move" if drops else "keep")

    def write(self, root: Path, name: bytes, subject: str, body: str = "body") -> Path:
        """Deliver a message into new."""
        for folder in ("tmp", "new", "cur"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        top = "Return-Path: <s@example.com>\nX-Original-To: r@example.org\n"
        text = top + CONTENT.format(subject, body).replace("\r\n", "\n")
        path = root / "new" / os.fsdecode(name)
        path.write_bytes(text.encode())
        return path

    def move_within(self, path: Path) -> Path:
        """Mark a message as seen, as a reader does."""
        return path.rename(path.parents[1] / "cur" / f"{path.name}:2,S")

    def file_name(self, native_id: str) -> str:
        """Name a file as its message."""
        return native_id


class EximKit:
    """A split spool of Exim."""

    def open(self, root: Path, *, drops: bool = False) -> EximSpool:
        """Open the spool directory."""
        return EximSpool(root, acknowledge="remove" if drops else "keep")

    def write(self, root: Path, name: bytes, subject: str, body: str = "body") -> Path:
        """Put a message into a directory of the split queue; return its header."""
        text = CONTENT.format(subject, body).replace("\r\n", "\n").encode()
        return write_message(root, name, text, parts=("input", "S"))

    def move_within(self, path: Path) -> Path:
        """Move a message out of the split queue."""
        flat = path.parents[1]
        for each in path.parent.glob(f"{path.name[:-2]}-?"):
            each.rename(flat / each.name)
        return flat / path.name

    def file_name(self, native_id: str) -> str:
        """Name a file as its message."""
        return native_id


KITS: dict[str, Kit] = {
    "postfix": PostfixKit(),
    "maildir": MaildirKit(),
    "exim": EximKit(),
    "sendmail": SendmailKit(),
    "haraka": HarakaKit(),
    "opensmtpd": OpensmtpdKit(),
    "qmail": QmailKit(),
    "eml": EmlKit(),
}


@pytest.fixture(params=list(KITS.values()), ids=list(KITS))
def kit(request: pytest.FixtureRequest) -> Kit:
    """Give each format in turn."""
    chosen: Kit = request.param
    return chosen


@pytest.fixture
def root() -> Iterator[Path]:
    """Give a folder that other users may walk to, unlike pytest's own."""
    base = Path(tempfile.mkdtemp(prefix="drainer-source-"))
    base.chmod(0o755)
    yield base / "spool"
    shutil.rmtree(base)


def content_of(spooled: SpooledMessage) -> bytes:
    """Return the whole content."""
    return b"".join(spooled.content.chunks())


def listed(source: Source) -> dict[str, SpooledMessage]:
    """Return what a source lists, by native id."""
    return {each.message.native_id: each for each in source.scan()}


def tree(root: Path) -> dict[Path, tuple[int, int, bytes]]:
    """Return everything below a folder: modes, times and bytes."""
    result = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        result[path] = (status.st_mode, status.st_mtime_ns, data)
    return result


def codes(source: Source) -> dict[str, str]:
    """Return the problem of every message, by native id; '' for none."""
    return {
        each.message.native_id: each.message.problem.code
        if each.message.problem
        else ""
        for each in source.scan()
    }


def as_nobody(look: Callable[[], str]) -> str:
    """Return what another user without privileges sees."""
    if os.geteuid() != 0:
        return look()
    reading, writing = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # other tests' threads are idle
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writing, look().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


# ---- listing


def test_every_message_is_listed_with_envelope_and_content(
    kit: Kit, root: Path
) -> None:
    """Sender, recipients, size and the content as the backup accepted it."""
    for number in range(3):
        kit.write(root, b"2878E%d" % number, f"m{number}")
    source = kit.open(root)
    found = listed(source)
    assert sorted(found) == ["2878E0", "2878E1", "2878E2"]
    message = found["2878E1"].message
    assert message.problem is None
    assert message.source == source.url
    assert source.url.endswith(f":{root.resolve()}")
    assert message.envelope.reverse_path == "s@example.com"
    assert [each.forward_path for each in message.envelope.recipients] == [
        "r@example.org"
    ]
    assert content_of(found["2878E1"]).decode() == CONTENT.format("m1", "body")
    assert message.size_bytes == len(content_of(found["2878E1"]))
    assert message.arrived.tzinfo is not None


def test_content_may_be_read_again(kit: Kit, root: Path) -> None:
    """A retry reads the same bytes, held in memory or not."""
    for size in (10, 100_000, 500_000):
        kit.write(root, b"2878E", "x", "y" * 70 * (size // 70))
        (spooled,) = kit.open(root).scan()
        assert content_of(spooled) == content_of(spooled)


def test_scanning_and_reading_change_nothing(kit: Kit, root: Path) -> None:
    """Reading is harmless: no file, mode or time differs afterwards."""
    kit.write(root, b"2878E", "x", "y\n" * 200_000)
    before = tree(root)
    source = kit.open(root)
    for spooled in source.scan():
        content_of(spooled)
        source.open(spooled.message)
    assert tree(root.parent) == {root: tree(root.parent)[root], **before}


def test_listing_is_lazy(kit: Kit, root: Path) -> None:
    """The first message is there before the others were opened."""
    for number in range(50):
        kit.write(root, b"2878E%d" % number, "x")
    scan = kit.open(root).scan()
    next(scan)
    shutil.rmtree(root)
    assert len(list(scan)) < 49


def test_closing_a_scan_halfway_leaves_nothing_open(kit: Kit, root: Path) -> None:
    """No descriptor is left behind, nor after a complete one."""
    for number in range(5):
        kit.write(root, b"2878E%d" % number, "x")
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    scan = kit.open(root).scan()
    next(scan)
    scan.close()  # type: ignore[attr-defined]
    assert listed(kit.open(root))
    assert len(list(descriptors.iterdir())) == before


def test_hostile_names_travel_as_printable_text(kit: Kit, root: Path) -> None:
    """Newlines, escape sequences and invalid UTF-8 are read, found and let go."""
    names = [b"a\nb", b"a\x1b[31mb", b"a\xff\xfeb", b"100%25", "a\u202eb".encode()]
    for name in names:
        kit.write(root, name, repr(name))
    source = kit.open(root, drops=True)
    found = listed(source)
    assert len(found) == len(names)
    for spooled in found.values():
        message = spooled.message
        assert message.problem is None
        for text in (message.native_id, message.locator, message.queue):
            assert text.isprintable()
            assert text.encode()
        assert source.open(message).message == message
        assert source.acknowledge([message]) == [message.id]
    assert listed(source) == {}


# ---- what is not a spool


def test_a_folder_that_is_no_spool_is_refused(kit: Kit, root: Path) -> None:
    """Absent, a file, or something else: an error with a hint, exit 2."""
    root.mkdir()
    (root / "file").write_text("x")
    for path in (root, root / "absent", root / "file"):
        with pytest.raises(SourceError) as caught:
            kit.open(path)
        assert caught.value.hint
        assert caught.value.exit_code == 2


def test_a_spool_that_may_not_be_read_is_refused(kit: Kit, root: Path) -> None:
    """Permission denied on the folder is said, with what to do."""
    kit.write(root, b"2878E", "x")
    root.chmod(0o000)

    def look() -> str:
        try:
            kit.open(root)
        except SourceError as error:
            return error.hint
        return "it was read"

    assert "owner" in as_nobody(look)


# ---- what is not a message


def test_only_regular_files_are_read(kit: Kit, root: Path) -> None:
    """Links, pipes, sockets, directories and devices are named and never opened."""
    good = kit.write(root, b"2878E", "x")
    folder = good.parent
    outside = root.parent / "outside"
    shutil.copy(good, outside)
    outside.chmod(0o700)
    (folder / kit.file_name("2LINK")).symlink_to(outside)
    (folder / kit.file_name("2DANGLING")).symlink_to("nowhere")
    (folder / kit.file_name("2DIRECTORY")).mkdir()
    os.mkfifo(folder / kit.file_name("2FIFO"), 0o700)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(os.fspath(folder / kit.file_name("2SOCKET")))
    if os.geteuid() == 0:
        os.mknod(folder / kit.file_name("2DEVICE"), 0o020700, os.makedev(1, 5))
    found = codes(kit.open(root))
    assert found.pop("2878E") == ""
    assert set(found) >= {"2LINK", "2DANGLING", "2DIRECTORY", "2FIFO", "2SOCKET"}
    assert set(found.values()) == {"not-a-file"}


def test_a_file_that_turns_into_a_link_is_not_followed(kit: Kit, root: Path) -> None:
    """What was a file when it was listed is opened with the same care."""
    good = kit.write(root, b"2878E", "x", "y\n" * 200_000)
    outside = good.rename(root.parent / "outside")
    shutil.copy2(outside, good)
    (spooled,) = kit.open(root).scan()
    good.unlink()
    good.symlink_to(outside)
    with pytest.raises(MessageUnreadable):
        content_of(spooled)
    assert kit.open(root, drops=True).acknowledge([spooled.message]) == []
    assert outside.exists()


def test_an_unreadable_file_is_listed_and_the_rest_goes_on(
    kit: Kit, root: Path
) -> None:
    """Permission denied on one file holds that file."""
    paths = [kit.write(root, name, "x") for name in (b"2878E", b"2878F")]
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o700)
    if os.geteuid() == 0:
        for path in root.rglob("*"):
            if "2878E" in str(path.relative_to(root)):
                shutil.chown(path, 65534, 65534)
    else:
        paths[1].chmod(0o000)
    seen = as_nobody(lambda: repr(sorted(codes(kit.open(root)).items())))
    assert seen == repr([("2878E", ""), ("2878F", "unreadable")])


# ---- identity


def test_a_copied_spool_has_the_same_ids(kit: Kit, root: Path) -> None:
    """Inodes, times and the folder's name play no part."""
    for number in range(3):
        kit.write(root, b"2878E%d" % number, f"m{number}", "y\n" * 100_000 * number)
    copy = root.parent / "copy"
    shutil.copytree(root, copy)
    ids = {name: each.message.id for name, each in listed(kit.open(root)).items()}
    again = {name: each.message.id for name, each in listed(kit.open(copy)).items()}
    assert again == ids
    assert len(set(ids.values())) == 3
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in ids.values())


def test_a_message_that_was_moved_is_found_again(kit: Kit, root: Path) -> None:
    """The server or a reader renames files while we are at work."""
    path = kit.write(root, b"2878E", "x", "y\n" * 200_000)
    source = kit.open(root, drops=True)
    (spooled,) = source.scan()
    kit.move_within(path)
    assert source.open(spooled.message).message.id == spooled.message.id
    assert b"Subject: x" in content_of(spooled)
    assert source.acknowledge([spooled.message]) == [spooled.message.id]
    assert listed(source) == {}


def test_a_name_that_means_another_message_is_vanished(kit: Kit, root: Path) -> None:
    """Ids are reused: the new message is neither sent nor removed in its stead."""
    path = kit.write(root, b"2878E", "old", "y\n" * 200_000)
    source = kit.open(root, drops=True)
    (spooled,) = source.scan()
    kit.write(root, b"2878E", "new", "z\n" * 200_000)
    with pytest.raises(MessageUnreadable, match="vanished"):
        source.open(spooled.message)
    with pytest.raises(MessageUnreadable, match="vanished"):
        content_of(spooled)
    assert source.acknowledge([spooled.message]) == []
    assert path.exists()


def test_a_message_that_is_gone_is_vanished(kit: Kit, root: Path) -> None:
    """Opening says so; acknowledging counts it as done."""
    path = kit.write(root, b"2878E", "x")
    source = kit.open(root, drops=True)
    (spooled,) = source.scan()
    path.unlink()
    with pytest.raises(MessageUnreadable, match="vanished"):
        source.open(spooled.message)
    assert source.acknowledge([spooled.message]) == [spooled.message.id]


# ---- acknowledging


def test_acknowledging_twice_is_the_same_as_once(kit: Kit, root: Path) -> None:
    """Only what was named goes, and a repetition after a crash does no harm."""
    for number in range(4):
        kit.write(root, b"2878E%d" % number, f"m{number}")
    source = kit.open(root, drops=True)
    assert source.acknowledges
    found = listed(source)
    batch = [found["2878E0"].message, found["2878E2"].message]
    ids = [message.id for message in batch]
    assert source.acknowledge(batch) == ids
    after = tree(root.parent)
    assert source.acknowledge(batch) == ids
    assert kit.open(root, drops=True).acknowledge(batch) == ids
    assert tree(root.parent) == after
    assert sorted(listed(source)) == ["2878E1", "2878E3"]


def test_a_source_that_keeps_never_changes(kit: Kit, root: Path) -> None:
    """With ack = keep the ledger alone remembers."""
    kit.write(root, b"2878E", "x")
    source = kit.open(root)
    before = tree(root.parent)
    assert not source.acknowledges
    source.acknowledge([each.message for each in source.scan()])
    assert tree(root.parent) == before


def test_a_message_that_moves_at_the_moment_of_removal_goes_too(
    kit: Kit, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is gone from its place is searched again: done means gone everywhere."""
    path = kit.write(root, b"2878E", "x")
    source = kit.open(root, drops=True)
    assert isinstance(source, QueueDirectory)
    (spooled,) = source.scan()
    remove, moved = source.remove, list[Path]()

    def move_first(found: OpenEntry[SourceEntry], touched: Touched) -> bool:
        if not moved:
            moved.append(kit.move_within(path))
        return remove(found, touched)

    monkeypatch.setattr(source, "remove", move_first)
    assert source.acknowledge([spooled.message]) == [spooled.message.id]
    assert listed(source) == {}
    assert not moved[0].exists()


# ---- memory

MEASURE = """
import sys
from pathlib import Path
from drainer.sources.registry import open_source
source = open_source(sys.argv[1], options={})
total = sum(len(chunk) for each in source.scan() for chunk in each.content.chunks())
status = Path("/proc/self/status").read_text()
print(total, status.partition("VmHWM:")[2].split()[0])
"""
# Not ru_maxrss: it begins with the peak of the process that forked, which is ours.


def measure(url: str) -> tuple[int, int]:
    """Return the bytes of a spool's content and the peak memory (KiB) of reading."""
    command = [sys.executable, "-c", MEASURE, url]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=300
    )
    total, peak = map(int, done.stdout.split())
    return total, peak


@pytest.mark.parametrize("line", [78, 40_000_000], ids=["lines", "endless lines"])
def test_memory_does_not_grow_with_the_message(kit: Kit, root: Path, line: int) -> None:
    """40 MB take at most 16 MB more than 10 kB."""
    size = 40_000_000
    body = ("y" * line + "\n") * (size // line)
    small = kit.write(root, b"2878E", "x", body[:10_000])
    _, least = measure(kit.open(root).url)
    small.unlink()
    kit.write(root, b"2878E", "x", body)
    total, peak = measure(kit.open(root).url)
    assert total >= size
    assert peak - least < 16 * 1024
