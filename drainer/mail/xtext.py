r"""Decode the ENVID and ORCPT encodings of RFC 3461 and RFC 6533; pure.

Some spools keep these parameters encoded, as they came. An invalid value decodes to '',
so that drainer omits the parameter.
"""

import re

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})*")
_PLUS = re.compile(r"\+([0-9A-Fa-f]{2})")
_UTF8_XTEXT = re.compile(r"(?:[^\x00-\x20+=\\\x7f]|\\x\{[0-9A-Fa-f]{1,6}\})*")
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_HIGHEST = 0x10FFFF

MAX_PARAMETER_LENGTH = 500
"""In characters; RFC 3461 5.2.1 sets no limit for ORCPT, but command lines have one."""


def from_xtext(value: bytes) -> str:
    """Decode xtext (RFC 3461 4); '' if it is invalid, or not printable text."""
    text = value.decode("ascii", "replace")
    if not _XTEXT.fullmatch(text):
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
    if not semicolon or not re.fullmatch(r"[A-Za-z0-9-]{1,40}", name):
        return ""
    decode = from_utf8_xtext if name.lower() == "utf-8" else from_xtext
    decoded = decode(address)
    return f"{name};{decoded}" if decoded else ""


def _fit(text: str) -> str:
    return text if text.isprintable() and len(text) <= MAX_PARAMETER_LENGTH else ""
