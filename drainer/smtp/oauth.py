"""Logins by OAuth 2.0: a command prints the access token (RFC 7628, XOAUTH2)."""

import asyncio
import base64
import re
from collections.abc import Sequence

PATIENCE = 30.0
"""Seconds that the command may take."""
MAX_TOKEN = 16 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]+")


class TokenError(Exception):
    """The command gave no token."""


async def fetch_token(command: Sequence[str]) -> str:
    """Return the first line of what a command prints; raise TokenError without one.

    It runs without a shell. The token is never shown.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        raise TokenError(f"cannot run token_command: {error.strerror}") from None
    try:
        async with asyncio.timeout(PATIENCE):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise TokenError(f"token_command did not end within {PATIENCE:.0f} s") from None
    lines = output[:MAX_TOKEN].decode("ascii", "replace").splitlines()
    token = lines[0].strip() if lines else ""
    if process.returncode or not _TOKEN.fullmatch(token):
        message = f"token_command printed no token, exit status {process.returncode}"
        raise TokenError(message)
    return token


def auth_line(mechanism: str, username: str, token: str) -> bytes:
    """Return the initial response of OAUTHBEARER or XOAUTH2, in base64."""
    if mechanism == "oauthbearer":  # RFC 7628 3.1
        name = username.replace("=", "=3D").replace(",", "=2C")
        text = f"n,a={name},\x01auth=Bearer {token}\x01\x01"
    else:
        text = f"user={username}\x01auth=Bearer {token}\x01\x01"
    return base64.b64encode(text.encode())
