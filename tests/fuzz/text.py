"""Contents and their trace fields; addresses; what is kept as text in a ledger."""

import re
from collections.abc import Iterable, Iterator

from drainer.ledger.columns import from_json, storable, to_json
from drainer.mail.content import (
    crlf,
    dot_stuff,
    message_id_of,
    replace_bare_newlines,
    survey,
)
from drainer.mail.envelope import (
    AddressError,
    decode_orcpt,
    from_utf8_xtext,
    from_xtext,
    parse_mailbox,
    quote_mailbox,
    xtext,
)
from drainer.sources.common.files import escape_name, unescape_name
from drainer.sources.common.trace_envelope import TraceRules
from drainer.sources.common.trace_headers import cut, read_trace
from drainer.sources.haraka.message import unstuff
from tests.fuzz.target import Target, stateless
from tests.support.command.installed import maildir_message

_MAIL = [maildir_message(1, "r@example.org"), b"A: b\r\n\r\n.\r\n..\r\n\r\nx\ry\n"]
_PATHS = [b"a@example.org", b'"a \\"b"@example.org', b"<a@[192.0.2.1]>", b"Postmaster"]


def targets() -> Iterator[Target]:
    """Yield the targets."""
    fields = (b"Delivered-To: a@b\n", b"Received: from x\n\tby y for <a@b>; z\n",
              b"Return-Path: <>\n", b"(", b")", b" for <", b" by ")  # fmt: skip
    yield stateless("trace fields", traced, _MAIL, *fields)
    yield stateless("contents", passed_on, _MAIL, b".", b"\n.", b"\r\n.\r\n")
    yield stateless("addresses", addressed, _PATHS, b"@", b'"', b"\\", b"[", b".")
    parameters = [b"rfc822;a+2Bb", b"utf-8;\\x{E9}@x", b"QQ+3D"]
    yield stateless("DSN parameters", decoded, parameters, b"+", b"\\x{", b"}")
    yield stateless("texts of a ledger", kept, [b'{"a": ["b", null, 1.5]}', b"\xff%41"])


def _pieces(data: bytes, size: int) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def traced(data: bytes) -> None:
    """Read the envelope: addresses that may be sent, ranges in order."""
    for host in ("", "backup.example"):
        trace = read_trace(data, TraceRules(backup_host=host))
        for each in trace.envelope.recipients:
            assert each.fault or parse_mailbox(each.forward_path) == each.forward_path
        edges = [edge for each in trace.stripped for edge in each]
        assert edges == sorted(edges)
        assert not edges or edges[-1] <= len(data)
        whole = b"".join(cut(iter([data]), trace.stripped))
        assert whole == b"".join(cut(iter(_pieces(data, 7)), trace.stripped))
    assert message_id_of(data).isprintable()


def passed_on(data: bytes) -> None:
    """Make CRLF and stuff dots: no matter how it is cut, and back again."""
    sent = b"".join(crlf([data]))
    assert sent == b"".join(crlf(_pieces(data, 3)))
    assert not sent or sent.endswith(b"\r\n")
    assert survey([sent], digest=True) == survey(_pieces(sent, 3), digest=True)
    stuffed = b"".join(dot_stuff([sent]))
    assert stuffed == b"".join(dot_stuff(_pieces(sent, 3)))
    assert not re.search(rb"(?:\A|\r\n)\.\r\n", stuffed)
    spaced = b"".join(replace_bare_newlines(_pieces(sent, 3)))
    assert survey([spaced]).bare_newlines == 0
    if survey([sent]).bare_newlines == 0:
        assert b"".join(unstuff(_pieces(stuffed, 3))) == sent


def addressed(data: bytes) -> None:
    """Read an address: refused, or fit for a command."""
    text = data.decode("utf-8", "surrogateescape")
    for read in (parse_mailbox, quote_mailbox):
        try:
            path = read(text)
        except AddressError:
            continue
        assert not re.search("[\0-\x1f\x7f]", path)
        assert parse_mailbox(path) == path or len(path.encode()) > len(data)
        path.encode()


def decoded(data: bytes) -> None:
    """Decode parameters of DSN: nothing, or text that comes back the same."""
    for text in (from_xtext(data), from_utf8_xtext(data), decode_orcpt(data)):
        assert text.isprintable()
    if plain := from_xtext(data):
        assert from_xtext(xtext(plain).encode()) == plain


def kept(data: bytes) -> None:
    """Store a text, and escape a name: both come back."""
    text = data.decode("utf-8", "surrogateescape")
    assert from_json(to_json([text])) == [text]
    storable(text).encode()
    name = escape_name(text)
    assert name.isprintable()
    assert unescape_name(name) == text
