"""SpamAssassin's spamd: SYMBOLS by the protocol of spamc (spamd/PROTOCOL)."""

import re
from itertools import chain, islice

from drainer.delivery.content_scan.protocol import (
    ScannerFailure,
    ScannerSettings,
    ScanRequest,
)
from drainer.delivery.content_scan.stream import ask, content_of, safe
from drainer.policy.admission.content_scan import MAX_SYMBOLS, ScanAnswer

SPAM = "spam"
"""The verdict on what reaches spamd's own required_score."""
_STATUS = re.compile(rb"SPAMD/[0-9.]{1,5} ([0-9]{1,3}) ([\x20-\x7e]{0,200})")
_SPAM = re.compile(
    rb"^Spam: *(True|Yes|False|No) *; *(-?[0-9.]{1,12}) */ *(-?[0-9.]{1,12}) *\r?$",
    re.IGNORECASE | re.MULTILINE,
)


class SpamdScanner:
    """A running spamd; its verdict is SPAM or nothing, beside a score."""

    def __init__(self, settings: ScannerSettings) -> None:
        """Connect to nothing yet."""
        self._address = settings.address
        self._user = settings.profile

    async def scan(self, request: ScanRequest) -> ScanAnswer:
        """Send the content, and return its score and the rules that it matches."""
        head = f"SYMBOLS SPAMC/1.5\r\nContent-length: {request.size}\r\n"
        if self._user:
            head += f"User: {self._user}\r\n"
        parts = chain([f"{head}\r\n".encode()], content_of(request))
        return parse_reply(await ask(self._address, parts))

    async def ping(self) -> str:
        """Return its answer to PING."""
        reply = await ask(self._address, [b"PING SPAMC/1.2\r\n\r\n"])
        return safe(_require_success(reply).decode())


def _require_success(reply: bytes) -> bytes:
    """Return the status line of a reply; ScannerFailure unless it is a success."""
    line = reply.partition(b"\n")[0].rstrip(b"\r")
    found = _STATUS.fullmatch(line)
    if found is None or int(found[1]):
        raise ScannerFailure(f"spamd says: {safe(line.decode('utf-8', 'replace'))}")
    return line


def parse_reply(reply: bytes) -> ScanAnswer:
    """Return what a reply to SYMBOLS says; ScannerFailure without a score."""
    _require_success(reply)
    head, _, body = reply.replace(b"\r\n", b"\n").partition(b"\n\n")
    found = _SPAM.search(head)
    try:
        score = float(found[2]) if found else None
    except ValueError:
        score = None
    if found is None or score is None:
        raise ScannerFailure("spamd names no score")
    symbols = (safe(each) for each in body.decode("utf-8", "replace").split(","))
    return ScanAnswer(
        verdict=SPAM if found[1].lower() in (b"true", b"yes") else "",
        score=score,
        symbols=tuple(islice(filter(None, symbols), MAX_SYMBOLS)),
    )
