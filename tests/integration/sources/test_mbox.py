"""An mbox as a source: locks, offsets, readers at work, and hostile files."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from drainer.errors import MessageUnreadable, SourceError
from drainer.mail.message import Message, SpooledMessage
from drainer.sources.mbox import file as mbox_file
from drainer.sources.mbox.source import Mbox
from drainer.sources.registry import open_source

FROM = "From s@example.com  Mon Nov 23 17:06:59 2026\n"
HEAD = "Return-Path: <s@example.com>\nX-Original-To: r@example.org\n"


def text(subject: str, body: str = "body\n") -> str:
    """Return a message as it was transmitted, with LF line ends."""
    return f"Received: from c by mx2\n\tid 1; Mon\nSubject: {subject}\n\n{body}"


def mail(subject: str, body: str = "body\n") -> bytes:
    """Return a message as it lies in an mbox."""
    return f"{FROM}{HEAD}{text(subject, body)}\n".encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give an mbox of three messages."""
    path = tmp_path / "mbox"
    path.write_bytes(b"".join(mail(f"m{number}") for number in range(3)))
    return path


def contents(source: Mbox) -> list[bytes]:
    """Return the content of every message."""
    return [b"".join(each.content.chunks()) for each in source.scan()]


def codes(source: Mbox) -> list[str]:
    """Return the problem of every message; '' for none."""
    problems = [each.message.problem for each in source.scan()]
    return [problem.code if problem else "" for problem in problems]


def subject(spooled: SpooledMessage) -> bytes:
    """Return the Subject of a message."""
    return b"".join(spooled.content.chunks()).split(b"Subject: ")[1].split(b"\r")[0]


def scanned(source: Mbox) -> list[Message]:
    """Return the messages alone."""
    return [each.message for each in source.scan()]


# ---- what is listed


def test_a_file_in_mmdf_is_refused(path: Path) -> None:
    """Its separators are others; nothing is listed."""
    mark = b"\1\1\1\1\n"
    path.write_bytes(b"".join(mark + mail(f"m{n}") + mark for n in range(2)))
    with pytest.raises(SourceError, match="is an MMDF file"):
        list(Mbox(path).scan())


def test_no_letter_leaves_within_another_one(path: Path) -> None:
    """Whatever separates them: drainer does not know the form, and holds both."""
    for mark in (b"FROM a@b\n", b"From\xc2\xa0a@b Sat Apr 12 2025\n", b"\1\1\1\1\n",
                 b"From a@b some day\n"):  # fmt: skip
        second = mark + b"X: y\n\nfor another one\n\n"
        path.write_bytes(mail("m0") + second + mail("m2"))
        assert codes(Mbox(path)) == ["corrupt", "corrupt", ""]


def test_every_message_is_listed_with_envelope_and_content(path: Path) -> None:
    """The delivery fields, the From_ line and the blank line are not part of it."""
    source = Mbox(path)
    assert contents(source) == [
        text(f"m{number}").replace("\n", "\r\n").encode() for number in range(3)
    ]
    message = scanned(source)[1]
    assert message.source == source.url == f"mbox:{path.resolve()}"
    assert message.envelope.reverse_path == "s@example.com"
    assert [each.forward_path for each in message.envelope.recipients] == [
        "r@example.org"
    ]
    assert message.locator == message.native_id == str(len(mail("m0")))
    assert message.queue == "mbox"
    assert message.problem is None
    assert message.size_bytes == len(contents(source)[1])


def test_the_from_line_names_the_sender_when_nothing_else_does(path: Path) -> None:
    """MAILER-DAEMON is the null sender."""
    lines = "Delivered-To: r@example.org\n" + text("x")
    for word, sender in (("s@example.com", "s@example.com"), ("MAILER-DAEMON", "")):
        path.write_text(FROM.replace("s@example.com", word) + lines + "\n")
        (message,) = scanned(Mbox(path))
        assert message.problem is None
        assert message.envelope.reverse_path == sender


def test_a_message_without_trace_of_its_recipients_is_held(path: Path) -> None:
    """The format itself knows none; To and Cc are not asked."""
    path.write_text(FROM + "To: r@example.org\nSubject: x\n\nbody\n\n")
    assert codes(Mbox(path)) == ["no-envelope"]


def test_options_are_those_of_a_maildir_and_the_variant(path: Path) -> None:
    """Quoting is undone as the variant says, and by default not at all."""
    path.write_bytes(mail("x", ">From a\n>>From b\n"))
    for variant, body in (
        ("plain", b">From a\r\n>>From b\r\n"),
        ("mboxrd", b"From a\r\n>From b\r\n"),
        ("mboxo", b"From a\r\n>>From b\r\n"),
    ):
        source = open_source(f"mbox:{path}?variant={variant}", options={})
        (spooled,) = source.scan()
        assert b"".join(spooled.content.chunks()).endswith(b"\r\n\r\n" + body)
    (spooled,) = Mbox(path).scan()
    assert b"".join(spooled.content.chunks()).endswith(b"\r\n>From a\r\n>>From b\r\n")
    options = {"backup_host": "elsewhere", "variant": "mboxo"}
    (spooled,) = open_source(f"mbox:{path}", options=options).scan()
    assert spooled.message.problem is not None
    assert "elsewhere" in spooled.message.problem.detail
    assert not Mbox(path).acknowledges
    assert Mbox(path).acknowledge([spooled.message]) == []


def test_a_length_is_taken_off_where_the_variant_has_it(path: Path) -> None:
    """And a body without a final line end gets one."""
    body = "x\n\n" + FROM + "Subject: no message\n\nend"
    head = HEAD + "Received: by mx2\nSubject: x\n"
    path.write_text(f"{FROM}{head}Content-Length: {len(body)}\n\n{body}\n")
    source = Mbox(path, variant="mboxcl2")
    assert codes(source) == [""]
    (content,) = contents(source)
    assert content.startswith(b"Received: by mx2\r\nSubject: x\r\n\r\nx\r\n")
    assert content.endswith(b"\r\nend\r\n")


@pytest.mark.parametrize(
    ("field", "flags", "code"),
    [
        ("Status: RO", ("seen",), ""),
        ("X-Status: AF", ("replied", "flagged"), ""),
        ("X-Status: D", ("trashed",), "trashed"),
        ("X-Status: T", ("draft",), "draft"),
    ],
)
def test_what_a_reader_noted_is_listed_and_not_sent(
    path: Path, field: str, flags: tuple[str, ...], code: str
) -> None:
    """It changes neither the content nor the identity."""
    before = scanned(Mbox(path))[0].id
    path.write_bytes(mail("m0").replace(b"\n\nbody", f"\n{field}\n\nbody".encode()))
    source = Mbox(path)
    assert codes(source) == [code]
    (message,) = scanned(source)
    assert message.flags == flags
    assert message.id == before
    assert contents(source) == [text("m0").replace("\n", "\r\n").encode()]


def test_copies_for_two_recipients_are_two_messages(path: Path) -> None:
    """They differ in a delivery field only."""
    other = mail("x").replace(b"r@example.org", b"q@example.org")
    path.write_bytes(mail("x") + other)
    first, second = scanned(Mbox(path))
    assert first.id != second.id


def test_the_identity_is_the_message_s_own(path: Path) -> None:
    """Neither the file's name, the offset, the variant nor line ends play a part."""
    ids = [message.id for message in scanned(Mbox(path))]
    copy = path.with_name("copy")
    copy.write_bytes(mail("first") + path.read_bytes().replace(b"\n", b"\r\n"))
    for variant in ("mboxrd", "mboxo", "mboxcl"):
        assert [m.id for m in scanned(Mbox(copy, variant=variant))][1:] == ids


# ---- changes


def test_a_message_is_found_again_when_the_file_was_rewritten(path: Path) -> None:
    """A reader removed one before it; what is gone is vanished."""
    source = Mbox(path)
    first, second, third = source.scan()
    path.write_bytes(mail("m1") + mail("m2"))
    assert subject(source.open(third.message)) == b"m2"
    assert subject(source.open(second.message)) == b"m1"
    with pytest.raises(MessageUnreadable, match="vanished"):
        source.open(first.message)
    path.unlink()
    with pytest.raises(MessageUnreadable, match="vanished"):
        source.open(second.message)


def test_content_is_read_again_by_identity(path: Path) -> None:
    """Large ones are streamed, from wherever they lie by now."""
    path.write_bytes(mail("m0") + mail("big", "y\n" * 100_000) + mail("m2"))
    source = Mbox(path)
    big = list(source.scan())[1]
    whole = b"".join(big.content.chunks())
    assert whole == text("big", "y\n" * 100_000).replace("\n", "\r\n").encode()
    path.write_bytes(mail("m") + path.read_bytes())
    assert b"".join(big.content.chunks()) == whole
    path.write_bytes(mail("m0"))
    with pytest.raises(MessageUnreadable, match="vanished"):
        b"".join(big.content.chunks())


def test_a_file_rewritten_while_a_message_is_sent_spoils_that_attempt(
    path: Path,
) -> None:
    """The last piece does not leave, so that there is no final dot."""
    path.write_bytes(mail("big", "y\n" * 500_000))
    source = Mbox(path)
    (big,) = source.scan()
    chunks = big.content.chunks()
    next(chunks)
    path.write_bytes(mail("other", "z\n" * 500_000))
    with pytest.raises(MessageUnreadable, match="vanished"):
        list(chunks)


def test_appending_disturbs_nobody(path: Path) -> None:
    """What comes later is for a later scan."""
    big = mail("big", "y\n" * 500_000)
    path.write_bytes(big + mail("m1"))
    source = Mbox(path)
    scan = source.scan()
    spooled = next(scan)
    chunks = spooled.content.chunks()
    next(chunks)
    with path.open("ab") as file:
        file.write(mail("m2"))
    list(chunks)
    assert len(list(scan)) == 1
    assert len(list(source.scan())) == 3


def test_a_file_rewritten_during_a_scan_ends_it(path: Path) -> None:
    """What would be listed after that is nonsense."""
    scan = Mbox(path).scan()
    next(scan)
    path.write_bytes(mail("m1"))
    with pytest.raises(SourceError, match="rewritten") as caught:
        list(scan)
    assert caught.value.hint


# ---- locks


def test_nothing_is_written_and_no_lock_stays(path: Path) -> None:
    """Neither by reading nor afterwards; not even a lock file for a moment."""
    before = (
        path.read_bytes(),
        path.stat().st_mtime_ns,
        path.parent.stat().st_mtime_ns,
    )
    source = Mbox(path)
    scan = source.scan()
    next(scan)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
    command = [sys.executable, "-c", TRY_LOCK, os.fspath(path)]
    subprocess.run(command, check=True, timeout=30)
    list(scan)
    assert before == (
        path.read_bytes(),
        path.stat().st_mtime_ns,
        path.parent.stat().st_mtime_ns,
    )


TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""
HOLD_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["dotlock", "flock", "fcntl"])
def test_a_writer_s_lock_is_waited_for(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for ever: a scan says who is in the way, a message is held."""
    source = Mbox(path)
    (message, *_) = scanned(source)
    monkeypatch.setattr(mbox_file, "LOCK_SECONDS", 0.2)
    holder = None
    if kind == "dotlock":
        Path(f"{path}.lock").touch()
    command = [sys.executable, "-c", HOLD_LOCK, os.fspath(path)]
    if kind == "fcntl":
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            refuse(source, message)
    elif kind == "flock":
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            refuse(source, message)
    else:
        refuse(source, message)
        Path(f"{path}.lock").unlink()
    assert len(scanned(source)) == 3


def refuse(source: Mbox, message: Message) -> None:
    """See that a locked file is not read."""
    with pytest.raises(SourceError, match="locked") as caught:
        next(source.scan())
    assert ".lock" in caught.value.hint
    with pytest.raises(MessageUnreadable, match="locked"):
        source.open(message)


# ---- hostile files


def test_only_a_regular_file_is_an_mbox(tmp_path: Path) -> None:
    """Absent, a folder, a pipe: an error with a hint, and nothing blocks."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("absent", ".", "pipe"):
        with pytest.raises(SourceError) as caught:
            Mbox(tmp_path / name)
        assert caught.value.hint


def test_a_file_that_turns_into_a_link_is_not_followed(path: Path) -> None:
    """The path was resolved when the source was opened."""
    source = Mbox(path)
    message = scanned(source)[0]
    path.rename(path.with_name("outside"))
    path.symlink_to("outside")
    with pytest.raises(SourceError):
        next(source.scan())
    with pytest.raises(MessageUnreadable):
        source.open(message)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", []),
        (b"no mbox at all\n", ["corrupt"]),
        (b"\x1f\x8b\x08\0\0\0", ["compressed"]),
        (b"lost\n\n" + mail("x"), ["corrupt", ""]),
        (mail("x")[:-10], ["incomplete"]),
        (mail("x") + mail("y")[:30], ["incomplete"]),
        (FROM.encode() + b"\n", ["incomplete"]),
        (FROM.encode() + b"\n" + mail("x"), ["corrupt", ""]),
        (FROM.encode() + b"A" * 600_000 + b"\n\nx\n\n" + mail("x"), ["corrupt", ""]),
        (mail("x").replace(b"s@example", b"s\xff@example"), ["bad-address"]),
        (mail("x").replace(b"s@", b"s\x1b[31m@"), ["bad-address"]),
    ],
    ids=range(12),
)
def test_damage_is_listed_and_the_rest_goes_on(
    path: Path, data: bytes, expected: list[str]
) -> None:
    """Each with a name for it."""
    path.write_bytes(data)
    assert codes(Mbox(path)) == expected
    for spooled in Mbox(path).scan():
        b"".join(spooled.content.chunks())
        assert Mbox(path).open(spooled.message).message == spooled.message


def test_bad_line_ends_stay_as_they_are(path: Path) -> None:
    """A bare CR is content; it is for others to hold it."""
    path.write_bytes(mail("x", "a\rb\r\nc\n"))
    assert contents(Mbox(path))[0].endswith(b"\r\n\r\na\rb\r\nc\r\n")


MEASURE = """
import sys, time
from pathlib import Path
from drainer.sources.registry import open_source
source = open_source(sys.argv[1], options={})
start = time.process_time()
count = sum(1 for each in source.scan())
status = Path("/proc/self/status").read_text()
print(count, time.process_time() - start, status.partition("VmHWM:")[2].split()[0])
"""


def measure(path: Path) -> tuple[int, float, int]:
    """Return messages, seconds and peak memory (KiB) of a scan."""
    command = [sys.executable, "-c", MEASURE, f"mbox:{path}"]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=120
    )
    count, seconds, peak = done.stdout.split()
    return int(count), float(seconds), int(peak)


def test_many_messages_are_listed_in_linear_time(path: Path) -> None:
    """Twenty thousand take four times as long as five thousand, or so."""
    body = "y" * 500 + "\n"
    for number in (5_000, 20_000):
        with path.open("wb") as file:
            file.writelines(mail(f"m{each}", body) for each in range(number))
        count, seconds, _ = measure(path)
        assert count == number
        assert seconds / number < 0.001


def test_endless_lines_need_neither_time_nor_memory(path: Path) -> None:
    """A hundred megabytes without a line end, and the message behind them."""
    path.write_bytes(mail("m0"))
    _, _, least = measure(path)
    with path.open("ab") as file:
        for _ in range(100):
            file.write(b"From " + b">" * 999_995)
        file.write(b"\n\n" + mail("m1"))
    count, seconds, peak = measure(path)
    assert count == 2
    assert seconds < 10
    assert peak - least < 16 * 1024
