"""Envelopes: mailboxes, the null sender, and the ESMTP parameters of RFC 3461.

Mailboxes are ``str`` in the quoted form of the wire (RFC 5321 4.1.2), without the angle
brackets. The null sender is the empty string and becomes ``<>`` only on the wire. Any
value that this module returns is safe to write into a command.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from drainer.mail.mailbox import MAX_LABEL_LENGTH, ascii_domain, unquote

MAX_MAILBOX_LENGTH = 500
"""In bytes; far over RFC 5321 4.5.3.1.3 (256), short enough for every command line."""

MAX_DOMAIN_LENGTH = 255
"""In bytes (RFC 5321 4.5.3.1.2); a longer one has no name in the DNS."""

NULL_SENDER = ""

# RFC 5321 4.1.2 and RFC 6531 3.3, by what is not allowed: a set that names all of
# Unicode takes ``re`` five milliseconds, at every start of a command.
_ATEXT = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f]'
_LETTER_OR_DIGIT = r"[^\x00-/:-@\[-^`{-\x7f]"  # or an underscore
_LDH = r"[^\x00-,./:-@\[-^`{-\x7f]"  # or a hyphen
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
_QUOTED_STRING = re.compile(r'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"')
_WORDS = re.compile(rf'(?:{_ATEXT}|\.|"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*")+')
_DOMAIN = re.compile(rf"{_LETTER_OR_DIGIT}{_LDH}{{0,62}}(?:\.{_LDH}{{1,63}})*\.?")
_LITERAL = re.compile(r"\[(IPv6:)?([0-9A-Fa-f.:]+)\]", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_XTEXT = re.compile(r"[!-*,-<>-~]*")
_XTEXT_PLAIN = frozenset(range(33, 127)) - {ord("+"), ord("=")}
_SEVERAL = re.compile(r"@[^@\"]*[,;]")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,40}")


class AddressError(ValueError):
    """A mailbox that must not reach the wire."""


def parse_mailbox(text: str) -> str:
    """Return the mailbox in its wire form (RFC 5321 4.1.2).

    Takes the wire form (quoted where needed), with or without angle brackets.
    Raises AddressError for controls, a missing domain or bad syntax.
    """
    text = text.strip(" ")
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    _refuse_unprintable(text)
    local, at, domain = text.rpartition("@")
    if not at or local in ("", '""'):
        if text.lower() == "postmaster":  # RFC 5321 4.1.1.3: the one without a domain
            return text
        raise AddressError(f"no {'local part' if at else 'domain'} in {text!r}")
    if not (_DOT_STRING.fullmatch(local) or _QUOTED_STRING.fullmatch(local)):
        raise AddressError(f"bad local part in {text!r}")
    _check_domain(domain, text)
    return text


def quote_mailbox(text: str) -> str:
    """Return the wire form of an unquoted mailbox, as Postfix stores it.

    The domain starts after the last ``@``; a local part that is not a dot-string is
    quoted (RFC 5321 4.1.2). Raises AddressError as parse_mailbox does.
    """
    _refuse_unprintable(text)
    local, at, domain = text.rpartition("@")
    if not at:
        return parse_mailbox(text)
    _check_domain(domain, text)
    if _DOT_STRING.fullmatch(local):
        return text
    if not local:
        raise AddressError(f"no local part in {text!r}")
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    quoted = f'"{escaped}"@{domain}'
    _refuse_unprintable(quoted)  # it is longer now
    return quoted


def wire_mailbox(text: str) -> str:
    """Return the wire form of a mailbox that a server stored, quoted or not.

    Servers accept and store addresses that no dot-string or quoted string can be:
    ``a..b@x``, ``x.@x``, ``"two words".x@x``. Quotes around a word do not belong to it
    (RFC 5322 4.4). Raises AddressError as parse_mailbox does.
    """
    try:
        return parse_mailbox(text)
    except AddressError:
        path = text.strip(" ")
        if path.startswith("<") and path.endswith(">"):
            path = path[1:-1]
        local, at, domain = path.rpartition("@")
        if not at or not local or local[0] in "@<" or _SEVERAL.search(local):
            raise  # a route such as '@a,@b:c@d', half a bracket, or a list
        if _WORDS.fullmatch(local):
            local = _QUOTED_STRING.sub(lambda word: unquote(word[0]), local)
        return quote_mailbox(f"{local}@{domain}")


def _refuse_unprintable(text: str) -> None:
    if found := _CONTROL.search(text):
        what = "a control character" if found[0] <= "\x7f" else "bytes outside of UTF-8"
        raise AddressError(f"{what} in {text!r}")
    if len(text.encode()) > MAX_MAILBOX_LENGTH:
        raise AddressError(f"longer than {MAX_MAILBOX_LENGTH} bytes: {text[:60]!r}...")


def _check_domain(domain: str, text: str) -> None:
    if domain.startswith("["):
        is_good = _is_literal(domain)
    else:
        is_good = bool(_DOMAIN.fullmatch(domain)) and (
            domain.isascii()
            or bool(ascii_domain(domain))
            or all(map(_fits_in_dns, domain.split(".")))
        )
    if not is_good or len(domain.encode()) > MAX_DOMAIN_LENGTH:
        raise AddressError(f"bad domain in {text!r}")


def _fits_in_dns(label: str) -> bool:
    """Return whether a U-label has an A-label of 63 octets at most (RFC 1035 2.3.4)."""
    room = MAX_LABEL_LENGTH - len("xn--")
    return label.isascii() or len(label.encode("punycode")) <= room


def _is_literal(domain: str) -> bool:
    """Return whether it is an IPv4 or IPv6 address in brackets (RFC 5321 4.1.3)."""
    found = _LITERAL.fullmatch(domain)
    if found is None:
        return False
    try:
        (IPv6Address if found[1] else IPv4Address)(found[2])
    except ValueError:
        return False
    return True


def domain_of(mailbox: str) -> str:
    """Return the domain of a mailbox as its one spelling; '' for the null sender."""
    _, at, domain = mailbox.rpartition("@")
    return domain_key(domain) if at else ""


@lru_cache(maxsize=4096)
def domain_key(domain: str) -> str:
    """Return the one spelling of a domain: lower case, A-labels (RFC 5890 2.3.2.1).

    What is no DNS name, such as an address in brackets, stays as it is, in lower case.
    So does a leading dot, which means the domains below.
    """
    name = domain.removeprefix(".")
    dot = domain[: len(domain) - len(name)]
    return dot + (ascii_domain(name) or name.rstrip(".").lower())


def ascii_form(mailbox: str) -> str:
    """Return a mailbox with its domain in A-labels; as it is if that has none."""
    local, at, domain = mailbox.rpartition("@")
    return mailbox if domain.isascii() else f"{local}{at}{domain_key(domain)}"


def is_ascii(*mailboxes: str) -> bool:
    """Return whether none of these needs SMTPUTF8 (RFC 6531 3.3)."""
    return "".join(mailboxes).isascii()


def xtext(text: str) -> str:
    """Encode as xtext (RFC 3461 4): all but 33-126 without ``+`` and ``=``."""
    if _XTEXT.fullmatch(text):
        return text
    return "".join(
        chr(byte) if byte in _XTEXT_PLAIN else f"+{byte:02X}" for byte in text.encode()
    )


def utf8_xtext(text: str) -> str:
    r"""Encode as utf-8-addr-xtext (RFC 6533 3): non-ASCII becomes ``\x{HEX}``."""
    plain = frozenset(map(chr, _XTEXT_PLAIN)) - {"\\"}
    return "".join(c if c in plain else f"\\x{{{ord(c):02X}}}" for c in text)


class Recipient(Struct, frozen=True, kw_only=True):
    """One forward-path with the DSN parameters that came with it (RFC 3461 4)."""

    #: As on the wire; with a fault it is text for people, and no mailbox.
    forward_path: str
    #: Why no command can carry the address; '' = one can.
    fault: str = ""
    #: ``type;address``, decoded; '' = none was recorded.
    orcpt: str = ""
    #: Any of NEVER, SUCCESS, FAILURE, DELAY; empty = the client gave none.
    notify: tuple[str, ...] = ()
    #: The forward-path of the spool, if this run sends to another one; else ''.
    original: str = ""

    @property
    def wants_success(self) -> bool:
        """Return whether the sender asked for a report of the delivery."""
        return "SUCCESS" in self.notify

    def orcpt_xtext(self) -> str:
        """Return ORCPT encoded for the wire; '' = send none."""
        if not self.orcpt:
            return ""
        kind, semicolon, address = self.orcpt.partition(";")
        if not semicolon or not _ADDRESS_TYPE.fullmatch(kind):
            return ""
        encoded = utf8_xtext(address) if kind.lower() == "utf-8" else xtext(address)
        return f"{kind};{encoded}"


class Envelope(Struct, frozen=True, kw_only=True):
    """What MAIL and RCPT contained when the backup accepted the message."""

    reverse_path: str = NULL_SENDER
    #: Still to do, in the order of the spool; each forward-path once.
    recipients: tuple[Recipient, ...] = ()
    #: Already delivered or bounced by the backup.
    done: tuple[str, ...] = ()
    #: '7bit', '8bit' or '' for unknown (RFC 6152).
    body: str = ""
    smtputf8: bool = False
    #: ENVID, xtext-decoded; '' for none.
    envid: str = ""
    #: 'FULL', 'HDRS' or ''.
    ret: str = ""
    #: VERP delimiters such as '+='; '' for none.
    verp: str = ""


class Client(Struct, frozen=True, kw_only=True):
    """The client that gave the message to the backup; '' = unknown."""

    address: str = ""
    name: str = ""
    helo: str = ""


def verp_sender(reverse_path: str, forward_path: str, delimiters: str) -> str:
    """Expand a VERP reverse-path: ``list+user=dom@host`` (Postfix VERP_README).

    An address without a domain stays as it is.
    """
    local, at, host = reverse_path.rpartition("@")
    user, rcpt_at, domain = ascii_form(forward_path).rpartition("@")
    if not at or not rcpt_at or len(delimiters) != len("+="):
        return reverse_path
    sender = (
        f"{unquote(local)}{delimiters[0]}{unquote(user)}{delimiters[1]}{domain}@{host}"
    )
    return quote_mailbox(sender)


def unique_recipients(recipients: Iterable[Recipient]) -> tuple[Recipient, ...]:
    """Return the recipients in order, the first of each forward-path."""
    found: dict[str, Recipient] = {}
    for each in recipients:
        found.setdefault(each.forward_path, each)
    return tuple(found.values())


_ENCODED_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})*")
_PLUS = re.compile(r"\+([0-9A-Fa-f]{2})")
_UTF8_XTEXT = re.compile(r"(?:[^\x00-\x20+=\\\x7f]|\\x\{[0-9A-Fa-f]{1,6}\})*")
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_HIGHEST = 0x10FFFF

MAX_PARAMETER_LENGTH = 500
"""In characters; RFC 3461 5.2.1 sets no limit for ORCPT, but command lines have one."""


def from_xtext(value: bytes) -> str:
    """Decode xtext (RFC 3461 4); '' if it is invalid, or not printable text."""
    text = value.decode("ascii", "replace")
    if not _ENCODED_XTEXT.fullmatch(text):
        return ""
    decoded = _PLUS.sub(lambda found: chr(int(found[1], 16)), text)
    try:
        return _fit(decoded.encode("latin-1").decode())
    except UnicodeDecodeError:
        return ""


def from_utf8_xtext(value: bytes) -> str:
    r"""Decode utf-8-addr-xtext or -unitext (RFC 6533 3): ``\x{HEX}``; '' if bad."""
    text = value.decode("utf-8", "replace")
    if not _UTF8_XTEXT.fullmatch(text):
        return ""
    points = (int(each, 16) for each in _EMBEDDED.findall(text))
    if any(point > _HIGHEST for point in points):
        return ""
    return _fit(_EMBEDDED.sub(lambda found: chr(int(found[1], 16)), text))


def decode_orcpt(value: bytes) -> str:
    """Return ``type;address`` of an encoded ORCPT, decoded; '' if it is invalid."""
    kind, semicolon, address = value.partition(b";")
    name = kind.decode("ascii", "replace")
    if not semicolon or not _ADDRESS_TYPE.fullmatch(name):
        return ""
    decode = from_utf8_xtext if name.lower() == "utf-8" else from_xtext
    decoded = decode(address)
    return f"{name};{decoded}" if decoded else ""


def _fit(text: str) -> str:
    return text if text.isprintable() and len(text) <= MAX_PARAMETER_LENGTH else ""
