"""Logins: the one attempt that a session makes, by the best mechanism on offer."""

from collections.abc import Awaitable

import aiosmtplib

from drainer.mail.reply import Lost, Reply
from drainer.smtp.oauth import TokenError, auth_line, fetch_token
from drainer.smtp.route import Login

_CHALLENGE, _LOGGED_IN = 334, 235


class LoginImpossible(Exception):
    """No login can be tried; ``answer`` says why."""

    def __init__(self, answer: Reply | Lost) -> None:
        """Keep the answer."""
        super().__init__(str(answer))
        self.answer = answer


async def login_attempt(
    smtp: aiosmtplib.SMTP, login: Login
) -> Awaitable[aiosmtplib.SMTPResponse]:
    """Return the attempt, to be awaited; raise LoginImpossible if there is none.

    It is one: ``SMTP.login`` tries every mechanism, and locks the account.
    """
    if login.token_command:
        return await _attempt_by_token(smtp, login)
    if not smtp.supports_extension("auth"):
        reply = Reply(code=502, text="the primary does not offer AUTH")
        raise LoginImpossible(reply)
    methods = {
        "plain": smtp.auth_plain,
        "login": smtp.auth_login,
        "cram-md5": smtp.auth_crammd5,
    }
    offered = [m for m in methods if m in smtp.supported_auth_methods]
    if not offered:
        reply = Reply(code=504, text="no mechanism of AUTH that we know is offered")
        raise LoginImpossible(reply)
    return methods[offered[0]](login.username, login.password)


async def _attempt_by_token(
    smtp: aiosmtplib.SMTP, login: Login
) -> Awaitable[aiosmtplib.SMTPResponse]:
    """Return an attempt with an access token, by OAUTHBEARER or XOAUTH2 (RFC 7628)."""
    offered = smtp.server_auth_methods
    name = next((m for m in ("oauthbearer", "xoauth2") if m in offered), "")
    if not name:
        reply = Reply(code=504, text="neither OAUTHBEARER nor XOAUTH2 is offered")
        raise LoginImpossible(reply)
    try:
        token = await fetch_token(login.token_command)
    except TokenError as error:
        raise LoginImpossible(Lost(reason="token", detail=str(error))) from None
    return _authenticate(smtp, name, auth_line(name, login.username, token))


async def _authenticate(
    smtp: aiosmtplib.SMTP, name: str, line: bytes
) -> aiosmtplib.SMTPResponse:
    """Send AUTH with an initial response; end the exchange if the token is refused."""
    answer = await smtp.execute_command(b"AUTH", name.upper().encode(), line)
    if answer.code == _CHALLENGE:  # it explains an error, and waits for us
        answer = await smtp.execute_command(b"AQ==")
    if answer.code != _LOGGED_IN:
        raise aiosmtplib.SMTPAuthenticationError(answer.code, answer.message)
    return answer
