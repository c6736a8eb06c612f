"""The readers of spools: each file of a message, with anything in it.

A format takes part by its line in ``SHAPES`` (tests/contract/test_damage.py).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from drainer.delivery.loader import examine
from drainer.errors import MessageUnreadable
from drainer.mail.content import HeldContent
from drainer.mail.message import SpooledMessage
from drainer.policy.admission.admit import Admission
from drainer.sources.database.mapping import TableMapping
from drainer.sources.database.rows import message_of
from drainer.sources.postfix.message import QueueFile, parse_large, parse_whole
from drainer.sources.postfix.records import RecordReader
from drainer.sources.postfix.segments import EnvelopeRecords, read_envelope
from tests.contract.test_damage import NEIGHBOUR, SHAPES, VICTIM, files, two_messages
from tests.contract.test_sources import KITS
from tests.fuzz.target import Run, Target, check_message, stateless
from tests.support.command.installed import maildir_message
from tests.support.paths import DATA
from tests.support.spools.postfix_files import queue_file

_SAMPLES: Final = {
    "postfix": ("*/*/*",),
    "exim": ("input/*/*-H", "input/*/*-D"),
    "sendmail": ("qf*", "df*"),
    "haraka": ("*",),
    "opensmtpd": ("queue/*/*/*[!e]", "queue/*/*/message"),
}
"""Files of real servers, a pattern for each pattern of a message's files."""
_TOKENS: Final = {
    "postfix": (b"R\x0dr@example.org", b"p\x0f            100", b"A\x03a=b", b"M\0",
                b"X\0", b"E\0", b"N\0", b"w\x7f", b"L\xff\x7f"),
    "exim": (b"XX\n", b"YY a@b\n", b"-acl 9 9\n", b" 2,0#1", b"#3", b"-frozen 1\n",
             b"-spool_file_wireformat\n", b"013* A: b c d e f\n"),
    "sendmail": (b"\nRPFD:<a@b>\n", b"\n$_x@y [1.2.3.4]\n", b"\nH?P?A: b\n",
                 b"\nQrfc822;a+2Bb\n", b"\nV9\n", b"\n.\n", b"\n${x}y\n"),
    "haraka": (b"{}", b"[[[[", b'"\\ud800"', b"null", b"NaN", b"1e999", b'"user":'),
    "opensmtpd": (b"\ntype: mda\n", b"\ndsn-orcpt: a+2Bb\n", b"\nrcpt: a@b\n"),
    "qmail": (b"Fs@example.com\0", b"Tr@example.org\0", b"Dd@example.org\0",
              b"Fl-@x-@[]\0", b"F#@[]\0"),
    "maildir": (b"Delivered-To: a@b\n", b"Received: by x\n\tfor <a@b>; x\n",
                b"X-Original-To: a, b@c\n", b"Return-Path: <>\n", b"From a@b x\n"),
}  # fmt: skip
_RULES: Final = Admission()


def targets() -> Iterator[Target]:
    """Yield a target for each kind of file in each format."""
    for name, shape in SHAPES.items():
        for number, pattern in enumerate((*shape.control, *shape.content)):
            samples = _SAMPLES.get(name, ())[number : number + 1]
            yield Target(
                name=f"{name} {pattern}",
                prepare=partial(_prepare, name, pattern),
                seeds=[_usual(name, pattern), *_real(name, samples)],
                tokens=_TOKENS.get(name, ()),
            )
    sound = [_usual("postfix", "deferred/*/*"), queue_file(text=b"x" * 5000)]
    yield stateless("postfix, two ways", postfix_two_ways, sound, *_TOKENS["postfix"])

    row = b"\x1e".join((b"a@b", b"r@example.org", b"rfc822;r", b"SUCCESS", b"12"))
    yield stateless("rows of a database", row_of_mail, [row], b"\x1e", b"+=", b"NaN")


def _usual(name: str, pattern: str) -> bytes:
    """Return the file that a kit writes."""
    if name == "maildir":
        return maildir_message(1, "r@example.org")
    with TemporaryDirectory() as folder:
        root = Path(folder) / "spool"
        two_messages(KITS[name], root)
        return next(files(root, (pattern,))).read_bytes()


def _real(name: str, patterns: tuple[str, ...]) -> list[bytes]:
    """Return some files that real servers wrote."""
    found = [path for each in patterns for path in sorted((DATA / name).glob(each))]
    return [path.read_bytes() for path in found if path.stat().st_size < 4000][:12]


def _prepare(name: str, pattern: str, folder: Path) -> Run:
    """Lay out a spool; return what scans it with other bytes in that file."""
    root = folder / "spool"
    two_messages(KITS[name], root)
    (path,) = files(root, (pattern,))
    mode = path.stat().st_mode

    def run(data: bytes) -> None:
        path.write_bytes(data)
        path.chmod(mode)
        source = KITS[name].open(root)
        found = [examine(each, _RULES) for each in source.scan()]
        for each in found:
            check_message(each)
        names = [each.spooled.message.native_id for each in found]
        assert NEIGHBOUR in names
        assert len(names) == len((VICTIM, NEIGHBOUR))

    return run


def row_of_mail(data: bytes) -> None:
    """Read a row whose columns are all text of somebody else's."""
    fields = [*data.decode("utf-8", "replace").split("\x1e"), *[""] * 12]
    names = ("reverse_path", "forward_path", "orcpt", "notify", "arrived", "verp",
             "envid", "ret", "body", "helo", "login", "message_id")  # fmt: skip
    row = dict(zip(names, fields, strict=False))
    row |= {"id": fields[-1] or "1", "head": fields[0], "size": ""}
    for is_built_in in (True, False):
        mapping = TableMapping(
            table="t", is_built_in=is_built_in, recipients_format="one"
        )
        message = message_of("sqlite:x", mapping, row, [row])
        spooled = SpooledMessage(message=message, content=HeldContent(b"\r\n"))
        check_message(examine(spooled, _RULES))


def postfix_two_ways(data: bytes) -> None:
    """Hold the parser of whole files to the one that streams."""
    whole = parse_whole(data)
    streamed = parse_large(lambda at, size: data[at : at + size], len(data))
    if whole.error is None and streamed.error is None:
        assert whole.records == streamed.records
        head = whole.head[: len(streamed.head)]
        assert head == streamed.head[: len(head)]
        assert _streamed_content(data) == whole.content
    if whole.error is None:
        assert whole.content is not None
    assert isinstance(whole, QueueFile)


def _streamed_content(data: bytes) -> bytes | None:
    reader = RecordReader(read_at=lambda at, size: data[at : at + size], size=len(data))
    try:
        read_envelope(reader, EnvelopeRecords())
        return b"".join(reader.content())
    except MessageUnreadable:
        return None
