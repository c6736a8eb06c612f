"""A host as people write it: HOST, HOST:PORT or [IPv6]:PORT."""

import re

from drainer.errors import UsageError
from drainer.runtime.redaction import redact_url

MAX_HOST, MAX_PORT = 253, 65535

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
