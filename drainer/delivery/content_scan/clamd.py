"""ClamAV's clamd: INSTREAM with commands that end in NUL (clamd(8))."""

from collections.abc import Iterable, Iterator

from drainer.delivery.content_scan.protocol import (
    ScannerFailure,
    ScannerSettings,
    ScanRequest,
)
from drainer.delivery.content_scan.stream import ask, content_of, safe
from drainer.policy.admission.content_scan import ScanAnswer

_PREFIX, _CLEAN, _FOUND = "stream: ", "OK", " FOUND"
MAX_CHUNK = 1024 * 1024


class ClamdScanner:
    """A running clamd; its verdict is the name of a signature."""

    def __init__(self, settings: ScannerSettings) -> None:
        """Connect to nothing yet."""
        self._address = settings.address

    async def scan(self, request: ScanRequest) -> ScanAnswer:
        """Stream the content, and return which signature it matches."""
        try:
            parts = _stream_of(content_of(request))
            return parse_reply(await ask(self._address, parts, b"\0"))
        except (ConnectionResetError, BrokenPipeError):
            raise ScannerFailure(
                f"clamd closed the connection at a message of {request.size} bytes: is"
                " its StreamMaxLength smaller than max_size here?"
            ) from None

    async def ping(self) -> str:
        """Return its version and the age of its signatures."""
        reply = await ask(self._address, [b"zVERSION\0"], b"\0")
        return safe(reply.decode("utf-8", "replace"))


def _stream_of(content: Iterable[bytes]) -> Iterator[bytes]:
    yield b"zINSTREAM\0"
    for chunk in content:
        for start in range(0, len(chunk), MAX_CHUNK):
            part = chunk[start : start + MAX_CHUNK]
            yield len(part).to_bytes(4) + part
    yield bytes(4)


def parse_reply(reply: bytes) -> ScanAnswer:
    """Return what a reply to INSTREAM says; ScannerFailure when it is an error."""
    text = reply.decode("utf-8", "replace").strip()
    words = text.removeprefix(_PREFIX)
    if words == text or not (words == _CLEAN or words.endswith(_FOUND)):
        raise ScannerFailure(f"clamd says: {safe(text)}")
    return ScanAnswer(
        verdict="" if words == _CLEAN else safe(words.removesuffix(_FOUND))
    )
