"""One letter on one session: null sender, one recipient, one transaction.

Unlike a drain's sessions (drainer.smtp.session) nothing is pipelined: letters are few,
and every reply must be attributed to its stage.
"""

from msgspec import Struct

from drainer.mail.content import dot_stuff
from drainer.mail.envelope import ascii_form, is_ascii
from drainer.mail.reply import Lost, Reply, Stage
from drainer.mail.reply_codes import INTERMEDIATE, SUCCESS
from drainer.smtp.commands import Extensions
from drainer.smtp.connection import ConnectFailure, Connection, connect
from drainer.smtp.route import Route, Timeouts


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


async def submit(route: Route, forward_path: str, content: bytes) -> Reply | Lost:
    """Open a session and send a letter; return the last reply.

    A reply of 2xx is that to the final dot; any other one ended it.
    """
    connection = await connect(route)
    if isinstance(connection, ConnectFailure):
        return connection.steps[-1].answer
    recipient = ascii_form(forward_path)
    needs_smtputf8 = not is_ascii(recipient)
    if needs_smtputf8 and "smtputf8" not in connection.extensions:
        await connection.wire.ask("QUIT", route.timeouts.quit)
        connection.wire.close()
        return Reply(code=553, text="the recipient needs SMTPUTF8, not offered")
    letter = OutgoingMail(recipient=recipient, content=content, smtputf8=needs_smtputf8)
    return (await post(connection, route.timeouts, letter)).answer


async def post(
    connection: Connection, limits: Timeouts, letter: OutgoingMail
) -> PostResult:
    """Send a letter with the null sender; the session ends with it.

    A peer must not send a second report about this one: if it offers DSN, drainer sends
    it NOTIFY=NEVER (RFC 3461 4.1).
    """
    try:
        posted = await _transact(connection, limits, letter)
        if isinstance(posted.answer, Reply):
            await connection.wire.ask("QUIT", limits.quit)
        return posted
    finally:
        connection.wire.close()


async def _transact(
    connection: Connection, limits: Timeouts, letter: OutgoingMail
) -> PostResult:
    """Send the commands, in order, until one is refused."""
    wire, peer = connection.wire, connection.extensions
    never = " NOTIFY=NEVER" if "dsn" in peer else ""
    for stage, command, limit, wanted in (
        (Stage.MAIL, _mail_command(letter, peer), limits.command, SUCCESS),
        (Stage.RCPT, f"RCPT TO:<{letter.recipient}>{never}", limits.command, SUCCESS),
        (Stage.DATA, "DATA", limits.data, INTERMEDIATE),
    ):
        answer = await wire.ask(command, limit)
        if isinstance(answer, Lost) or answer.category != wanted:
            return PostResult(stage=stage, answer=answer)
    for chunk in dot_stuff([letter.content]):
        wire.write(chunk)
        await wire.drain(limits.body)
    if wire.lost is not None and not wire.has_reply:
        return PostResult(stage=Stage.BODY, answer=wire.lost)
    return PostResult(stage=Stage.DOT, answer=await wire.ask(".", limits.dot))


def _mail_command(letter: OutgoingMail, peer: Extensions) -> str:
    words = ["MAIL FROM:<>"]  # RFC 5321 4.5.5
    if "size" in peer:
        words.append(f"SIZE={len(letter.content)}")
    if "8bitmime" in peer and not letter.content.isascii():
        words.append("BODY=8BITMIME")
    if letter.smtputf8:
        words.append("SMTPUTF8")
    return " ".join(words)
