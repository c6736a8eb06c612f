"""One connection of a scripted peer: reads in order and answers by the script.

Every command is answered on its own and in turn, however many arrive at once, so a
client may pipeline or not. What a client must not do is noted as a violation and then
borne with, so that a test sees the rest of the conversation too.
"""

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from tests.support.smtp_peer.script import (
    Answer,
    BodyStep,
    Command,
    Delay,
    Drop,
    DropInBody,
    EarlyReply,
    Message,
    Raw,
    Recipient,
    ReplyThenDrop,
    Reset,
    Script,
    Stall,
    StallInBody,
    Step,
    Trickle,
    View,
)
from tests.support.smtp_peer.wire import Gone, Wire

#: RFC 5321 4.5.3.1.4, and what SIZE, 8BITMIME, SMTPUTF8, DSN and AUTH add to some
#: commands.
LINE_LIMIT: Final = 512
LINE_LIMITS: Final = {"MAIL": 1200, "RCPT": 1100, "AUTH": 12288}
#: A parameter needs its extension to be on offer (RFC 5321 4.1.1.11).
EXTENSION_OF: Final = {
    "SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "AUTH": "AUTH",
    "RET": "DSN", "ENVID": "DSN", "NOTIFY": "DSN", "ORCPT": "DSN",
}  # fmt: skip
#: Commands that end a pipelined group (RFC 2920 3.1; RFC 3207 4.2 for STARTTLS). QUIT
#: may be last.
LAST_IN_GROUP: Final = {
    "EHLO", "HELO", "LHLO", "DATA", "STARTTLS", "AUTH", "QUIT", "NOOP",
}  # fmt: skip

_PATH: Final = re.compile(
    rb"(?:MAIL FROM|RCPT TO):( *)<((?:\"(?:\\.|[^\"\\])*\"|[^\">])*)>(?: +(.*))?",
    re.IGNORECASE,
)
_UNSTUFFED: Final = re.compile(rb"(?:\A|\r\n)\.(?!\.)")
_BARE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")


class Records(Protocol):
    """Where a conversation writes down what it saw (the peer)."""

    script: Script
    commands: list[Command]
    transactions: list[Message]
    messages: list[Message]
    logins: list[tuple[str, str]]
    violations: list[str]

    def note(self) -> None:
        """Tell those who wait that something was added."""


class Conversation:
    """Answers one client until one side leaves."""

    def __init__(self, peer: Records, wire: Wire, number: int) -> None:
        """Prepare; ``number`` counts the connections of the peer from 1."""
        self.peer = peer
        self.wire = wire
        self.number = number
        self.tls = peer.script.implicit_tls
        self.message: Message | None = None
        self.transactions = 0
        self._offered: set[str] = set()
        self._verbs: dict[str, Callable[[Command], Awaitable[None]]] = {
            **({"LHLO": self._ehlo} if peer.script.lmtp else
               {"EHLO": self._ehlo, "HELO": self._helo}),
            "STARTTLS": self._starttls,
            "AUTH": self._auth, "MAIL": self._mail, "RCPT": self._rcpt,
            "DATA": self._data, "RSET": self._rset, "NOOP": self._noop,
            "QUIT": self._quit, "XFORWARD": self._xforward,
        }  # fmt: skip

    @property
    def script(self) -> Script:
        """The script, which a test may exchange at any time."""
        return self.peer.script

    async def run(self) -> None:
        """Converse until one side leaves, and close."""
        try:
            if self.wire.buffer:
                self._violation("spoke before the greeting")
            await self._answer(self._unlogged(b""), self.script.banner)
            while True:
                await self._converse(await self._next_line())
        except Gone:
            self.wire.transport.close()

    def _unlogged(self, line: bytes) -> Command:
        return Command(self.number, time.monotonic(), line)

    def _command(self, line: bytes) -> Command:
        command = self._unlogged(line)
        self.peer.commands.append(command)
        self.peer.note()
        return command

    def _violation(self, text: str) -> None:
        self.peer.violations.append(f"connection {self.number}: {text}")

    async def _next_line(self) -> bytes:
        """Take the next command, unless the client is silent for too long."""
        try:
            async with asyncio.timeout(self.script.idle):
                return await self.wire.line()
        except TimeoutError:
            self.wire.transport.write(b"421 4.4.2 peer.example idle for too long\r\n")
            self.wire.transport.close()
            raise Gone from None

    async def _converse(self, raw: bytes) -> None:
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        verb = line.split(b" ")[0].decode("ascii", "replace").upper()
        if _BARE.search(raw):
            self._violation(f"bare CR or LF in {raw!r}")
        if len(raw) > LINE_LIMITS.get(verb, LINE_LIMIT):
            self._violation(f"{verb} line of {len(raw)} bytes")
        if self.wire.buffer and (
            verb in LAST_IN_GROUP or "PIPELINING" not in self._offered
        ):
            self._violation(
                f"sent more behind {line!r} than may be: {self.wire.buffer[:80]!r}"
            )
        command = self._command(line)
        handler = self._verbs.get(verb)
        await (
            handler(command) if handler else self._answer(command, "500 5.5.2 what?")
        )
        self.peer.note()

    # ---- answering

    async def _answer(
        self,
        command: Command,
        answer: Answer,
        path: str = "",
        login: tuple[str, str] | None = None,
    ) -> str:
        """Take the scripted step and return the reply that was sent.

        Raises Gone when that ends the connection; the reply is recorded even then.
        """
        if callable(answer):
            number = self.transactions + (self.message is None)
            answer = answer(
                View(command, self.number, number, self.message, path, login, self.tls)
            )
        await self._take_step(command, answer)
        return command.reply

    async def _take_step(self, command: Command, step: Step) -> None:
        match step:
            case str(reply):
                self._reply(command, reply)
            case Raw(data):
                self._send(command, data.decode("latin-1"), data)
            case Trickle(data, pause):
                for byte in data:
                    self.wire.transport.write(bytes([byte]))
                    await self.wire.silence(pause)
            case Delay(seconds, then):
                await self.wire.silence(seconds)
                await self._take_step(command, then)
            case Stall(seconds, deaf):
                await self._stall(seconds, deaf=deaf)
            case ReplyThenDrop(reply):
                self._reply(command, reply)
                raise Gone
            case Drop():
                raise Gone
            case Reset():
                self.wire.reset()
                raise Gone

    def _reply(self, command: Command, reply: str) -> None:
        wire_form = reply.replace("\n", "\r\n") + "\r\n"
        self._send(command, reply, wire_form.encode("utf-8", "surrogateescape"))

    def _send(self, command: Command, reply: str, data: bytes) -> None:
        command.reply = reply
        command.answered_at = time.monotonic()
        self.wire.transport.write(data)

    async def _stall(self, seconds: float | None, *, deaf: bool) -> None:
        if not deaf:
            await self.wire.silence(seconds)
            return
        self.wire.transport.pause_reading()
        await self.wire.silence(seconds)
        self.wire.transport.resume_reading()

    # ---- the session

    async def _ehlo(self, command: Command) -> None:
        self.message = None
        extensions = self.script.extensions
        if self.script.tls is not None and not self.tls:
            extensions += ("STARTTLS",)
        self._offered = {line.split()[0].upper() for line in extensions}
        lines = (self.script.name, *extensions)
        last = len(lines) - 1
        offer = "\n".join(
            f"250{' ' if n == last else '-'}{line}" for n, line in enumerate(lines)
        )
        await self._answer(
            command, offer if self.script.ehlo is None else self.script.ehlo
        )

    async def _helo(self, command: Command) -> None:
        self.message = None
        self._offered = set()
        plain = f"250 {self.script.name}"
        await self._answer(
            command, plain if self.script.helo is None else self.script.helo
        )

    async def _xforward(self, command: Command) -> None:
        if self.message is not None:
            self._violation("XFORWARD in the middle of a transaction")
        await self._answer(command, self.script.xforward)

    async def _starttls(self, command: Command) -> None:
        context = self.script.tls
        if context is None or self.tls:
            await self._answer(command, "502 5.5.1 not now")
            return
        reply = await self._answer(command, self.script.starttls)
        if not reply.startswith("220"):
            return
        self.wire.buffer.clear()
        try:
            secure = await asyncio.get_running_loop().start_tls(
                self.wire.transport, self.wire, context, server_side=True
            )
        except OSError as error:
            raise Gone from error
        if secure is None:
            raise Gone
        # What was said in the clear is void (RFC 3207 4.2).
        self.wire.connection_made(secure)
        self.tls, self._offered, self.message = True, set(), None

    async def _auth(self, command: Command) -> None:
        _, mechanism, initial, *_ = [*command.line.split(), b"", b""]
        try:
            if mechanism.upper() == b"PLAIN":
                secret = initial or await self._challenge(command, b"")
                _, user, password = base64.b64decode(secret).split(b"\0")
            elif mechanism.upper() == b"LOGIN":
                user = base64.b64decode(
                    initial or await self._challenge(command, b"Username:")
                )
                password = base64.b64decode(
                    await self._challenge(command, b"Password:")
                )
            elif mechanism.upper() in (b"XOAUTH2", b"OAUTHBEARER"):
                user, _, password = base64.b64decode(initial).partition(b"\x01")
            else:
                await self._answer(command, "504 5.5.4 unknown mechanism")
                return
        except ValueError:
            await self._answer(command, "501 5.5.2 not understood")
            return
        login = (user.decode(), password.decode())
        self.peer.logins.append(login)
        await self._answer(command, self.script.auth, login=login)

    async def _challenge(self, command: Command, text: bytes) -> bytes:
        self._reply(command, f"334 {base64.b64encode(text).decode()}")
        return (await self.wire.line()).strip()

    async def _noop(self, command: Command) -> None:
        await self._answer(command, self.script.noop)

    async def _quit(self, command: Command) -> None:
        await self._answer(command, self.script.quit)

    async def _rset(self, command: Command) -> None:
        await self._answer(command, self.script.rset)
        self.message = None

    # ---- the transaction

    def _mailbox(self, command: Command) -> tuple[str, dict[str, str]] | None:
        """Parse a path and its parameters, which must belong to extensions on offer."""
        found = _PATH.fullmatch(command.line)
        if found is None:
            self._violation(f"no path in {command.line!r}")
            return None
        if found[1]:
            self._violation(f"blank before the path in {command.line!r}")
        words = (found[3] or b"").decode("utf-8", "surrogateescape").split()
        parameters = {
            name.upper(): value
            for name, _, value in (word.partition("=") for word in words)
        }
        for name in parameters:
            if EXTENSION_OF.get(name) not in self._offered:
                self._violation(f"{name} is not on offer: {command.line!r}")
        return found[2].decode("utf-8", "surrogateescape"), parameters

    async def _mail(self, command: Command) -> None:
        if self.message is not None:
            self._violation("MAIL within a transaction")
            await self._answer(command, "503 5.5.1 nested MAIL")
            return
        if (parsed := self._mailbox(command)) is None:
            await self._answer(command, "501 5.1.7 bad path")
            return
        path, parameters = parsed
        if (await self._answer(command, self.script.mail, path)).startswith("2"):
            self.transactions += 1
            self.message = Message(
                path, parameters, self.number, self.transactions, command, self.tls
            )
            self._need_smtputf8(path)
            self.peer.transactions.append(self.message)

    def _need_smtputf8(self, path: str) -> None:
        if (
            self.message
            and not path.isascii()
            and "SMTPUTF8" not in self.message.parameters
        ):
            self._violation(f"{path!r} without SMTPUTF8")

    async def _rcpt(self, command: Command) -> None:
        if self.message is None:
            await self._answer(command, "503 5.5.1 MAIL first")
            return
        if (parsed := self._mailbox(command)) is None:
            await self._answer(command, "501 5.1.3 bad path")
            return
        path, parameters = parsed
        self._need_smtputf8(path)
        self.message.recipients.append(Recipient(path, parameters, command))
        await self._answer(command, self.script.rcpt, path)

    async def _data(self, command: Command) -> None:
        message = self.message
        if message is None:
            await self._answer(command, "503 5.5.1 MAIL first")
            return
        refusal = None if message.forward_paths else "554 5.5.1 no valid recipients"
        usual = refusal or "354 go ahead"
        reply = await self._answer(
            command, usual if self.script.data is None else self.script.data
        )
        if not reply.startswith("354"):
            return
        stuffed = await self._content(command, message)
        message.content = self._unstuff(stuffed)
        self.peer.messages.append(message)
        dot = self._command(b".")
        if message.dot is None:
            message.dot = dot
            if self.script.lmtp:
                await self._answer_each(dot, message)
                self.message = None
                return
            usual = refusal or "250 2.0.0 taken"
            await self._answer(
                dot, usual if self.script.dot is None else self.script.dot
            )
        self.message = None

    async def _answer_each(self, dot: Command, message: Message) -> None:
        """Answer the dot for each accepted recipient in turn (RFC 2033 4.2)."""
        answer = "250 2.1.5 taken" if self.script.dot is None else self.script.dot
        for path in message.forward_paths:
            if self.wire.buffer:
                self._violation(f"sent behind an LMTP dot: {self.wire.buffer[:80]!r}")
            dot.reply = ""
            try:
                await self._answer(dot, answer, path)
            finally:
                if dot.reply.startswith("2"):
                    message.taken.append(path)

    async def _content(self, command: Command, message: Message) -> bytes:
        """Read the content, taking the scripted step on the way."""
        step = self._body_step(command)
        content = await self.wire.content(step.after_bytes if step else None)
        if content is not None:
            return content
        match step:
            case EarlyReply(reply=reply, then_drop=then_drop):
                message.dot = self._unlogged(b".")
                await self._take_step(
                    message.dot, ReplyThenDrop(reply) if then_drop else reply
                )
            case StallInBody():
                await self._stall(None, deaf=True)
            case DropInBody() | None:
                raise Gone
        return await self.wire.content(None) or b""

    def _body_step(self, command: Command) -> BodyStep | None:
        body = self.script.body
        if callable(body):
            return body(
                View(
                    command, self.number, self.transactions, self.message, tls=self.tls
                )
            )
        return body

    def _unstuff(self, stuffed: bytes) -> bytes:
        """Undo RFC 5321 4.5.2, noting what a client that follows it never sends."""
        lines = stuffed.count(b"\r\n")
        if lines != stuffed.count(b"\n") or lines != stuffed.count(b"\r"):
            self._violation("bare CR or LF in the content")
        if b"\r\n." not in stuffed and not stuffed.startswith(b"."):
            return stuffed
        if _UNSTUFFED.search(stuffed):
            self._violation("a line begins with a single dot")
        return stuffed.removeprefix(b".").replace(b"\r\n.", b"\r\n")
