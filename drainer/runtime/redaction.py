"""Secrets in URLs and in texts that quote them, replaced before they are shown.

By pattern, and never by a parser: what cannot be parsed is what errors quote. Where it
is not clear where a secret ends, more is hidden rather than less.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

HIDDEN = "***"

_PORT = r"\d{1,5}(?:[/?#\s'\"),;\]]|$)"
"""What may follow a host and a colon; a password that starts this way ends at its @."""
_USER = re.compile(
    rf"(://[^\s:/?#@]*:)(?!\*\*\*@)(?:(?!{_PORT})[^\n]*@|(?={_PORT})\S*@)"
)
_BARE_USER = re.compile(r"^([^\s:/?#@]*:)(?!/|\*\*\*@)[^\n]*@")
_NAME = re.compile(r"(?:^|(?<=[?&;=\s'\"(,]))([\w.%+-]{1,64})=")
_VALUE = re.compile(r"'[^'\n]*'|[^&\s'\"]*")
_WHOLE_NAME = re.compile(r"(?<=[?&;=])([^=&?;]{1,64})=")
_WHOLE_VALUE = re.compile(r"[^&\n]*")
_SECRET = re.compile(
    r".*(passw(or)?d|passphrase|pwd|secret|token|credential|hmac)\w*"
    r"|(.*[^a-z0-9])?(pass|pw|auth|authorization|sig|signature|key)"
    r"|.*(api|access|account|shared|private)[^a-z0-9]?key",
    re.DOTALL,
)
_PLACES = ("file", "path", "ssl_key", "sslkey", "tls_key")
"""Names that end this way are of files, which are not secrets."""


def is_secret(name: str) -> bool:
    """Return whether a parameter or a key of this name holds a secret."""
    plain = unquote_plus(unquote_plus(name)).strip().lower()
    return not plain.endswith(_PLACES) and _SECRET.fullmatch(plain) is not None


def redact(text: str) -> str:
    """Return a text without the secrets of the URLs and parameters in it."""
    text = _USER.sub(rf"\1{HIDDEN}@", text) if "://" in text else text
    return _hide(text, _NAME, _VALUE) if "=" in text else text


def redact_url(url: str) -> str:
    """Return a single URL, or what should be one, without its secrets.

    It may hold spaces, and lack its scheme: ``user:password@host``.
    """
    shown = _USER.sub(rf"\1{HIDDEN}@", url)
    if "://" not in shown:
        shown = _BARE_USER.sub(rf"\1{HIDDEN}@", shown)
    return redact(_hide(shown, _WHOLE_NAME, _WHOLE_VALUE))


def redact_all(value: Any, name: str = "") -> Any:  # noqa: ANN401 - as JSON has it
    """Return settings without secrets: in URLs, and under names that say so."""
    if isinstance(value, Mapping):
        return {key: redact_all(each, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(each, name) for each in value]
    if value and is_secret(name) and not isinstance(value, bool):
        return HIDDEN
    return redact_url(value) if isinstance(value, str) else value


def _hide(text: str, names: re.Pattern[str], values: re.Pattern[str]) -> str:
    """Return a text with the values of its secret parameters replaced."""
    parts, position = [], 0
    while match := names.search(text, position):
        parts.append(text[position : match.end()])
        position = match.end()
        value = values.match(text, position)
        if value and value[0] and is_secret(match[1]):
            parts.append(HIDDEN)
            position = value.end()
    return "".join((*parts, text[position:]))
