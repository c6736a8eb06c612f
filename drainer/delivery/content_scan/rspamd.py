"""rspamd: /checkv2 over HTTP, with the envelope in headers (rspamd's protocol page)."""

import http.client
import io
from collections.abc import Iterator
from itertools import chain
from typing import Any

from msgspec import Struct, json

from drainer.delivery.content_scan.protocol import (
    ScannerFailure,
    ScannerSettings,
    ScanRequest,
)
from drainer.delivery.content_scan.stream import ask, content_of, safe
from drainer.policy.admission.content_scan import MAX_SYMBOLS, ScanAnswer
from drainer.runtime.json_input import check_depth

NO_ACTION = "no action"
MAX_RECIPIENTS = 50
"""Recipients that a request names: rspamd limits the size of all headers."""


class _Symbol(Struct):
    score: float = 0.0


class _Answer(Struct):
    """The keys of an answer that matter here."""

    action: str
    score: float
    symbols: dict[str, _Symbol] = {}


class RspamdScanner:
    """A worker of rspamd, normal or proxy; its verdict is the action."""

    def __init__(self, settings: ScannerSettings) -> None:
        """Connect to nothing yet."""
        self._address = settings.address
        self._profile = settings.profile

    async def scan(self, request: ScanRequest) -> ScanAnswer:
        """Send the content, and return action, score and symbols."""
        lines = [
            "POST /checkv2 HTTP/1.0",
            f"Content-Length: {request.size}",
            *(f"{name}: {safe(value, 500)}" for name, value in self._facts(request)),
        ]
        head = "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")
        parts = chain([head + b"\r\n"], content_of(request))
        return parse_answer(parse_http(await ask(self._address, parts)))

    async def ping(self) -> str:
        """Return its answer to /ping."""
        reply = await ask(self._address, [b"GET /ping HTTP/1.0\r\n\r\n"])
        return safe(parse_http(reply).decode("utf-8", "replace").strip())

    def _facts(self, request: ScanRequest) -> Iterator[tuple[str, str]]:
        """Yield what a request says about a message beside the content."""
        message = request.message
        yield "From", message.envelope.reverse_path
        for each in request.recipients[:MAX_RECIPIENTS]:
            yield "Rcpt", each
        known = {
            "IP": message.client.address,
            "Hostname": message.client.name,
            "Helo": message.client.helo,
            "User": message.login,
            "Queue-Id": message.native_id,
            "Settings-ID": self._profile,
        }
        yield from ((name, value) for name, value in known.items() if value)


class _HttpReply:
    """A reply in the form in which http.client reads it from a socket."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply

    def makefile(self, *_: Any) -> io.BytesIO:  # noqa: ANN401 - as socket has it
        """Return it as a file."""
        return io.BytesIO(self._reply)


def parse_http(reply: bytes) -> bytes:
    """Return the body of a successful reply; else raise ScannerFailure."""
    response = http.client.HTTPResponse(_HttpReply(reply))  # type: ignore[arg-type]
    try:
        response.begin()
        body = response.read()
    except (http.client.HTTPException, ValueError, OverflowError) as error:
        raise ScannerFailure(f"its reply is not HTTP: {safe(repr(error))}") from None
    if response.status != http.HTTPStatus.OK:
        words = safe(body.decode("utf-8", "replace"))
        raise ScannerFailure(f"HTTP status {response.status}: {words}")
    return body


def parse_answer(body: bytes) -> ScanAnswer:
    """Return what the JSON of /checkv2 says; ScannerFailure when it says nothing."""
    try:
        check_depth(body.decode(errors="replace"))
        found = json.decode(body, type=_Answer)
    except ValueError as error:
        message = f"rspamd's answer is not understood: {safe(str(error))}"
        raise ScannerFailure(message) from None
    ranked = sorted(found.symbols.items(), key=lambda each: -abs(each[1].score))
    return ScanAnswer(
        verdict="" if found.action == NO_ACTION else safe(found.action),
        score=found.score,
        symbols=tuple(safe(name) for name, _ in ranked[:MAX_SYMBOLS]),
    )
