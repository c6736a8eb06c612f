"""A host as people write it: HOST, HOST:PORT, [IPv6]:PORT, or unix:PATH for LMTP."""

import re

from drainer.errors import UsageError
from drainer.runtime.redaction import redact_url
from drainer.smtp.route import SOCKET_PREFIX

MAX_HOST, MAX_PORT = 253, 65535
MAX_PATH_BYTES = 107
"""Of a Unix socket on Linux (unix(7))."""

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_HOST_PORT = re.compile(
    rf"(?:\[([0-9A-Fa-f:.%]+)\]|({_NAME}|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?=$)))"
    r"(?::([0-9]{1,5}))?"
)


def split_host(text: str) -> tuple[str, int | None]:
    """Return host and port, None if it has none; UsageError if the text is bad."""
    match = _HOST_PORT.fullmatch(text.strip())
    host, port = (match[1] or match[2], match[3]) if match else ("", None)
    if not host or len(host) > MAX_HOST or (port and not 0 < int(port) <= MAX_PORT):
        message = f"{redact_url(text)[:60]!r} is not a valid host"
        raise UsageError(message, hint="write HOST, HOST:PORT or [IPv6]:PORT")
    return host, int(port) if port else None


def split_server(text: str) -> tuple[str, int | None]:
    """Return host and port as ``split_host`` does; a ``unix:PATH`` has no port.

    Raises UsageError if the text is neither, or the path is too long or not absolute.
    """
    if not is_socket(text):
        return split_host(text)
    path = text.removeprefix(SOCKET_PREFIX)
    is_sound = path.startswith("/") and path.isprintable()
    if not (is_sound and len(path.encode()) <= MAX_PATH_BYTES):
        message = f"{text[:120]!r} is not a valid Unix socket"
        raise UsageError(message, hint="write unix:/PATH, of at most 107 bytes")
    return text, None


def is_socket(text: str) -> bool:
    """Return whether it names a Unix socket."""
    return text.startswith(SOCKET_PREFIX)
