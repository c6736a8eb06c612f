"""Mask in a reply the text that the transaction itself has sent; pure.

A stranger chooses addresses, ENVID, HELO name, header and content, and a server quotes
them: `550 5.1.1 <"authentication required"@example.org>: user unknown`. Such text comes
from the stranger, not from the primary, so no rule may use it.

A server does not always quote exactly. It changes case, quotes, escapes or encodes,
wraps a line in the middle, cuts the end, or writes `_` or `?` for a space. So both
sides are compared by their letters and digits only, in pieces of ``PIECE`` characters.
Each quoted piece is found wherever it is. The time is linear in the reply and in what
was sent, and both are limited.
"""

import html
import re
from collections.abc import Iterable, Iterator
from email.errors import HeaderParseError
from email.header import decode_header
from functools import partial
from urllib.parse import unquote

from msgspec import Struct

from drainer.mail.header import fields_of, unfold
from drainer.mail.mailbox import ascii_domain, readable
from drainer.mail.reply import Reply

PIECE = 8
"""Number of letters and digits in a row that are recognised as sent."""
LEAST_WORD = 2
"""Least letters and digits of a whole local part or field to recognise it as a word."""
MAX_SENT = 32 * 1024
"""Characters of what was sent that are compared, after MAX_HEAD bytes of content."""
MAX_HEAD = 16 * 1024
MAX_ENCODED = 1000
"""Characters of a text that a server may quote in an encoding."""
MAX_WORDS = 500
"""Number of short local parts, domains and field values that are searched singly."""
MAX_REPLY = 4000
"""Characters of a reply that are masked; the rest is dropped."""

TEXT, CLIENT = "<text>", "<client>"
"""The placeholders for what was sent, and for the client that we named."""

_ESCAPED = re.compile(r"\\(.)")
_SYMBOL = re.compile(r"[^\w.@-]|_")
_LETTERS = re.compile(r"[^\W\d_]")
_ENCODINGS = ("{:02x}", "x{:02x}", "{:03o}", "u{:04x}")
"""What encodings make of a space: %20 +20 =20, \\x20 \\x{20}, \\040, \\u0020."""


class SentData(Struct, frozen=True, kw_only=True):
    """The parts of a transaction that a stranger chose."""

    #: Reverse path, forward paths and ORCPT, unchanged.
    addresses: tuple[str, ...] = ()
    #: Address, name and HELO name of the client that gave the message to the backup.
    client: tuple[str, ...] = ()
    #: ENVID, login, and any other text.
    texts: tuple[str, ...] = ()
    #: The start of the content: its header, and a part of its body.
    head: bytes = b""


def remove_echo(reply: Reply, sent: SentData) -> Reply:
    """Return a reply as it would be without quotes of what was sent.

    It also drops an enhanced code that was sent: a local part such as `5.7.8 x` forges
    one where a server starts its text with the address.
    """
    enhanced, text = reply.enhanced, reply.text
    if enhanced and _has_code(sent, enhanced):
        enhanced, text = "", f"{enhanced} {text}"
    masked = mask(text, sent)
    return Reply(code=reply.code, text=masked, enhanced=enhanced, mixed=reply.mixed)


def _has_code(sent: SentData, enhanced: str) -> bool:
    pattern = re.compile(rf"(?<![\d.]){re.escape(enhanced)}(?![\d.])")
    return any(pattern.search(each[:MAX_SENT]) for each in _all(sent))


def mask(text: str, sent: SentData) -> str:
    """Return a text with placeholders for everything in it that was sent."""
    text = text[:MAX_REPLY]
    for each in sent.client:
        text = _without_name(text, each)
    return _without_pieces(text, tuple(_all(sent)))


def _all(sent: SentData) -> Iterator[str]:
    """Yield every text that was sent, decoded and unchanged."""
    for address in sent.addresses:
        yield from _forms_of(address)
    yield from sent.texts
    yield from sent.client
    yield from _head_texts(sent.head[:MAX_HEAD])


def _forms_of(address: str) -> Iterator[str]:
    """Yield an address, its local part and its domain, in all their forms."""
    local, at, domain = address.rpartition("@")
    if not at:
        yield _unescape(address)
        return
    bare = _unescape(local)
    yield f"{bare}@{domain}"
    yield bare
    yield domain
    yield ascii_domain(domain)
    yield readable(domain)


def _unescape(local: str) -> str:
    quoted = len(local) > 1 and local.startswith('"') and local.endswith('"')
    return _ESCAPED.sub(r"\1", local[1:-1] if quoted else local)


def _head_texts(head: bytes) -> Iterator[str]:
    """Yield the field values of a header, also decoded, and the text after it."""
    end = 0
    for field in fields_of(head):
        value = unfold(field.value).encode("utf-8", "replace").decode()
        yield value
        if "=?" in value:
            yield _decode(value)
        end = field.end
    body = head[end:].decode("utf-8", "replace")
    yield body
    text = head.decode("utf-8", "replace")
    if "%" in text:  # a file name, RFC 2231
        yield unquote(text)


def _decode(value: str) -> str:
    """Return a field value with its encoded words decoded (RFC 2047)."""
    found = ""
    try:
        for part, charset in decode_header(value):
            if isinstance(part, bytes):
                part = part.decode(charset or "utf-8", "replace")  # noqa: PLW2901
            found += part
    except (HeaderParseError, LookupError, ValueError):
        return ""
    return found


# --- the client by name


def _without_name(text: str, name: str) -> str:
    """Replace a client's address or name by a placeholder, if it is a whole word."""
    if "." not in name and ":" not in name:
        return text  # `mail`, `localhost`: not the name of one client
    pattern = rf"\[?(?<![\w.:-]){re.escape(name)}(?![\w-]|[.:]\w)\]?"
    return re.sub(pattern, CLIENT, text, flags=re.IGNORECASE)


# --- everything else by its letters


class _FoldedText:
    """The letters and digits of a text, in lower case, with their positions."""

    def __init__(self, text: str) -> None:
        self.text = text
        chars, places = [], []
        for place, char in enumerate(text):
            for folded in char.casefold():
                if folded.isalnum():
                    chars.append(folded)
                    places.append(place)
        self.chars, self.places = "".join(chars), places

    def is_word(self, start: int, end: int) -> bool:
        """Return whether no letter or digit of the text touches these characters."""
        first, last = self.places[start], self.places[end - 1]
        before = self.text[first - 1 : first]
        after = self.text[last + 1 : last + 2]
        return not (before.isalnum() or after.isalnum())


def _fold(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _without_pieces(text: str, sent: tuple[str, ...]) -> str:
    folded = _FoldedText(text)
    known = _pieces(folded.chars, sent)
    marks = bytearray(len(folded.chars))
    for start in range(len(folded.chars) - PIECE + 1):
        if folded.chars[start : start + PIECE] in known:
            marks[start : start + PIECE] = b"\1" * PIECE
    for word in _words(sent):
        _mark_word(folded, word, marks)
    return _replace_marks(folded, marks)


def _pieces(chars: str, sent: Iterable[str]) -> set[str]:
    """Return each run of PIECE characters that is in any form of what was sent.

    A run with too few letters is a number or an IP address, which may be ours.
    """
    all_ = {chars[n : n + PIECE] for n in range(len(chars) - PIECE + 1)}
    wanted = {each for each in all_ if len(_LETTERS.findall(each)) >= PIECE // 2}
    found: set[str] = set()
    left = MAX_SENT
    for text in dict.fromkeys(sent):
        cut = text[: max(0, left)]
        left -= len(cut)
        for form in _encodings(cut):
            found.update(
                piece
                for n in range(len(form) - PIECE + 1)
                if (piece := form[n : n + PIECE]) in wanted
            )
    return found


def _encodings(text: str) -> Iterator[str]:
    """Yield a text's letters and digits, plain and as encodings leave them."""
    yield _fold(text)
    if len(text) > MAX_ENCODED or _SYMBOL.search(text) is None:
        return
    yield _fold(html.escape(text))
    if not text.isascii():
        yield _fold(text.encode().decode("latin-1"))
        text = text.encode().decode("latin-1")  # each byte is encoded by itself
    for form in _ENCODINGS:
        yield _fold(_SYMBOL.sub(partial(_encode, form), text))


def _encode(form: str, found: re.Match[str]) -> str:
    return form.format(ord(found[0]))


def _words(sent: Iterable[str]) -> list[str]:
    """Return the texts that are too short for a piece and are searched as words."""
    found = dict.fromkeys(
        folded
        for text in sent
        if len(text) < 4 * PIECE
        and LEAST_WORD <= len(folded := _fold(text)) < PIECE
        and len(_LETTERS.findall(folded)) >= LEAST_WORD
    )
    return list(found)[:MAX_WORDS]


def _mark_word(folded: _FoldedText, word: str, marks: bytearray) -> None:
    start = folded.chars.find(word)
    while start >= 0:
        end = start + len(word)
        if folded.is_word(start, end):
            marks[start:end] = b"\1" * len(word)
        start = folded.chars.find(word, end)


def _replace_marks(folded: _FoldedText, marks: bytearray) -> str:
    """Return the text with a placeholder for each run of marks."""
    found, copied, n = [], 0, 0
    while (n := marks.find(1, n)) >= 0:
        end = marks.find(0, n)
        end = len(marks) if end < 0 else end
        found += [folded.text[copied : folded.places[n]], TEXT]
        copied, n = folded.places[end - 1] + 1, end
    return "".join([*found, folded.text[copied:]])
