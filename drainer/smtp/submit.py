"""One small message of our own to one recipient, on a session of its own."""

from drainer.mail.content import dot_stuff
from drainer.mail.envelope import is_ascii
from drainer.mail.reply import Lost, Reply
from drainer.smtp.connection import ConnectFailure, Connection, connect
from drainer.smtp.route import Route

_SUCCESS = 2
_GO_AHEAD = 3


async def submit(route: Route, forward_path: str, content: bytes) -> Reply | Lost:
    """Send it with the null reverse path; return what was said last.

    A reply of 2xx is that to the final dot; any other one ended it.
    """
    connection = await connect(route)
    if isinstance(connection, ConnectFailure):
        return connection.steps[-1].answer
    try:
        answer = await _transact(connection, route, forward_path, content)
        if isinstance(answer, Reply):
            connection.wire.write(b"QUIT\r\n")
            await connection.wire.reply(route.timeouts.quit)
        return answer
    finally:
        connection.wire.close()


async def _transact(
    connection: Connection, route: Route, forward_path: str, content: bytes
) -> Reply | Lost:
    wire, limits = connection.wire, route.timeouts
    mail = "MAIL FROM:<>"
    if not is_ascii(forward_path):
        if "smtputf8" not in connection.extensions:
            return Reply(code=553, text="the recipient needs SMTPUTF8, not offered")
        mail += " SMTPUTF8"
    steps = (
        (mail.encode(), limits.mail, _SUCCESS),
        (f"RCPT TO:<{forward_path}>".encode(), limits.rcpt, _SUCCESS),
        (b"DATA", limits.data, _GO_AHEAD),
    )
    for command, limit, wanted in steps:
        wire.write(command + b"\r\n")
        answer = await wire.reply(limit)
        if isinstance(answer, Lost) or answer.category != wanted:
            return answer
    wire.write(b"".join(dot_stuff([content])) + b".\r\n")
    return await wire.reply(limits.dot)
