"""A Maildir as a source: names, flags, folders, packed files, and the sibling."""

import bz2
import gzip
import lzma
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from drainer.delivery.loader import examine
from drainer.errors import SourceError
from drainer.mail.message import Message
from drainer.policy.admission.admit import Admission
from drainer.sources.maildir.source import Maildir

HEAD = "Return-Path: <s@example.com>\nX-Original-To: r@example.org\n"
TEXT = "Received: from c by mx2\n\tid 1; Mon\nSubject: x\n\nbody\n"
MAIL = (HEAD + TEXT).encode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give an empty Maildir."""
    for folder in ("tmp", "new", "cur", ".Sub/tmp", ".Sub/new", ".Sub/cur"):
        (tmp_path / "backup" / folder).mkdir(parents=True)
    return tmp_path / "backup"


def only(source: Maildir) -> Message:
    """Return the one message of a Maildir."""
    (spooled,) = source.scan()
    return spooled.message


def files(root: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder."""
    return {
        os.fspath(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


# ---- what is listed


def test_tmp_and_dot_files_are_never_read(root: Path) -> None:
    """What is being written is not mail yet; control files never are."""
    (root / "tmp" / "1.x.host").write_bytes(MAIL)
    (root / "new" / ".hidden").write_bytes(MAIL)
    (root / "dovecot-uidlist").write_text("x")
    (root / "new" / "2.x.host").write_bytes(MAIL)
    assert only(Maildir(root)).native_id == "2.x.host"


def test_folders_are_read_on_request(root: Path) -> None:
    """Maildir++ folders by name, with or without the dot."""
    (root / ".Sub" / "cur" / "1.x.host:2,").write_bytes(MAIL)
    assert list(Maildir(root).scan()) == []
    for name in ("Sub", ".Sub"):
        message = only(Maildir(root, folders=[name]))
        assert (message.queue, message.native_id) == (".Sub/cur", "1.x.host")
        assert message.locator == ".Sub/cur/1.x.host:2,"


@pytest.mark.parametrize(
    ("info", "flags", "code"),
    [
        (":2,S", ("seen",), ""),
        (":2,FRS", ("replied", "seen", "flagged"), ""),
        (":2,ST", ("seen", "trashed"), "trashed"),
        (":2,DS", ("seen", "draft"), "draft"),
        (";2,T", ("trashed",), "trashed"),
        ("!2,T", ("trashed",), "trashed"),
        (":2,abc", (), ""),
        (":1,T", (), ""),
    ],
)
def test_readers_flags_are_listed(
    root: Path, info: str, flags: tuple[str, ...], code: str
) -> None:
    """Trash and drafts are held, by name; what was seen is only said."""
    (root / "cur" / f"1.x.host{info}").write_bytes(MAIL)
    message = only(Maildir(root))
    assert message.native_id == "1.x.host"
    assert message.flags == flags
    assert (message.problem.code if message.problem else "") == code
    assert len(message.envelope.recipients) == 1


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("length", [0, 100_000, 1_500_000], ids=["s", "m", "l"])
def test_a_packed_file_is_the_mail_in_it(
    root: Path, length: int, pack: Callable[[bytes], bytes]
) -> None:
    """Dovecot packs without changing the name; the size in it is the unpacked one."""
    noise = bytes(97 + n * n * 7 % 23 for n in range(length // 2))
    mail = (
        MAIL + b"\n".join(noise[n : n + 70] for n in range(0, len(noise), 70)) + b"\n"
    )
    mail += b"z" * 60 + (b"y" * 70 + b"\n") * (length // 142)
    plain = root / "new" / f"1.x.host,S={len(mail)}"
    plain.write_bytes(mail)
    expected = only(Maildir(root))
    (content,) = (b"".join(each.content.chunks()) for each in Maildir(root).scan())
    plain.write_bytes(pack(mail))
    source = Maildir(root)
    (spooled,) = source.scan()
    assert spooled.message.problem is None
    assert spooled.message.id == expected.id
    assert spooled.message.envelope == expected.envelope
    assert b"".join(spooled.content.chunks()) == content
    found = examine(spooled, Admission(), digest=True)
    assert found.facts is not None
    assert found.facts.size_bytes == len(content)
    assert source.open(spooled.message).message == spooled.message
    moved = root / "cur" / f"{plain.name}:2,S"
    plain.rename(moved)
    assert source.acknowledge([spooled.message]) == [spooled.message.id]
    assert not moved.exists()


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_damaged_packed_file_is_held(
    root: Path, pack: Callable[[bytes], bytes]
) -> None:
    """It ends early, or its checksum is wrong; nothing of it is sent."""
    mail = MAIL + bytes(97 + n * n * 7 % 23 for n in range(3000)) + b"\n"
    whole = pack(mail * 300)
    path = root / "new" / "1.x.host"
    for cut in (8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        (spooled,) = Maildir(root).scan()
        found = examine(spooled, Admission())
        assert found.problem is not None
        assert found.problem.code == "corrupt", cut
    path.write_bytes(pack(mail) + b"more")
    problem = only(Maildir(root)).problem
    assert problem is not None
    assert problem.code == "corrupt"
    twice = pack(mail[:500]) + pack(mail[500:])
    path.write_bytes(twice)
    (spooled,) = Maildir(root).scan()
    assert spooled.message.problem is None
    assert len(b"".join(spooled.content.chunks())) > len(mail) - len(HEAD)


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_packed_file_that_is_a_bomb_is_held(
    root: Path, pack: Callable[[bytes], bytes]
) -> None:
    """It unpacks to far more than its size; memory stays small."""
    path = root / "new" / "1.x.host"
    path.write_bytes(pack(MAIL + b"y" * 60_000_000))
    tracemalloc.start()
    try:
        (spooled,) = Maildir(root).scan()
        found = examine(spooled, Admission())
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert found.problem is not None
    assert found.problem.code == "compressed"
    assert "unpacks to over" in found.problem.detail


@pytest.mark.parametrize(
    "magic", [b"\x04\x22\x4d\x18", b"CRYPTED\x03\x07"], ids=["lz4", "crypt"]
)
def test_what_cannot_be_unpacked_is_a_problem(root: Path, magic: bytes) -> None:
    """Packed in another way, or encrypted."""
    (root / "new" / f"1.x.host,S={len(MAIL)}").write_bytes(magic + MAIL)
    message = only(Maildir(root))
    assert message.problem is not None
    assert message.problem.code == "compressed"


def test_a_size_in_the_name_uncovers_a_truncated_file(root: Path) -> None:
    """Shorter than ,S= says is torn in mid-line; a whole last line is only noted."""
    size = len(MAIL)
    for named, mail, code, noted in (
        (size, MAIL, "", False),
        (size - 1, MAIL, "", False),
        (size + 9, MAIL, "", True),
        (size, MAIL[:-3], "corrupt", True),
    ):
        path = root / "new" / f"1.x.host,S={named},W=999"
        path.write_bytes(mail)
        message = only(Maildir(root))
        assert (message.problem.code if message.problem else "") == code
        assert ("size-differs" in message.flags) is noted
        path.unlink()


def test_an_empty_file_is_corrupt(root: Path) -> None:
    """A crash leaves such."""
    (root / "new" / "1.x.host").write_bytes(b"")
    problem = only(Maildir(root)).problem
    assert problem is not None
    assert problem.code == "corrupt"


def test_a_header_without_end_is_corrupt(root: Path) -> None:
    """Half a megabyte of header is read and no more."""
    (root / "new" / "1.x.host").write_bytes(MAIL[:-7] + b"X: y\n" * 200_000)
    problem = only(Maildir(root)).problem
    assert problem is not None
    assert problem.code == "corrupt"


def test_a_message_without_an_envelope_is_listed(root: Path) -> None:
    """It is held, with no recipients, and its content can be read."""
    (root / "new" / "1.x.host").write_bytes(TEXT.encode())
    (spooled,) = Maildir(root).scan()
    assert spooled.message.problem is not None
    assert spooled.message.problem.code == "no-envelope"
    assert spooled.message.envelope.recipients == ()
    content = b"".join(spooled.content.chunks())
    assert content == TEXT.replace("\n", "\r\n").encode()


def test_the_time_of_the_file_is_the_arrival(root: Path) -> None:
    """Delivery sets it, and renaming keeps it."""
    path = root / "new" / "1.x.host"
    path.write_bytes(MAIL)
    os.utime(path, (1795453619, 1795453619))
    assert only(Maildir(root)).arrived.isoformat() == "2026-11-23T17:06:59+00:00"


def test_options_reach_the_trace_rules(root: Path) -> None:
    """The named backup and field decide."""
    (root / "new" / "1.x.host").write_bytes(MAIL)
    assert only(Maildir(root, backup_host="mx2")).problem is None
    for source in (
        Maildir(root, backup_host="other.example"),
        Maildir(root, recipient_header="X-Real-To"),
    ):
        problem = only(source).problem
        assert problem is not None
        assert problem.code == "no-envelope"


# ---- where mail moves to


def test_drained_mail_moves_to_the_sibling_maildir(root: Path) -> None:
    """Same name, same place, same bytes; private to the owner."""
    for place in ("new/1.x.host", "cur/2.x.host:2,S", ".Sub/cur/3.x.host:2,"):
        (root / place).write_bytes(MAIL)
    before = files(root)
    source = Maildir(root, folders=["Sub"])
    messages = [each.message for each in source.scan()]
    assert source.acknowledge(messages) == [each.id for each in messages]
    drained = root.with_name("backup.drained")
    assert files(drained) == before
    assert files(root) == {}
    assert drained.stat().st_mode & 0o777 == 0o700
    assert [each.message.id for each in Maildir(drained, folders=["Sub"]).scan()]


def test_drained_mail_never_overwrites(root: Path) -> None:
    """Another message of that name over there keeps its file."""
    path = root / "new" / "1.x.host:2,S"
    path.write_bytes(MAIL)
    source = Maildir(root)
    there = root.with_name("backup.drained") / "new"
    there.mkdir(parents=True)
    (there / path.name).write_bytes(b"another")
    assert source.acknowledge([only(source)])
    assert files(there) == {"1.x.host:2,S": b"another", "1.x.host.1:2,S": MAIL}
    assert not path.exists()


@pytest.mark.parametrize("make", [shutil.copy, os.link], ids=["copy", "link"])
def test_a_crash_between_two_steps_is_repaired(
    root: Path, make: Callable[[Path, Path], object]
) -> None:
    """What is over there already is not moved twice."""
    path = root / "new" / "1.x.host"
    path.write_bytes(MAIL)
    there = root.with_name("backup.drained") / "new"
    there.mkdir(parents=True)
    make(path, there / path.name)
    source = Maildir(root)
    assert source.acknowledge([only(source)])
    assert files(there) == {"1.x.host": MAIL}
    assert not path.exists()


def test_a_spool_that_may_not_be_changed_is_an_error(root: Path) -> None:
    """The drain stops with a hint, rather than sending everything again for ever."""
    (root / "new" / "1.x.host").write_bytes(MAIL)
    root.with_name("backup.drained").write_text("a file in the way")
    source = Maildir(root)
    with pytest.raises(SourceError) as caught:
        source.acknowledge([only(source)])
    assert "keep" in caught.value.hint


def test_removing_is_possible(root: Path) -> None:
    """Nothing is kept, on request."""
    (root / "new" / "1.x.host").write_bytes(MAIL)
    source = Maildir(root, acknowledge="remove")
    assert source.acknowledge([only(source)])
    assert files(root) == {}
    assert not root.with_name("backup.drained").exists()


INFOS = ("", ":2,", ":2,S", ":2,DFPRST", ";2,RS", "!2,F", ":2,Sab", ":1,x", ":2,SF")


@pytest.mark.parametrize("info", INFOS)
@pytest.mark.parametrize("subdirectory", ["new", "cur"])
def test_a_renamed_message_is_found_whatever_its_flags(
    root: Path, subdirectory: str, info: str
) -> None:
    """Those of the standard at once, a reader's own by a listing."""
    base = "1795453619.M1.mx2,S=310"
    path = root / "new" / f"{base}:2,P"
    path.write_bytes(MAIL)
    source = Maildir(root)
    message = only(source)
    path.rename(root / subdirectory / f"{base}{info}")
    assert source.open(message).message.locator == f"{subdirectory}/{base}{info}"
    assert source.acknowledge([message]) == [message.id]
    assert list(source.scan()) == []


def test_many_renamed_messages_are_found_in_one_reading(root: Path) -> None:
    """A reader that opened the whole folder costs one listing, not one each."""
    for number in range(200):
        (root / "new" / f"{number}.x.host").write_bytes(MAIL)
    source = Maildir(root)
    messages = [each.message for each in source.scan()]
    for path in (root / "new").iterdir():
        path.rename(root / "cur" / f"{path.name}:2,S")
    assert sorted(source.acknowledge(messages)) == sorted(each.id for each in messages)
    assert files(root) == {}
