r"""Read envelope and header section from a sendmail control file (``qf``); pure.

Each fact is one line, with its first character as the type; a line that starts with a
blank continues the one before (Sendmail Installation and Operation Guide, appendix B;
queue.c, readqf and queueup). The last line is a dot: a file without one was cut off.

sendmail removes finished recipients by rewriting the file: it does not say who they
were.
"""

import re
from dataclasses import dataclass, field

from drainer.errors import MessageUnreadable
from drainer.mail.envelope import Client, Envelope, Recipient, unique_recipients
from drainer.mail.reply import printable
from drainer.sources.common.stored_text import (
    flags_of,
    mailbox_of,
    parameter_of,
    recipient_of,
    text_of,
)

NEWEST_VERSION = 8
"""QF_VERSION of sendmail 8.13 and later; older ones are a subset of it."""

_MAX_CLIENT = 500
_MAX_SECONDS = 2**35
_CONDITION = re.compile(rb"\?([^?]*)\?(.*)", re.DOTALL)
#: Before version 1 there were no flags.
_RECIPIENT = re.compile(rb"(?:([A-Za-z]*):)?(.*)", re.DOTALL)
_MACRO = re.compile(rb"\{([^}]*)\}(.*)|(.)(.*)", re.DOTALL)
_CLIENT = re.compile(r"(?:\S*@)?(\S*?) ?\[(?:IPv6:)?([^\]\s]+)\]")
_NOTIFY = (("S", "SUCCESS"), ("F", "FAILURE"), ("D", "DELAY"))
#: Header flags of the mailers that speak SMTP; P (Return-Path) belongs to local
#: delivery, x (Full-Name) to UUCP (cf/m4/proto.m4, mailer/smtp.m4).
_SMTP_MAILER = frozenset(b"mDFMuXa8")


@dataclass(slots=True)
class ControlFile:
    """The content of a control file."""

    envelope: Envelope
    #: The header section with LF line ends, without the blank line after it.
    header: bytes
    arrived: int
    client: Client
    login: str
    flags: tuple[str, ...]
    #: Why the message is in quarantine; '' = it is not.
    quarantine: str
    #: Last two names of the directory with the body; () = not given.
    body_directory: tuple[str, ...]
    #: The fault of its sender; '' = none.
    fault: str
    #: The sender as stored; a part of the identity.
    sender: bytes


@dataclass(slots=True)
class _Lines:
    """The data read so far."""

    single: dict[str, bytes] = field(default_factory=dict)
    macros: dict[bytes, bytes] = field(default_factory=dict)
    #: (flags, address, ORCPT)
    recipients: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)
    orcpt: bytes = b""


def parse(data: bytes) -> ControlFile:
    """Parse a control file; raises MessageUnreadable('corrupt', 'incomplete')."""
    if not data:
        raise MessageUnreadable("incomplete", "its control file is empty")
    found = _Lines()
    for line in _unfold(data):
        _read(line, found)
    _check(found)
    return _explain(found)


def _unfold(data: bytes) -> list[bytes]:
    """Split into lines with their continuations; the final dot must be there."""
    text, end, rest = (b"\n" + data).partition(b"\n.\n")
    if not end or rest:
        detail = "cut off: no final dot" if not end else "text after its final dot"
        raise MessageUnreadable("corrupt", detail)
    if b"\0" in text:
        raise MessageUnreadable("corrupt", "a NUL in its control file")
    return re.split(rb"\n(?![ \t])", text[1:])


def _read(line: bytes, found: _Lines) -> None:
    kind, value = line[:1].decode("latin-1"), line[1:]
    if kind == "R":
        match = _RECIPIENT.fullmatch(value)
        flags, address = (match[1] or b"", match[2]) if match else (b"", value)
        found.recipients.append((flags, address, found.orcpt))
        found.orcpt = b""
    elif kind == "Q":
        found.orcpt = value
    elif kind == "H":
        found.headers.append(value)
    elif kind == "$":
        match = _MACRO.fullmatch(value)
        if match:
            name, text = (match[1], match[2]) if match[1] else (match[3], match[4])
            found.macros[name or b""] = text or b""
    elif kind and kind in "VTSZFBAdqD":
        found.single[kind] = value


def _check(found: _Lines) -> None:
    """Refuse a file that is not a control file, or one of a future sendmail."""
    missing = [kind for kind in "VTS" if kind not in found.single]
    if missing:
        raise MessageUnreadable("corrupt", f"no {missing[0]} line")
    version, arrived = found.single["V"], found.single["T"]
    if not (version.isdigit() and len(version) <= 3):  # noqa: PLR2004
        raise MessageUnreadable("corrupt", f"version {version[:20]!r}")
    if int(version) > NEWEST_VERSION:
        detail = f"version {int(version)}, known is {NEWEST_VERSION}"
        raise MessageUnreadable("corrupt", detail)
    if not (arrived.isdigit() and len(arrived) < 11):  # noqa: PLR2004 - 2**35
        raise MessageUnreadable("corrupt", f"arrival time {arrived[:20]!r}")


def _explain(found: _Lines) -> ControlFile:
    single = found.single
    flags = single.get("F", b"").decode("latin-1")
    directory = single.get("d", b"").decode("utf-8", "surrogateescape")
    envelope, fault = _envelope(found, flags)
    return ControlFile(
        envelope=envelope,
        header=b"".join(_headers(found)),
        arrived=min(int(single["T"]), _MAX_SECONDS),
        client=_client(found.macros),
        login=text_of(found.macros.get(b"auth_authen", b"")),
        flags=_flags(flags, is_quarantined="q" in single),
        quarantine=text_of(single["q"]) or "no reason" if "q" in single else "",
        body_directory=tuple(directory.split("/")[-2:]) if directory else (),
        fault=fault,
        sender=single["S"],
    )


def _envelope(found: _Lines, flags: str) -> tuple[Envelope, str]:
    sender = found.single["S"]
    reverse_path, fault = ("", "") if sender.strip() == b"<>" else mailbox_of(sender)
    body = found.single.get("B", b"").upper()
    ret = ("HDRS" if "n" in flags else "FULL") if "d" in flags else ""
    envelope = Envelope(
        reverse_path=reverse_path,
        recipients=unique_recipients(map(_recipient, found.recipients)),
        body={b"8BITMIME": "8bit", b"7BIT": "7bit"}.get(body, ""),
        smtputf8="e" in flags,
        envid=parameter_of(found.single.get("Z", b"")),
        ret=ret,
    )
    return envelope, fault


def _recipient(stored: tuple[bytes, bytes, bytes]) -> Recipient:
    letters, address, orcpt = stored
    notify = _notify(letters.decode("latin-1"))
    return recipient_of(address, orcpt=parameter_of(orcpt), notify=notify)


def _notify(letters: str) -> tuple[str, ...]:
    """Return NOTIFY; N means that the client gave it, the rest may be defaults."""
    if "N" not in letters:
        return ()
    names = tuple(name for letter, name in _NOTIFY if letter in letters)
    return names or ("NEVER",)


def _headers(found: _Lines) -> list[bytes]:
    """Return the fields that sendmail would send by SMTP, with their line ends."""
    result = []
    for line in found.headers:
        match = _CONDITION.fullmatch(line)
        if match is None:
            result.append(line + b"\n")
        elif _is_sent(match[1], found.macros):
            result.append(match[2] + b"\n")
    return result


def _is_sent(condition: bytes, macros: dict[bytes, bytes]) -> bool:
    """Judge ``?flags?`` and ``?${macro}?``."""
    if condition.startswith(b"$"):
        return bool(macros.get(condition[1:].strip(b"{}")))
    return not condition or bool(_SMTP_MAILER & frozenset(condition))


def _flags(letters: str, *, is_quarantined: bool) -> tuple[str, ...]:
    return flags_of(
        {
            "bounce": "r" in letters,
            "delay-warned": "w" in letters,
            "quarantined": is_quarantined,
        }
    )


def _client(macros: dict[bytes, bytes]) -> Client:
    """Read ``$_`` (ident, name, address of the client) and ``$s`` (HELO)."""
    client = macros.get(b"_", b"")[:_MAX_CLIENT]  # the pattern is not linear
    match = _CLIENT.match(client.decode("utf-8", "replace"))
    name, address = (match[1], match[2]) if match else ("", "")
    helo = text_of(macros.get(b"s", b""))
    return Client(address=printable(address), name=printable(name), helo=helo)
