"""A plain loop over aiosmtplib: no ledger, no trace, no second look at a reply.

Arguments: port, messages, bytes of each, connections.
"""

import asyncio
import sys

import aiosmtplib


async def send(port: int, messages: int, size: int) -> None:
    """Send messages over one connection, one after another."""
    content = b"Subject: plain\r\n\r\n" + (b"x" * 70 + b"\r\n") * (size // 72)
    client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False)
    async with client:
        for _ in range(messages):
            await client.sendmail("sender@example.com", "user@example.org", content)


async def main(port: int, messages: int, size: int, connections: int) -> None:
    """Send them over several connections."""
    share = messages // connections
    await asyncio.gather(*(send(port, share, size) for _ in range(connections)))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
