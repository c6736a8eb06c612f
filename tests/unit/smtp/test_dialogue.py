"""The SMTP dialogue in the log: commands and replies, and never a content."""

import asyncio
import logging

import pytest

from drainer.smtp.dialogue import LoggedProtocol, session_log, wire_class
from drainer.smtp.protocol import SmtpProtocol

CONTENT = b"Subject: secret\r\n\r\n..\r\nMAIL FROM:<no@command>\r\n"
NEXT = b"MAIL FROM:<b@example.org>\r\n"


async def said(pieces: list[bytes]) -> list[str]:
    """Return what is printed for a content in pieces, and for a command behind it."""
    lines: list[str] = []
    wire = LoggedProtocol(asyncio.get_running_loop())
    wire.log = lines.append
    wire.write(b"RCPT TO:<a@example.org>\r\nDATA\r\n")
    wire.data_received(b"250 2.1.5 ok\r\n354 go ahead\r\n")
    for piece in pieces:
        wire.write(piece)
    wire.data_received(b"250 2.0.0 taken\r\n")
    return lines


@pytest.mark.parametrize("content", [CONTENT, b""], ids=["a content", "an empty one"])
def test_content_is_counted_and_not_printed(content: bytes) -> None:
    """Wherever it is cut, and whatever is sent together with its end."""
    whole = content + b".\r\n" + NEXT
    for cut in range(len(whole) + 1):
        lines = asyncio.run(said([whole[:cut], whole[cut:]]))
        if cut <= len(content) + 3:
            assert lines == [
                "> RCPT TO:<a@example.org>",
                "> DATA",
                "< 250 2.1.5 ok",
                "< 354 go ahead",
                f"> ({len(content)} bytes of content)",
                "> .",
                "> MAIL FROM:<b@example.org>",
                "< 250 2.0.0 taken",
            ]
    single = [bytes([byte]) for byte in content + b".\r\n"]
    assert f"> ({len(content)} bytes of content)" in asyncio.run(said(single))


def test_nothing_is_printed_unless_a_person_wants_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Then the usual protocol runs, which costs nothing more."""
    caplog.set_level(logging.INFO, "drainer.smtp.dialogue")
    assert wire_class() is SmtpProtocol
    caplog.set_level(logging.DEBUG, "drainer.smtp.dialogue")
    assert wire_class() is LoggedProtocol
    session_log()("> NOOP")
    (line,) = caplog.messages
    assert line.endswith("] > NOOP")
