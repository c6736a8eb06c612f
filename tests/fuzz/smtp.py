"""What a primary says: replies in any pieces, their words, what EHLO offers."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

from drainer.doctor.dialogue import seconds_ahead
from drainer.mail.reply import Lost, ProtocolError, Reply, Stage, parse_reply, printable
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.normalize import mask_reply
from drainer.policy.classify.verdict import Verdict
from drainer.smtp.commands import recipient_limit, size_limit
from drainer.smtp.protocol import SmtpProtocol
from tests.fuzz.target import Target, stateless

_REPLIES = [
    b"250 2.1.5 ok\r\n",
    b"250-mx.example\r\n250-SIZE 52428800\r\n250-LIMITS RCPTMAX=10\r\n250 DSN\r\n",
    b"550 5.1.1 <a@example.org>: Recipient address rejected: User unknown\r\n",
    b"450-4.7.1 greylisted, see https://example.org/?a=b\r\n450 4.7.1 later\r\n",
    b"554 5.7.1 [192.0.2.1] blocked using 2001:db8::1, id 4f.9X-1\r\n",
    b"421 4.3.2 closing\r\n",
    b"354 go ahead\r\n",
]
_BANNERS = [
    b"220 mx.example ESMTP Exim 4.98 Wed, 25 Nov 2026 12:00:00 +0000",
    b"220 mx.example ESMTP Sendmail 8.18; Wed, 25 Nov 2026 13:00:00 +0100",
]
_NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
_LOOP = asyncio.new_event_loop()
_POSITIVE = frozenset((2, 3))


def targets() -> Iterator[Target]:
    """Yield the targets."""
    words = (b"250-", b"550 ", b"\r\n", b"5.7.1", b" 4.2.2 ", b"quota", b"spam")
    yield stateless("replies on the wire", arrives, _REPLIES, *words)
    yield stateless("the text of a reply", judged, _REPLIES, *words)
    yield stateless("EHLO keywords", offered, [b"52428800", b"RCPTMAX=10 MAILMAX=1"])
    yield stateless(
        "the date in a banner", dated, _BANNERS, b"+0000", b"Nov ", b"Sun, "
    )


def arrives(data: bytes) -> None:
    """Feed a connection, whole and octet by octet: the same replies, or an end."""
    told = []
    for size in (len(data) or 1, 1):
        wire = SmtpProtocol(_LOOP)
        for at in range(0, len(data), size):
            if wire.lost is None:
                wire.data_received(data[at : at + size])
        told.append(_read(wire))
    assert told[0] == told[1]


def _read(wire: SmtpProtocol) -> list[Reply | Lost]:
    found: list[Reply | Lost] = []
    while wire.has_reply:
        found.append(_LOOP.run_until_complete(wire.reply(1)))
    if wire.lost is not None:
        found.append(wire.lost)
    return found


def judged(data: bytes) -> None:
    """Judge a reply at every stage: what is no reply, or strange, is never final."""
    with suppress(ProtocolError):
        reply = parse_reply(data)
        assert printable(str(reply)).isprintable()
        for stage in Stage:
            classification = classify(reply, stage)
            if classification.verdict is Verdict.BOUNCE:
                assert reply.category == 5
                assert not stage.before_mail
            if classification.verdict is Verdict.DELIVER:
                assert reply.category in _POSITIVE
        mask_reply(reply.text)


def offered(data: bytes) -> None:
    """Read numbers of the primary's."""
    text = data.decode("latin-1")
    assert size_limit({"size": text}) >= 0
    assert recipient_limit({"limits": text}) >= 0


def dated(data: bytes) -> None:
    """Read the time of a server."""
    ahead = seconds_ahead(data.decode("latin-1"), _NOW)
    assert ahead is None or abs(ahead) < 1e12
