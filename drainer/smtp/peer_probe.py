"""Find out what listens on a port that does not answer as an SMTP server does.

An LMTP server refuses EHLO and HELO in the same words as a broken SMTP server, and a
port that expects TLS from the start says nothing at all. One more connection tells.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from drainer.mail.reply import Lost, Reply, Stage
from drainer.policy.breaker.remedies import TLS_ONLY, text_of
from drainer.smtp.route import Route
from drainer.smtp.tls import client_context

PATIENCE = 10.0
"""Seconds that a probe may take."""
_UNKNOWN_COMMAND = frozenset((500, 502, 503, 554))
_MAX_LINES = 128
_SMTP_PORT = 25
"""Where a server that hangs up may punish a client that speaks first (postscreen)."""


async def identify(route: Route, stage: Stage, answer: Reply | Lost) -> str:
    """Return the remedy if it speaks LMTP, or TLS from the start; '' otherwise.

    ``answer`` is what the stage of a failed connection got. Sends LHLO and QUIT, or a
    TLS handshake; never raises for a peer.
    """
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(PATIENCE):
            if stage is Stage.BANNER and isinstance(answer, Lost):
                return TLS_ONLY if await _speaks_tls(route, answer) else ""
            if stage is Stage.EHLO and isinstance(answer, Reply):
                refuses = answer.code in _UNKNOWN_COMMAND
                return text_of("lmtp") if refuses and await _speaks_lmtp(route) else ""
    return ""


async def expects_tls(route: Route) -> bool:
    """Whether a server that has been silent for a while speaks TLS from the start.

    Never asks at port 25, where it may punish a client that speaks first.
    """
    if route.port == _SMTP_PORT:
        return False
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(PATIENCE), _streams(route, tls=True):
            return True
    return False


@contextlib.asynccontextmanager
async def _streams(
    route: Route, *, tls: bool
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Have a connection; raise OSError if there is none, or the handshake fails."""
    reader, writer = await asyncio.open_connection(
        route.address or route.host,
        route.port,
        ssl=client_context(verify=False) if tls else None,
        server_hostname=route.host.rstrip(".") if tls else None,
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _speaks_tls(route: Route, answer: Lost) -> bool:
    """Try a handshake, unless it answered or may punish a client that speaks first."""
    is_silent = answer.reason in ("timeout", "closed", "reset")
    if not is_silent or (answer.reason != "timeout" and route.port == _SMTP_PORT):
        return False
    async with _streams(route, tls=True):
        return True


async def _speaks_lmtp(route: Route) -> bool:
    async with _streams(route, tls=False) as (reader, writer):
        if not await _is_positive(reader):
            return False
        writer.write(f"LHLO {route.helo}\r\n".encode())
        found = await _is_positive(reader)
        writer.write(b"QUIT\r\n")
        await writer.drain()
        return found


async def _is_positive(reader: asyncio.StreamReader) -> bool:
    """Read one reply; raise ValueError when a line of it is too long."""
    line = b""
    for _ in range(_MAX_LINES):
        line = await reader.readline()
        if line[3:4] != b"-":
            break
    return line.startswith(b"2")
