"""Find out what listens on a port that does not answer as the configured protocol does.

An LMTP server refuses EHLO and HELO in the same words as a broken SMTP server, and an
SMTP server refuses LHLO. A port that expects TLS from the start says nothing at all.
One more connection shows it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from drainer.mail.reply import Lost, Reply, Stage
from drainer.policy.breaker.remedies import NOT_LMTP, TLS_ONLY, text_of
from drainer.smtp.route import SMTP_PORT, Route
from drainer.smtp.server_address import connect_socket, new_socket, resolve
from drainer.smtp.tls import client_context

PATIENCE = 10.0
"""Seconds that a probe may take."""
_UNKNOWN_COMMAND = frozenset((500, 502, 503, 554))
_MAX_LINES = 128


async def identify(route: Route, stage: Stage, answer: Reply | Lost) -> str:
    """Return the remedy if it speaks the other protocol, or only TLS; '' otherwise.

    ``answer`` is what the stage of a failed connection got. Sends LHLO (or EHLO) and
    QUIT, or a TLS handshake; never raises for a peer.
    """
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(PATIENCE):
            if stage is Stage.BANNER and isinstance(answer, Lost):
                return TLS_ONLY if await _speaks_tls(route, answer) else ""
            if stage is Stage.EHLO and isinstance(answer, Reply):
                refuses = answer.code in _UNKNOWN_COMMAND
                return await _other_protocol(route) if refuses else ""
    return ""


async def expects_tls(route: Route) -> bool:
    """Whether a server that has been silent for a while speaks TLS from the start.

    Never asks at port 25, where it may punish a client that speaks first.
    """
    if route.port == SMTP_PORT or route.socket_path:
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
    address = (await resolve(route))[0]
    with contextlib.ExitStack() as opened:
        sock = opened.enter_context(new_socket(address))
        await connect_socket(sock, address, route)
        opened.pop_all()  # the streams have it now
    if route.socket_path:
        reader, writer = await asyncio.open_unix_connection(sock=sock)
    else:
        reader, writer = await asyncio.open_connection(
            sock=sock,
            ssl=client_context(verify=False) if tls else None,
            server_hostname=route.host.rstrip(".") if tls else None,
        )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _speaks_tls(route: Route, answer: Lost) -> bool:
    """Try a handshake, unless it answered or may punish a client that speaks first.

    A server on port 25 that hangs up may do so (postscreen).
    """
    is_silent = answer.reason in ("timeout", "closed", "reset")
    if (
        route.socket_path
        or route.tls == "implicit"
        or not is_silent
        or (answer.reason != "timeout" and route.port == SMTP_PORT)
    ):
        return False
    async with _streams(route, tls=True):
        return True


async def _other_protocol(route: Route) -> str:
    """Return the remedy if the server takes the greeting of the other protocol."""
    hello = "EHLO" if route.speaks_lmtp else "LHLO"
    remedy = NOT_LMTP if route.speaks_lmtp else text_of("lmtp")
    async with _streams(route, tls=False) as (reader, writer):
        if not await _is_positive(reader):
            return ""
        writer.write(f"{hello} {route.helo}\r\n".encode())
        found = await _is_positive(reader)
        writer.write(b"QUIT\r\n")
        await writer.drain()
        return remedy if found else ""


async def _is_positive(reader: asyncio.StreamReader) -> bool:
    """Read one reply; raise ValueError when a line of it is too long."""
    line = b""
    for _ in range(_MAX_LINES):
        line = await reader.readline()
        if line[3:4] != b"-":
            break
    return line.startswith(b"2")
