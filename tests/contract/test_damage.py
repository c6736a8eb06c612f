"""Damaged and hostile spools: each message is told by name, and the rest goes on.

A format that is to be held to this has a line in ``SHAPES``, and a kit.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from drainer.delivery.loader import examine
from drainer.errors import MessageUnreadable, SourceError
from drainer.mail.message import PROBLEMS
from drainer.policy.admission.admit import Admission, admit
from drainer.policy.recipient.delivery import ScannedMessage
from drainer.sources.common.control_files import MAX_CONTROL_BYTES
from drainer.sources.postfix.records import MAX_ENVELOPE_BYTES
from drainer.sources.protocol import Source
from tests.contract.test_sources import KITS, Kit, as_nobody, root
from tests.support.spools.exim_files import header_file
from tests.support.spools.exim_files import place as place_exim
from tests.support.spools.postfix_files import ARRIVAL, queue_file, record, size_record
from tests.support.spools.postfix_files import place as place_postfix
from tests.support.spools.queue_kits import (
    address,
    control_file,
    haraka_file,
    lay_out_qmail,
    todo,
)

__all__ = ("root",)

VICTIM, NEIGHBOUR = "2878E", "2878F"
MARKER = "outside-of-the-spool"
GIGABYTE = 1024**3
RULES = Admission()


class Shape(NamedTuple):
    """Which files of a message are what, as patterns below the spool."""

    #: They name the envelope: damage to one never goes unnoticed.
    control: tuple[str, ...] = ()
    #: Octets that somebody sent: most of what happens to them can be mail.
    content: tuple[str, ...] = ()


SHAPES = {
    "postfix": Shape(control=("deferred/*/*",)),
    "maildir": Shape(content=("new/*",)),
    "exim": Shape(control=("input/S/*-H",), content=("input/S/*-D",)),
    "sendmail": Shape(control=("qf*",), content=("df*",)),
    "haraka": Shape(control=("*",)),
    "opensmtpd": Shape(control=("queue/*/*/2*",), content=("queue/*/*/message",)),
    "qmail": Shape(control=("info/*/*", "remote/*/*"), content=("mess/*/*",)),
    "eml": Shape(content=("*.eml",)),
}


def overwritten(data: bytes) -> Callable[[Path], object]:
    """Return what writes something else into a file."""
    return lambda path: path.write_bytes(data)


def shortened(path: Path, by: Callable[[int], int]) -> None:
    """Cut a file off."""
    os.truncate(path, by(path.stat().st_size))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "nothing in it": overwritten(b""),
    "half of it": lambda path: shortened(path, lambda size: size // 2),
    "the last octet lost": lambda path: shortened(path, lambda size: size - 1),
    "NULs, as after a power loss": lambda path: overwritten(bytes(path.stat().st_size))(
        path
    ),
    "octets that are no text": overwritten(bytes(range(255, 0, -1)) * 20),
    "invalid UTF-8": overwritten(b"\xff\xc0\x80\xed\xa0\x80\n" * 50),
    "fields without end": overwritten(b"X-Filler: y\n" * 250_000),
    "a line of 5 MB": overwritten(b"y" * 5_000_000),
    "a gigabyte behind it": lambda path: os.truncate(path, GIGABYTE),
}

UNNOTICED = {
    ("haraka", "the last octet lost"),  # it was of the content
    ("postfix", "a gigabyte behind it"),  # Postfix reads no further than the end mark
    ("haraka", "a gigabyte behind it"),  # it is content
}
"""Damage to a control file that nobody can see, or that does no harm."""


def a_link(path: Path) -> None:
    """Put a link that leads out of the spool."""
    outside = path.with_name("x")
    while "spool" in outside.parts:
        outside = outside.parent
    (outside / MARKER).write_text(f"{MARKER}\n")
    path.symlink_to(outside / MARKER)


def a_socket(path: Path) -> None:
    """Put a socket."""
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(os.fspath(path))


STRANGERS: dict[str, Callable[[Path], object]] = {
    "a link": a_link,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a pipe": lambda path: os.mkfifo(path, 0o700),
    "a socket": a_socket,
    "a directory": lambda path: path.mkdir(),
    "a device": lambda path: os.mknod(path, 0o020700, os.makedev(1, 5)),
}
"""What may stand in the place of a file; the device gives zeros for ever."""
NEEDS_ROOT = {"a device"}


@pytest.fixture(params=SHAPES)
def name(request: pytest.FixtureRequest) -> str:
    """Give the name of each format in turn."""
    chosen: str = request.param
    return chosen


@pytest.fixture
def kit(name: str) -> Kit:
    """Give the kit of the format."""
    return KITS[name]


def files(root: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files of the victim that are called so."""
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if VICTIM in str(path.relative_to(root)):
                yield path


def two_messages(kit: Kit, root: Path) -> None:
    """Lay out the one that is to suffer and the one that must not."""
    kit.write(root, VICTIM.encode(), "x")
    kit.write(root, NEIGHBOUR.encode(), "x")


def examined(source: Source) -> dict[str, ScannedMessage]:
    """Return what a drain would make of each message; big ones are not read."""
    found: dict[str, ScannedMessage] = {}
    for spooled in source.scan():
        message = spooled.message
        if message.size_bytes < GIGABYTE // 2:
            found[message.native_id] = examine(spooled, RULES)
        else:
            found[message.native_id] = admit(spooled, None, RULES)
    return found


def judged(source: Source) -> tuple[str, ScannedMessage]:
    """Return the victim's problem ('' for none) and what is known of it.

    Both messages must be there, and the other one must be as it was.
    """
    found = examined(source)
    victim, neighbour = found.pop(VICTIM), found.pop(NEIGHBOUR)
    assert not found
    assert neighbour.problem is None
    assert neighbour.facts is not None
    problem = victim.problem or victim.spooled.message.problem
    if problem is None:
        return "", victim
    assert problem.code in PROBLEMS
    assert problem.detail
    return problem.code, victim


# ---- damage


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_an_envelope_is_reported(
    name: str, kit: Kit, root: Path, damage: str
) -> None:
    """Whatever names sender and recipients is whole, or the message is held."""
    two_messages(kit, root)
    for path in files(root, SHAPES[name].control):
        kept = path.read_bytes()
        DAMAGES[damage](path)
        code, _ = judged(kit.open(root))
        assert code or (name, damage) in UNNOTICED, path
        path.write_bytes(kept)
    assert judged(kit.open(root))[0] == ""


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_a_content_is_reported_or_is_mail(
    name: str, kit: Kit, root: Path, damage: str
) -> None:
    """Nothing is sent of a content that is not there."""
    two_messages(kit, root)
    for path in files(root, SHAPES[name].content):
        DAMAGES[damage](path)
        code, victim = judged(kit.open(root))
        assert code or victim.facts is None or victim.facts.size_bytes


@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_is_no_file_is_never_opened(
    name: str, kit: Kit, root: Path, stranger: str
) -> None:
    """In the place of any file of a message: named, not followed, not waited for."""
    if stranger in NEEDS_ROOT and os.geteuid() != 0:
        stranger = "a pipe"
    shape = SHAPES[name]
    two_messages(kit, root)
    for path in files(root, (*shape.control, *shape.content)):
        kept = path.rename(root.parent / "kept")
        STRANGERS[stranger](path)
        code, victim = judged(kit.open(root))
        assert code in ("not-a-file", "corrupt"), path
        with pytest.raises(MessageUnreadable):
            b"".join(victim.spooled.content.chunks())
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        kept.rename(path)


def test_a_directory_that_leads_out_is_not_entered(
    name: str, kit: Kit, root: Path
) -> None:
    """A link in the place of any directory: refused by name, or not a message."""
    two_messages(kit, root)
    shape = SHAPES[name]
    seen = {
        above
        for path in files(root, (*shape.control, *shape.content))
        for above in path.parents
        if above != root and above.is_relative_to(root)
    }
    for folder in sorted(seen):
        outside = folder.rename(root.parent / "outside")
        folder.symlink_to(outside)
        victim = None
        with suppress(SourceError):
            victim = examined(kit.open(root)).get(VICTIM)
        assert victim is None or victim.problem is not None, folder
        folder.unlink()
        outside.rename(folder)


def test_a_directory_that_closes_holds_its_messages(kit: Kit, root: Path) -> None:
    """Permission is taken away between listing and reading: told, no crash."""
    kit.write(root, VICTIM.encode(), "x", "y\n" * 300_000)
    for path in (root, *root.rglob("*")):
        path.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)

    def look() -> str:
        (spooled,) = kit.open(root).scan()
        for folder in filter(Path.is_dir, sorted(root.rglob("*"), reverse=True)):
            folder.chmod(0o000)
        if not any(path.is_dir() for path in root.iterdir()):
            root.chmod(0o000)
        problem = examine(spooled, RULES).problem
        return problem.code if problem else ""

    assert as_nobody(look) == "unreadable"


def test_a_spool_that_may_be_listed_but_not_searched_is_refused(
    kit: Kit, root: Path
) -> None:
    """Read permission alone opens nothing: said at the start, with what to do."""
    kit.write(root, VICTIM.encode(), "x")
    root.chmod(0o744)

    def look() -> str:
        try:
            kit.open(root)
        except SourceError as error:
            return error.hint
        return "it was opened"

    assert "owner" in as_nobody(look)


# ---- size


def postfix_of(root: Path, size: int) -> None:
    """Write a queue file whose one line has so many bytes, most of them a hole."""
    front = record("T", ARRIVAL) + record("S", "s@example.com")
    front += record("R", "r@example.org") + record("M") + record("N", "A: b")
    piece = 128 * 1024 * 1024
    framed = size + -(-size // piece) * len("L0000")
    path = place_postfix(root, size_record(framed, 97 + len(front)) + front, VICTIM)
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        for start in range(0, size, piece):
            length = min(piece, size - start)
            groups = [length >> shift & 0x7F for shift in (0, 7, 14, 21)]
            file.write(bytes((ord("L"), *(each | 0x80 for each in groups[:3]))))
            file.write(bytes(groups[3:]))
            file.seek(length, os.SEEK_CUR)
        file.write(record("X") + record("E"))


def enlarge(name: str, root: Path, size: int) -> None:
    """Let the victim be a message with a line of so many bytes."""
    if name == "postfix":
        postfix_of(root, size)
        return
    shape = SHAPES[name]
    for path in files(root, shape.content or shape.control):
        os.truncate(path, size)


def test_two_gigabytes_are_listed_at_once(name: str, kit: Kit, root: Path) -> None:
    """Listing reads the beginning of a message, whatever its size."""
    kit.write(root, VICTIM.encode(), "x")
    enlarge(name, root, 2 * GIGABYTE)
    (spooled,) = kit.open(root).scan()
    assert spooled.message.problem is None
    assert spooled.message.size_bytes >= 2 * GIGABYTE - 1000
    assert sum(map(len, islice(spooled.content.chunks(), 9)))


MANY = 100_000


def many_paths() -> Iterator[str]:
    """Yield as many forward-paths."""
    return (f"user{n}@d{n % 100}.example.org" for n in range(MANY))


def postfix_many(root: Path) -> None:
    """Write a queue file."""
    text = b"A: b\n"
    envelope = [record("R", path) for path in many_paths()]
    place_postfix(root, queue_file(envelope=envelope, text=text), VICTIM)


def exim_many(root: Path) -> None:
    """Write a ``-H`` file."""
    paths = [path.encode() for path in many_paths()]
    header = header_file(recipients=paths)
    place_exim(root, header, name=VICTIM, parts=("input", "S"))


def sendmail_many(root: Path) -> None:
    """Write a control file."""
    lines = "".join(f"RPFD:<{path}>\n" for path in many_paths())
    (root / f"qf{VICTIM}").write_text(control_file("A: b\n", lines), "latin-1")


def haraka_many(root: Path) -> None:
    """Write a queue file."""
    values = todo(VICTIM)
    values["rcpt_to"] = [address(*path.split("@")) for path in many_paths()]
    name = f"1795453619413_1795453619413_0_99999999_{VICTIM}_1_mx2"
    (root / name).write_bytes(haraka_file(values, b"A: b\r\n"))


def qmail_many(root: Path) -> None:
    """Write the recipients that are left."""
    records = "".join(f"T{path}\0" for path in many_paths())
    lay_out_qmail(root, VICTIM, {"remote": records.encode()})


def eml_many(root: Path) -> None:
    """Write a sidecar."""
    envelope = {"reverse_path": "", "recipients": list(many_paths())}
    (root / f"{VICTIM}.json").write_text(json.dumps(envelope))


MANY_RECIPIENTS = {
    "postfix": postfix_many,
    "exim": exim_many,
    "sendmail": sendmail_many,
    "haraka": haraka_many,
    "qmail": qmail_many,
    "eml": eml_many,
}
"""An envelope of OpenSMTPD has one recipient, the fields of a Maildir have room for
some thousands."""


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", MANY_RECIPIENTS)
def test_a_hundred_thousand_recipients_are_all_there(
    name: str, kit: Kit, root: Path
) -> None:
    """Each once, in order, in the time of a breath."""
    kit.write(root, VICTIM.encode(), "x")
    MANY_RECIPIENTS[name](root)
    (spooled,) = kit.open(root).scan()
    assert spooled.message.problem is None
    recipients = spooled.message.envelope.recipients
    assert [each.forward_path for each in recipients] == list(many_paths())


def dense_postfix(root: Path) -> None:
    """Write recipients of one octet for as long as a reader would keep them."""
    path = place_postfix(root, queue_file(), VICTIM)
    front = queue_file().partition(record("M"))[0]
    path.write_bytes(front + record("R", "a") * (MAX_ENVELOPE_BYTES // 40))


def dense_haraka(root: Path) -> None:
    """Write the shortest objects."""
    text = b'{"mail_from":{},"rcpt_to":[' + b"{}," * (5 * 1024 * 1024) + b"{}]}"
    name = f"1795453619413_1795453619413_0_99999999_{VICTIM}_1_mx2"
    (root / name).write_bytes(len(text).to_bytes(4, "big") + text + b"\r\n")


def dense_eml(root: Path) -> None:
    """Write the shortest objects into a sidecar."""
    text = '{"reverse_path":"","recipients":[' + "{}," * 1_390_000 + "{}]}"
    (root / f"{VICTIM}.json").write_text(text)


def dense(pattern: str, record: bytes, end: bytes = b"") -> Callable[[Path], object]:
    """Return what writes the shortest records up to the size that is read."""

    def write(root: Path) -> None:
        for path in files(root, (pattern,)):
            count = (MAX_CONTROL_BYTES - 100) // len(record)
            path.write_bytes(record * count + end)

    return write


DENSE: dict[str, Callable[[Path], object]] = {
    "postfix": dense_postfix,
    "exim": dense("input/S/*-H", b"\n"),
    "sendmail": dense("qf*", b"R\n", b".\n"),
    "haraka": dense_haraka,
    "opensmtpd": dense("queue/*/*/2*", b"a:\n"),
    "qmail": dense("remote/*/*", b"T\0"),
    "maildir": dense("new/*", b"Delivered-To: ,\n"),
    "eml": dense_eml,
}


LISTING = """
import sys
from pathlib import Path
from drainer.sources.registry import open_source
(spooled,) = open_source(sys.argv[1], options={}).scan()
status = Path("/proc/self/status").read_text()
print(spooled.message.problem.code, status.partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.timeout(30)
def test_memory_and_time_have_a_bound_whatever_a_file_says(
    name: str, kit: Kit, root: Path
) -> None:
    """As many records as fit cost 200 MB at most, and the message is held."""
    kit.write(root, VICTIM.encode(), "x")
    DENSE[name](root)
    command = [sys.executable, "-c", LISTING, kit.open(root).url]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    code, peak = done.stdout.split()
    assert code == "corrupt"
    assert int(peak) < 200 * 1024
