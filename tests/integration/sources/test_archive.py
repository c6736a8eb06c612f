"""A spool in an archive: the same messages, and nothing that an archive could do."""

import gzip
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from msgspec.structs import replace

from drainer.errors import SourceError, UsageError
from drainer.mail.message import Message
from drainer.sources.archive import source as archive
from drainer.sources.archive.unpack import unpack
from drainer.sources.archive.unpack_streams import UnpackLimits
from drainer.sources.protocol import Source
from drainer.sources.registry import open_source
from tests.support.command.runner import call
from tests.support.spools.samples import lay_out_exim, lay_out_postfix
from tests.support.spools.store_kits import TOP, pack, text

MAIL = (TOP + text("x", "body")).encode()
NAME = "mail/new/1795453619.M1.mx2"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give what TMPDIR names; it must be empty when all is done."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(folder))
    yield folder
    archive.remove_all()
    assert list(folder.iterdir()) == []


def listed(source: Source) -> dict[str, tuple[object, bytes]]:
    """Return messages and contents by id, without the source's own URL."""
    return {
        each.message.id: (
            replace(each.message, source=""),
            b"" if each.message.problem else b"".join(each.content.chunks()),
        )
        for each in source.scan()
    }


def lay_out_maildir(dest: Path) -> Path:
    """Make a Maildir with a message that was read."""
    for name in ("tmp", "new", "cur"):
        (dest / name).mkdir(parents=True)
    (dest / "new" / "1795453619.M1.mx2").write_bytes(MAIL)
    (dest / "cur" / "1795453618.M2.mx2:2,S").write_bytes(MAIL + b"y\n" * 100_000)
    for path in dest.glob("*/*"):  # a zip knows every second second
        os.utime(path, (1795453618, 1795453618))
    return dest


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """Write a tar with these members behind a good one."""
    with tarfile.open(path, "w", errors="surrogateescape") as tar:
        for info, data in (member(NAME, MAIL), *members):
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, data


def refused(path: Path, **options: object) -> str:
    """Return why an archive is refused."""
    with pytest.raises(SourceError) as caught:
        open_source(f"maildir:{path}", options=options)
    assert caught.value.hint
    assert str(caught.value).isprintable()
    return str(caught.value)


# ---- what is in it


@pytest.mark.parametrize("end", [".tar", ".tar.gz", ".tar.xz", ".tar.zst", ".zip"])
@pytest.mark.parametrize(
    ("scheme", "lay_out"),
    [
        ("postfix", lay_out_postfix),
        ("exim", lay_out_exim),
        ("maildir", lay_out_maildir),
    ],
)
def test_the_messages_are_those_of_the_folder(
    tmp_path: Path, scheme: str, lay_out: Callable[[Path], Path], end: str
) -> None:
    """Ids, envelopes, times, problems and content; wherever in it the spool lies."""
    folder = lay_out(tmp_path / "packed" / "var" / "spool")
    path = tmp_path / f"export{end}"
    pack(tmp_path / "packed", path)
    source = open_source(f"{scheme}:{path}", options={})
    expected = listed(open_source(f"{scheme}:{folder}", options={"ack": "keep"}))
    assert expected
    found = listed(source)
    assert found == expected
    assert source.url == f"{scheme}:{path.resolve()}"
    assert not source.acknowledges


def test_nobody_else_can_read_what_was_unpacked(
    tmp_path: Path, temporary: Path
) -> None:
    """And it goes with the command."""
    open_source(f"maildir:{tar_of(tmp_path / 'x.tar')}", options={})
    (folder,) = temporary.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.rglob("*"):
        assert path.stat().st_mode & stat.S_ISUID == 0
        assert path.stat().st_uid == os.geteuid()
    archive.remove_all()
    assert list(temporary.iterdir()) == []


KILLED = """
import os, sys, tempfile
from drainer.sources.registry import open_source
open_source(sys.argv[1], options={})
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_command_left_is_removed_by_the_next(
    tmp_path: Path, temporary: Path
) -> None:
    """But not what a living one uses, nor what has just been made."""
    path = tar_of(tmp_path / "x.tar")
    command = [sys.executable, "-c", KILLED, f"maildir:{path}"]
    subprocess.run(command, check=False, timeout=60, env={"TMPDIR": str(temporary)})
    (left,) = temporary.iterdir()
    young = archive.YOUNG_SECONDS
    try:
        archive.YOUNG_SECONDS = 0.0
        source = open_source(f"maildir:{path}", options={})
        open_source(f"maildir:{path}", options={})
    finally:
        archive.YOUNG_SECONDS = young
    assert not left.exists()
    assert len(list(source.scan())) == 1


def test_an_archive_can_only_be_kept(tmp_path: Path) -> None:
    """Whoever asks for another acknowledgement is told so."""
    path = tar_of(tmp_path / "x.tar")
    with pytest.raises(UsageError, match="only be keep"):
        open_source(f"maildir:{path}?ack=move", options={})
    with pytest.raises(UsageError, match="archive_limit"):
        open_source(f"maildir:{path}?archive_limit=much", options={})
    with pytest.raises(UsageError, match="no option"):
        open_source(f"maildir:{path}?colour=red", options={})


def test_another_spool_or_several_are_refused(tmp_path: Path) -> None:
    """Which is meant nobody can know."""
    path = tar_of(tmp_path / "y.tar", member("other/new/1", MAIL))
    assert "several: 'mail', 'other'" in refused(path)
    with pytest.raises(SourceError, match="contains none"):
        open_source(f"postfix:{path}", options={})


# ---- hostile archives


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (member("../x", MAIL), "contains .."),
        (member("mail/../../x", MAIL), "contains .."),
        (member(NAME, b"", tarfile.SYMTYPE, "/etc"), "occurs twice"),
        (member(f"{NAME}/x", b"", tarfile.LNKTYPE, NAME), "below a file"),
        (member(f"/{NAME}", b"another"), "occurs twice"),
        (member(NAME, b"another"), "occurs twice"),
        (member(f"./{NAME}", b"another"), "occurs twice"),
        (member(f"{NAME}/below", b"x"), "below a file"),
        (member("mail/new", b"x"), "occurs twice"),
        (member("a/" * 40 + "x", b"x"), "too deeply"),
        (member("mail/new/" + "x" * 300, b"x"), "cannot unpack"),
        (member("", b"x"), "no name"),
    ],
)
def test_what_a_spool_does_not_contain_is_refused_by_name(
    tmp_path: Path, made: tuple[tarfile.TarInfo, bytes], reason: str
) -> None:
    """The whole archive, and nothing is written elsewhere."""
    said = refused(tar_of(tmp_path / "x.tar", made))
    assert reason in said
    assert {each.name for each in tmp_path.iterdir()} == {"x.tar", "tmp"}


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("../x", 0, "contains .."),
        (NAME, stat.S_IFLNK | 0o777, "occurs twice"),
        (NAME, stat.S_IFREG, "occurs twice"),
    ],
)
def test_a_zip_is_looked_at_alike(
    tmp_path: Path, name: str, mode: int, reason: str
) -> None:
    """Its names and modes are as free as those of a tar."""
    path = tmp_path / "x.zip"
    info = zipfile.ZipInfo(name)
    info.external_attr, info.create_system = mode << 16, 3
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(NAME, MAIL)
        with warnings.catch_warnings(action="ignore"):  # the name is there twice
            out.writestr(info, b"x")
    assert reason in refused(path)


JAIL = [
    member("/var/spool/postfix/etc/resolv.conf", b"nameserver 127.0.0.1\n"),
    member("/var/spool/postfix/lib64", b"", tarfile.SYMTYPE, "usr/lib64"),
    member("/var/lib", b"", tarfile.SYMTYPE, "/usr/lib"),
    member("/var/spool/postfix/lib/libc.so.6", b"x"),
    member("/var/spool/postfix/lib/libc.so", b"", tarfile.LNKTYPE, "lib/libc.so.6"),
    member("/var/spool/postfix/dev/random", b"", tarfile.CHRTYPE),
    member("/var/spool/postfix/dev/sda", b"", tarfile.BLKTYPE),
    member("/var/spool/postfix/public/qmgr", b"", tarfile.FIFOTYPE),
    member("/var/spool/postfix/deferred/2/2878E21E2F1", b"", tarfile.SYMTYPE, "/etc"),
]
"""What lies in and beside the queues of a chroot jail; the last one is in a queue."""


def test_a_jail_with_absolute_names_is_read_for_the_mail_in_it(tmp_path: Path) -> None:
    """The rest is skipped and counted; a link in a queue is listed, not followed."""
    folder = lay_out_postfix(tmp_path / "queue")
    path = tmp_path / "jail.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname="/var/spool/postfix")
        for info, data in JAIL:
            if not info.name.startswith("/var"):
                continue
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = open_source(f"postfix:{path}", options={})
    assert isinstance(source, archive.ArchiveSource)
    logs = [
        p for log in ("defer", "bounce", "trace") for p in (folder / log).rglob("*")
    ]
    assert source.skipped == {
        "symbolic link": 3, "hard link": 1, "device": 2, "named pipe": 1,
        "other file": 2 + sum(each.is_file() for each in logs),
    }  # fmt: skip
    found = listed(source)
    expected = listed(open_source(f"postfix:{folder}", options={"ack": "keep"}))
    (link,) = found.keys() - expected.keys()
    assert {key: found[key] for key in expected} == expected
    message = found[link][0]
    assert isinstance(message, Message)
    assert message.problem is not None
    assert message.problem.code == "not-a-file"


@pytest.mark.parametrize("end", [".tar", ".zip"])
def test_a_link_among_the_mail_is_listed_and_not_followed(
    tmp_path: Path, end: str
) -> None:
    """Where it leads does not matter."""
    secret = tmp_path / "secret"
    secret.write_bytes(MAIL)
    path = tmp_path / f"x{end}"
    if end == ".tar":
        tar_of(path, member("mail/new/l", b"", tarfile.SYMTYPE, os.fspath(secret)))
    else:
        info = zipfile.ZipInfo("/mail/new/l")
        info.external_attr, info.create_system = (stat.S_IFLNK | 0o777) << 16, 3
        with zipfile.ZipFile(path, "w") as out:
            out.writestr(NAME, MAIL)
            out.writestr(info, os.fspath(secret))
    source = open_source(f"maildir:{path}", options={})
    assert isinstance(source, archive.ArchiveSource)
    assert source.skipped == {"symbolic link": 1}
    problems = {each.message.native_id: each.message.problem for each in source.scan()}
    assert len(problems) == 2
    assert problems["l"] is not None
    assert problems["l"].code == "not-a-file"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.FIFOTYPE, "named pipe"),
        (tarfile.CHRTYPE, "device"),
    ],
)
def test_what_is_no_file_is_named_for_what_it_is(
    tmp_path: Path, kind: bytes, words: str
) -> None:
    """In the counts and in the problem; files outside of the folders are counted."""
    path = tmp_path / "x.tar"
    odd = member("mail/cur/l:2,S", kind=kind, target=NAME)
    others = (member("mail/dovecot-uidlist", b"x"), member("etc/hosts", b"y"))
    source = open_source(f"maildir:{tar_of(path, odd, *others)}", options={})
    assert isinstance(source, archive.ArchiveSource)
    assert source.skipped == {words: 1, "other file": 2}
    messages = [each.message for each in source.scan()]
    (problem,) = (m.problem for m in messages if m.problem)
    assert (problem.code, problem.detail) == ("not-a-file", f"it is a {words}")


def test_a_sparse_file_is_skipped_and_what_follows_it_is_read(tmp_path: Path) -> None:
    """As GNU tar packs one with ``--sparse``: no mail has holes."""
    folder = lay_out_maildir(tmp_path / "mail")
    with (folder / "new" / "a.hole").open("wb") as file:
        file.truncate(1_000_000)
        file.seek(500_000)
        file.write(b"x" * 5000)
    path = tmp_path / "x.tar"
    command = ("tar", "--sparse", "--sort=name", "-C", tmp_path, "-cf", path, "mail")
    subprocess.run(command, check=True, timeout=60)
    source = open_source(f"maildir:{path}", options={})
    assert isinstance(source, archive.ArchiveSource)
    assert source.skipped == {"sparse file": 1}
    codes = {m.message.native_id: m.message.problem for m in source.scan()}
    assert len(codes) == 3
    assert codes["1795453619.M1.mx2"] is None
    assert codes["a.hole"] is not None


def test_a_command_says_what_it_skipped(tmp_path: Path) -> None:
    """With the counts, on stderr."""
    link = member("mail/etc/l", b"", tarfile.SYMTYPE, "/etc")
    result = call("inspect", f"maildir:{tar_of(tmp_path / 'x.tar', link)}")
    assert "symbolic link: 1" in result.stderr
    assert "1 messages" in result.stdout


def test_names_are_shown_escaped(tmp_path: Path) -> None:
    """A terminal sees no escape sequence of an archive."""
    said = refused(tar_of(tmp_path / "x.tar", member("../a\x1b[31m\n\udcff", b"")))
    assert "%1B" in said


@pytest.mark.parametrize("end", ["", ".gz", ".xz", ".zst"])
def test_a_truncated_archive_is_refused(tmp_path: Path, end: str) -> None:
    """Wherever it ends; what follows behind its end is refused as well."""
    packers: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".zst": zstandard.compress,
    }
    noise = bytes((n * n * 7 + n // 3) % 251 for n in range(3000))
    whole = tar_of(tmp_path / "w.tar", member("mail/new/2", noise)).read_bytes()
    plain = whole.rstrip(b"\0")
    whole = plain + bytes(-len(plain) % 512) + bytes(1024)
    path = tmp_path / f"x.tar{end}"
    path.write_bytes(packers[end](whole))
    assert len(listed(open_source(f"maildir:{path}", options={}))) == 2
    cuts = (0, 100, 512, 700, 1024, len(plain) - 100, len(whole) - 1024)
    for cut in cuts:
        path.write_bytes(packers[end](whole[:cut]))
        assert "damaged" in refused(path), cut
    packed = packers[end](whole)
    for cut in (1, len(packed) // 2, len(packed) - 1100):
        path.write_bytes(packed[: max(cut, 1)])
        assert "damaged" in refused(path), cut
    path.write_bytes(packers[end](whole + b"more"))
    assert "data follows" in refused(path)


def test_damage_in_the_middle_is_no_end(tmp_path: Path) -> None:
    """Python takes a header that makes no sense for the end, we do not."""
    path = tar_of(tmp_path / "x.tar", member("mail/new/2", MAIL))
    data = bytearray(path.read_bytes())
    data[1024 + 3] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in refused(path)


def test_a_zip_that_lies_is_refused(tmp_path: Path) -> None:
    """About sizes, sums, or its directory."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(NAME, MAIL * 100)
    good = path.read_bytes()
    at = good.rindex(b"PK\x01\x02")
    for offset in (16, 24, 42):  # CRC, size, place of the member
        data = bytearray(good)
        data[at + offset] ^= 0x55
        path.write_bytes(data)
        assert "damaged" in refused(path), offset
    for cut in (0, 10, at, len(good) - 1):
        path.write_bytes(good[:cut])
        assert "damaged" in refused(path), cut


def test_a_bomb_is_refused_before_it_has_gone_off(tmp_path: Path) -> None:
    """By the bytes that came out, whatever the archive says."""
    zeros = member("mail/new/2", bytes(5_000_000))
    plain = tar_of(tmp_path / "x.tar", zeros).read_bytes()
    for end, data in {".gz": gzip.compress(plain), ".xz": lzma.compress(plain)}.items():
        path = tmp_path / f"x.tar{end}"
        path.write_bytes(data)
        assert "more than 1.0 MB" in refused(path, archive_limit="1MB")
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(NAME, bytes(5_000_000))
    assert "more than 1.0 MB" in refused(path, archive_limit="1MB")


def test_limits_are_those_of_the_archive_and_the_disk(tmp_path: Path) -> None:
    """Octets for each octet packed, and members."""
    path = tmp_path / "x.tar"
    path.write_bytes(b"x")
    limits = UnpackLimits(path, tmp_path, 10**15)
    limits.add_bytes(10**9)
    with pytest.raises(SourceError, match="250 times"):
        limits.add_bytes(10**9)
    for _ in range(2_000_000):
        limits.add_member()
    with pytest.raises(SourceError, match="members"):
        limits.add_member()


def test_an_endless_header_takes_no_memory(tmp_path: Path) -> None:
    """A long name may say that it has a gigabyte."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**30
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 3_000_000)
    (tmp_path / "target").mkdir()
    with pytest.raises(SourceError, match="endless header"):
        unpack(path, "tar", tmp_path / "target", 10**9)


def test_a_packing_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    """A dictionary or window of a gigabyte."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**29}]
    packed = lzma.compress(b"x", filters=filters)
    (tmp_path / "x.tar.xz").write_bytes(packed)
    assert "damaged" in refused(tmp_path / "x.tar.xz")
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([(30 - 10) << 3]) + b"\x01\x00\x00"
    (tmp_path / "x.tar.zst").write_bytes(frame)
    assert "damaged" in refused(tmp_path / "x.tar.zst")
