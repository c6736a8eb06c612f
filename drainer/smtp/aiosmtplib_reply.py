"""Replies as aiosmtplib has read them, while a session is opened, as our own."""

from drainer.mail.reply import Lost, ProtocolError, Reply, parse_reply, printable


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


def unasked(extra: bytes) -> Reply | Lost:
    """Return a refusal that came behind a reply; else that the peer is out of step."""
    try:
        reply = parse_reply(extra)
    except ProtocolError:
        reply = None
    if reply is not None and reply.category in (4, 5):
        return reply
    detail = f"more replies than commands: {printable(extra.decode('latin-1'), 200)}"
    return Lost(reason="protocol", detail=detail)
