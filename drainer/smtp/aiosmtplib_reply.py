"""What aiosmtplib returned or raised while a session is opened, as ours."""

import ssl

import aiosmtplib

from drainer.mail.reply import Lost, ProtocolError, Reply, parse_reply, printable
from drainer.smtp.server_address import SocketUnusable


def reply_of(code: int, message: str) -> Reply:
    """Return our Reply for an aiosmtplib response (lines joined by LF).

    Raises ProtocolError when it is malformed.
    """
    lines = message.encode("utf-8", "surrogateescape").split(b"\n")
    raw = b"\n".join(b"%d-%s" % (code, line) for line in lines[:-1])
    last = b"%d %s" % (code, lines[-1])
    return parse_reply(raw + b"\n" + last if raw else last)


def refusal_of(code: int, message: str) -> Reply | Lost:
    """Return a refusal; a malformed reply, or one out of place, refuses nothing."""
    try:
        reply = reply_of(code, message)
    except ProtocolError:  # aiosmtplib gives -1 for what it cannot read
        return Lost(reason="protocol", detail=message[:200])
    if reply.category in (4, 5):
        return reply
    return Lost(reason="protocol", detail=f"{reply} makes no sense here")


def find_extra_refusal(extra: bytes) -> Reply | Lost:
    """Return a refusal that came behind a reply; else that the peer is out of step."""
    try:
        reply = parse_reply(extra)
    except ProtocolError:
        reply = None
    if reply is not None and reply.category in (4, 5):
        return reply
    detail = f"more replies than commands: {printable(extra.decode('latin-1'), 200)}"
    return Lost(reason="protocol", detail=detail)


def loss_of(error: BaseException) -> Lost:
    """Return why no reply came, in one word and the system's words."""
    cause = error.__cause__ or error
    words = str(cause) or str(error) or type(error).__name__
    detail = " ".join(words.split())  # the peer's lines may be among them
    match error:
        case TimeoutError():
            return Lost(reason="timeout", detail=str(error))
        case SocketUnusable():
            return Lost(reason="socket", detail=detail)
        case ssl.SSLError():
            return Lost(reason="tls", detail=detail)
        case ConnectionRefusedError():
            return Lost(reason="refused", detail=detail)
        case _ if isinstance(cause, ssl.SSLError):
            return Lost(reason="tls", detail=detail)
        case ConnectionError():
            return Lost(reason="closed", detail=detail)
        case aiosmtplib.SMTPException() | ValueError():
            return Lost(reason="protocol", detail=detail)
        case _:
            return Lost(reason="unreachable", detail=detail)
