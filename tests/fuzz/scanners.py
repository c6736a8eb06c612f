"""What a scanner of contents answers: clamd, rspamd and spamd."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress

from drainer.delivery.content_scan import clamd, spamd
from drainer.delivery.content_scan.protocol import ScannerFailure
from drainer.delivery.content_scan.rspamd import parse_answer, parse_http
from drainer.ledger.columns import storable
from drainer.policy.admission.content_scan import (
    MAX_SYMBOLS,
    MAX_WORD,
    HoldRule,
    ScanAnswer,
    hit_by,
)
from tests.fuzz.target import Target, stateless

_HTTP = [
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    for body in (
        b'{"action": "no action", "score": -1.5, "symbols": {}}',
        b'{"action": "reject", "score": 15, "symbols": {"GTUBE": {"score": 15.0}}}',
    )
]
_SPAMD = [
    b"SPAMD/1.1 0 EX_OK\r\nContent-length: 5\r\nSpam: True ; 6.5 / 5.0\r\n\r\nA,B\r\n"
]


def targets() -> Iterator[Target]:
    """Yield the targets."""
    replies = [b"stream: OK", b"stream: Eicar FOUND", b"INSTREAM size limit. ERROR"]
    yield stateless("replies of clamd", _checked(clamd.parse_reply), replies, b"FOUND")
    yield stateless("replies of spamd", _checked(spamd.parse_reply), _SPAMD, b"Spam:")
    words = (b"chunked", b"Transfer-Encoding: ", b"\r\n", b"null", b'"score"')
    yield stateless("replies of rspamd", _checked(_rspamd), _HTTP, *words)


def _rspamd(data: bytes) -> ScanAnswer:
    return parse_answer(parse_http(data))


def _checked(parse: Callable[[bytes], ScanAnswer]) -> Callable[[bytes], None]:
    """Return a parser whose answers must be fit for the ledger and for a line."""

    def run(data: bytes) -> None:
        with suppress(ScannerFailure):
            answer = parse(data)
            assert len(answer.symbols) <= MAX_SYMBOLS
            for text in (answer.verdict, *answer.symbols):
                assert len(text) <= MAX_WORD
                assert text.isprintable()
                assert text == storable(text)
            HoldRule(score=5).is_hit(answer)
            hit = hit_by("own", answer)
            json.dumps(hit.evidence, allow_nan=False)
            hash(hit)

    return run
