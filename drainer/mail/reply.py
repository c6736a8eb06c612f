"""The answer of a peer, or that there was none: Reply, Lost, and the Stage of either.

Parsing follows RFC 5321 4.2 and RFC 2034 4. The text is hostile: the reader
(drainer.smtp.protocol) limits its length, and code that prints it escapes controls. The
first digit of the code decides (RFC 5321 4.2.1).
"""

import enum
import re
from functools import lru_cache
from itertools import takewhile
from typing import TypeGuard

from msgspec import Struct

from drainer.mail.reply_codes import SUCCESS

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245])\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})(?=\s|$)")
_HINT = re.compile(r"(?<![\w.])([245]\.\d{1,3}\.\d{1,3})(?!\.?\w)")
_SHORT_BYTES = 1024
"""A longer reply is parsed each time, so that a hostile primary fills no memory."""
MAX_TEXT = 4096
"""Characters of a reply that are kept, for the same reason."""

EXTENSION, SESSION_END = "extension", "session-end"
"""Reasons of a Lost: the host cannot do what it announces; it ended a used session."""


class Stage(enum.StrEnum):
    """Where in a session something happened, in order."""

    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    #: XCLIENT or XFORWARD, for a message.
    FORWARD = "forward"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    DOT = "dot"
    RSET = "rset"
    QUIT = "quit"

    @property
    def before_mail(self) -> bool:
        """Return whether no message was named yet, so this cannot be about one."""
        return self in _BEFORE_MAIL


_BEFORE_MAIL = frozenset(takewhile(lambda stage: stage is not Stage.MAIL, Stage))


class ProtocolError(ValueError):
    """The peer sent something that is not an SMTP reply."""


class Reply(Struct, frozen=True, kw_only=True):
    """One reply, all of its lines.

    ``enhanced`` is ``c.s.d`` only if it is at the start of the text and agrees with the
    first digit of the code. Any other code found in the text is a ``hint``: it may
    choose words, never the class.
    """

    code: int
    text: str = ""
    enhanced: str = ""
    hint: str = ""
    #: The lines had different codes; the last one counts.
    mixed: bool = False

    @property
    def category(self) -> int:
        """The first digit: 2, 3, 4 or 5."""
        return self.code // 100

    @property
    def detail(self) -> str:
        """``subject.detail`` of the enhanced code: '1.1' of '5.1.1'; '' if none."""
        return self.enhanced[2:]

    def __str__(self) -> str:
        """Return it as one line, as the peer sent it."""
        return _line_of(self)


@lru_cache(maxsize=512)
def _line_of(reply: Reply) -> str:
    return " ".join(filter(None, (str(reply.code), reply.enhanced, reply.text)))


class Lost(Struct, frozen=True, kw_only=True):
    """No reply came: the reason as one word, and the system's message."""

    #: 'timeout', 'closed', 'reset', 'refused', 'unreachable', 'tls', 'protocol',
    #: EXTENSION, SESSION_END.
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        """Return it as a phrase."""
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


def is_success(answer: object) -> TypeGuard[Reply]:
    """Return whether an answer is a reply that accepts a command."""
    return isinstance(answer, Reply) and answer.category == SUCCESS


def parse_reply(raw: bytes) -> Reply:
    """Parse a complete reply: lines that end in LF, the last one final.

    One or two CRs before the LF are not part of the text. Servers repeat themselves, so
    a short one is kept.

    Raises ProtocolError when a line does not start with a code from 2xx to 5xx.
    """
    return _parse_short(raw) if len(raw) <= _SHORT_BYTES else _parse(raw)


def _parse(raw: bytes) -> Reply:
    codes: list[int] = []
    texts: list[str] = []
    for line in raw.removesuffix(b"\n").split(b"\n"):
        match = _LINE.fullmatch(line.strip(b" \t\r"))
        if match is None:
            raise ProtocolError(f"not an SMTP reply: {raw[:200]!r}")
        codes.append(int(match[1]))
        texts.append(_decode(match[3] or b"").strip())
    return _assemble(codes, texts)


_parse_short = lru_cache(maxsize=2048)(_parse)


def _assemble(codes: list[int], texts: list[str]) -> Reply:
    code = codes[-1]
    first = _ENHANCED.match(texts[0])
    status = first[0] if first else ""
    if status:  # RFC 2034 4: every line repeats it
        texts = [text.removeprefix(status).lstrip() for text in texts]
    text = " ".join(filter(None, texts))[:MAX_TEXT]
    agrees = status[:1] == str(code // 100)
    hint = status if status and not agrees else ""
    if not status and (found := _HINT.search(text)):
        hint = found[1]
    return Reply(
        code=code,
        text=text,
        enhanced=status if agrees else "",
        hint=hint,
        mixed=len(set(codes)) > 1,
    )


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def printable(text: str, limit: int = 1000) -> str:
    """Escape controls so that the text is safe in a terminal, log or header.

    Cuts at ``limit`` characters. Bidirectional overrides count as controls.
    """
    cut = text if len(text) <= limit else text[:limit] + "..."
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else _escape(c) for c in cut)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def as_said(text: str) -> Reply | str:
    """Return a reply that was stored as text; else the text itself."""
    try:
        return parse_reply(text.encode("utf-8", "replace"))
    except ProtocolError:
        return text
