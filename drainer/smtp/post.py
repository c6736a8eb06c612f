"""One report on one session: null sender, one recipient, one transaction.

Unlike a drain's sessions (drainer.smtp.session) nothing is pipelined: reports are few,
and every reply must be attributed to its stage.
"""

from msgspec import Struct

from drainer.mail.content import dot_stuff
from drainer.mail.envelope import ascii_form, is_ascii
from drainer.mail.reply import Lost, Reply, Stage
from drainer.smtp.connection import ConnectFailure, Connection, connect
from drainer.smtp.route import Route, Timeouts

_SUCCESS, _GO_ON = 2, 3


class OutgoingMail(Struct, frozen=True, kw_only=True):
    """What is sent."""

    recipient: str
    #: With CRLF line ends.
    content: bytes
    #: It may travel only with SMTPUTF8; the peer offers it.
    smtputf8: bool = False


class PostResult(Struct, frozen=True, kw_only=True):
    """The stage where it ended, and the reply there."""

    stage: Stage
    answer: Reply | Lost


async def post(
    connection: Connection, limits: Timeouts, letter: OutgoingMail
) -> PostResult:
    """Send a letter with the null sender; the session ends with it.

    A peer must not send a second report about this one: if it offers DSN, drainer sends
    it NOTIFY=NEVER (RFC 3461 4.1).
    """
    posting = _PostSession(connection, limits)
    posted = await posting.run(letter)
    if not isinstance(posted.answer, Lost):
        await posting.say(b"QUIT", limits.quit)
    connection.wire.close()
    return posted


class _PostSession:
    """The commands, in order, until one is refused."""

    def __init__(self, connection: Connection, limits: Timeouts) -> None:
        self._wire = connection.wire
        self._peer = connection.extensions
        self._limits = limits

    async def run(self, letter: OutgoingMail) -> PostResult:
        limits = self._limits
        rcpt = f"RCPT TO:<{letter.recipient}>"
        if "dsn" in self._peer:
            rcpt += " NOTIFY=NEVER"
        for stage, command, limit, wanted in (
            (Stage.MAIL, self._mail(letter), limits.command, _SUCCESS),
            (Stage.RCPT, rcpt.encode(), limits.command, _SUCCESS),
            (Stage.DATA, b"DATA", limits.data, _GO_ON),
        ):
            answer = await self.say(command, limit)
            if isinstance(answer, Lost) or answer.category != wanted:
                return PostResult(stage=stage, answer=answer)
        for chunk in dot_stuff([letter.content]):
            self._wire.write(chunk)
            await self._wire.drain(limits.body)
        if self._wire.lost is not None and not self._wire.has_reply:
            return PostResult(stage=Stage.BODY, answer=self._wire.lost)
        return PostResult(stage=Stage.DOT, answer=await self.say(b".", limits.dot))

    def _mail(self, letter: OutgoingMail) -> bytes:
        words = ["MAIL FROM:<>"]  # RFC 5321 4.5.5
        if "size" in self._peer:
            words.append(f"SIZE={len(letter.content)}")
        if "8bitmime" in self._peer and not letter.content.isascii():
            words.append("BODY=8BITMIME")
        if letter.smtputf8:
            words.append("SMTPUTF8")
        return " ".join(words).encode()

    async def say(self, command: bytes, limit: float) -> Reply | Lost:
        self._wire.write(command + b"\r\n")
        return await self._wire.reply(limit)


_SUCCESS = 2
_GO_AHEAD = 3


async def submit(route: Route, forward_path: str, content: bytes) -> Reply | Lost:
    """Send it with the null reverse path; return the last reply.

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
    mail, forward_path = "MAIL FROM:<>", ascii_form(forward_path)
    if not is_ascii(forward_path):
        if "smtputf8" not in connection.extensions:
            return Reply(code=553, text="the recipient needs SMTPUTF8, not offered")
        mail += " SMTPUTF8"
    steps = (
        (mail.encode(), limits.command, _SUCCESS),
        (f"RCPT TO:<{forward_path}>".encode(), limits.command, _SUCCESS),
        (b"DATA", limits.data, _GO_AHEAD),
    )
    for command, limit, wanted in steps:
        wire.write(command + b"\r\n")
        answer = await wire.reply(limit)
        if isinstance(answer, Lost) or answer.category != wanted:
            return answer
    wire.write(b"".join(dot_stuff([content])) + b".\r\n")
    return await wire.reply(limits.dot)
