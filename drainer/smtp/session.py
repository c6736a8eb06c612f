"""One SMTP session: a stream of messages in, a result per recipient out.

With PIPELINING (RFC 2920) MAIL, all RCPTs and DATA travel as one group. The group of
the next message travels behind the final dot of the last, if the worker has one ready.
Replies are attributed strictly by order. The final dot waits until the ledger says that
the in-flight rows are durable.

A peer never makes a session raise. After each message every claimed recipient has
exactly one result.
"""

import asyncio
import itertools
import time

from drainer.errors import MessageUnreadable
from drainer.mail.message import Problem
from drainer.mail.reply import Lost, Reply, Stage
from drainer.policy.classify.classifier import Answer
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.policy.recipient.retry import wait_for_dot
from drainer.smtp.commands import (
    mail_command,
    misfit,
    rcpt_command,
    recipient_limit,
)
from drainer.smtp.connection import Connection
from drainer.smtp.route import Route
from drainer.smtp.transaction import Transaction, TransactionSource
from drainer.smtp.xclient import ClientIntroduction, narrowed

IN_MEMORY_BYTES = 64 * 1024
"""A content up to this size is written at once; a larger one is streamed."""

_numbers = itertools.count()

_GO_AHEAD = 354
_CLOSING = 421
_OUT_OF_TURN = 503


class Session:
    """The transactions on one established connection."""

    def __init__(self, connection: Connection, route: Route) -> None:
        """Take the connection over."""
        #: Differs from that of any other session.
        self.number = next(_numbers)
        self.connection = connection
        self.extensions = connection.extensions
        self.route = route
        self._timeouts = route.timeouts
        self._wire = connection.wire
        self._pipelining = "pipelining" in connection.extensions
        self._introduction = ClientIntroduction.on(route, connection.extensions)
        self._broken = False
        #: The envelope under way was sent behind a final dot; and none may be.
        self._is_behind_dot = self._waits_for_dot = False
        #: Recipients that one transaction may have; 0 = the primary does not say.
        self.max_recipients = recipient_limit(connection.extensions)
        self.sent = 0
        #: Domains whose known-good recipients this host accepted, or was asked for.
        self.vouched: set[str] = set()
        self.asked: set[str] = set()
        #: Its host refuses what others accept: it must end.
        self.shunned = False
        #: Whether the peer ever answered a MAIL.
        self.heard = False
        #: Why the connection was lost, unless we ended it.
        self.loss: Lost | None = None
        #: Done when the connection is gone.
        self.gone = connection.wire.gone

    @property
    def usable(self) -> bool:
        """Whether another message may be sent on this connection."""
        age = time.monotonic() - self.connection.opened
        return (
            not self._broken
            and not self.shunned
            and self._wire.lost is None
            and not self._wire.has_reply  # unsolicited: 421 before it closes
            and self.sent < self.route.max_messages
            and age < self.route.max_age
        )

    @property
    def lost(self) -> bool:
        """Whether the connection is gone already."""
        return self._wire.lost is not None or self._wire.has_reply

    def speaks_for(self, transaction: Transaction) -> bool:
        """Whether a message may use this connection, which may be a client's by now."""
        return self._introduction.speaks_for(transaction.spooled.message)

    @property
    def speaks_for_itself(self) -> bool:
        """Whether no message has named its client, so that a canary may be sent."""
        return self._introduction.speaker is None

    def start(self, transaction: Transaction) -> None:
        """Write the first group of a transaction."""
        self._wire.write(self._group(transaction))

    def _group(self, transaction: Transaction) -> bytes:
        """Return what starts a transaction; XCLIENT must be the last of a group."""
        self.sent += 1
        transaction.started = transaction.turn = time.monotonic()
        before = self._introduction.command(transaction.spooled.message)
        if before and (self._introduction.renews or not self._pipelining):
            return before
        return before + self._envelope_group(transaction)

    def _envelope_group(self, transaction: Transaction) -> bytes:
        recipients = [claimed.recipient for claimed in transaction.addressed]
        message = transaction.spooled.message
        commands = [
            mail_command(message, transaction.facts, recipients, self.extensions)
        ]
        if self._pipelining:
            commands += [rcpt_command(r, self.extensions) for r in recipients]
            commands.append(b"DATA")
        return b"\r\n".join(commands) + b"\r\n"

    async def send(
        self, transaction: Transaction, source: "TransactionSource[Session]"
    ) -> Transaction | None:
        """Finish one transaction; return the one started behind its dot."""
        following = None
        if await self._introduce(transaction) and await self._envelope(transaction):
            following = await self._content(transaction, source)
        elif not self._broken and self._wire.lost is None:
            await self._reset()
        # Only for twins: every path has ended the others.
        lost = self._wire.lost or Lost(reason="closed")
        transaction.end_rest(Stage.BODY, lost)
        return following

    # --- on behalf of which client

    async def _introduce(self, transaction: Transaction) -> bool:
        """Read the reply to XCLIENT or XFORWARD; True when MAIL is or was sent."""
        introduction = self._introduction
        if not introduction.waiting:
            return True
        introduction.waiting = False
        if not await self._welcome(transaction):
            return False
        if introduction.renews:
            self._wire.write(introduction.ehlo)
            reply = await self._welcome(transaction)
            if reply is None:
                return False
            self.extensions = narrowed(self.extensions, reply)
            self._pipelining = "pipelining" in self.extensions
        elif self._pipelining:
            return True
        return self._begin_introduced(transaction)

    async def _welcome(self, transaction: Transaction) -> Reply | None:
        """Return the reply when it is positive; abort everything otherwise.

        MAIL and DATA may be on their way, and a dot would end them: to abort is the
        only way not to deliver an empty message.
        """
        reply = await self._answer(transaction, Stage.FORWARD, self._timeouts.mail)
        if isinstance(reply, Reply) and reply.category == 2:  # noqa: PLR2004
            return reply
        early = isinstance(reply, Reply)  # a loss proves nothing about it
        transaction.end_rest(Stage.FORWARD if early else Stage.MAIL, reply)
        self._give_up("the primary does not let us name the client")
        return None

    def _begin_introduced(self, transaction: Transaction) -> bool:
        """Write the envelope; False when the client may not send what we may."""
        recipients = [claimed.recipient for claimed in transaction.delivery.claimed]
        message = transaction.spooled.message
        problem = misfit(message, transaction.facts, recipients, self.extensions)
        if problem is not None:
            transaction.end_rest(Stage.MAIL, problem)
            return False
        transaction.turn = time.monotonic()
        self._wire.write(self._envelope_group(transaction))
        return True

    # --- the envelope

    async def _envelope(self, transaction: Transaction) -> bool:
        """Exchange MAIL, RCPT and DATA; True when content is expected."""
        reply = await self._mail(transaction)
        refused = not (isinstance(reply, Reply) and reply.category == 2)  # noqa: PLR2004
        if refused:
            transaction.end_rest(Stage.MAIL, reply)
            if not self._pipelining:
                return False
        for claimed in transaction.addressed:
            await self._recipient(transaction, claimed)
        if not transaction.accepted and not self._pipelining:
            return False
        return await self._data(transaction)

    async def _mail(self, transaction: Transaction) -> Reply | Lost:
        """Return the reply to MAIL; repeat an envelope that came too early.

        Some servers answer 503 to a MAIL behind a final dot, although they offer
        PIPELINING. That judges no message: it is sent again, now in its turn.
        """
        reply = await self._answer(transaction, Stage.MAIL, self._timeouts.mail)
        was_behind, self._is_behind_dot = self._is_behind_dot, False
        out_of_turn = isinstance(reply, Reply) and reply.code == _OUT_OF_TURN
        if not was_behind or not out_of_turn or self._broken:
            return reply
        self._waits_for_dot = True
        for _ in range(transaction.rcpts + 1):  # RCPT and DATA, without a transaction
            noise = await self._wire.reply(self._timeouts.data)
            if not isinstance(noise, Reply) or noise.code == _GO_AHEAD:
                self._give_up(f"{noise} makes no sense without MAIL")
                return self._wire.lost or reply
        await self._reset()
        self._wire.write(self._envelope_group(transaction))
        return await self._answer(transaction, Stage.MAIL, self._timeouts.mail)

    async def _recipient(
        self, transaction: Transaction, claimed: ClaimedRecipient
    ) -> None:
        if not self._pipelining and not self._broken:
            command = rcpt_command(claimed.recipient, self.extensions)
            self._wire.write(command + b"\r\n")
        reply = await self._answer(transaction, Stage.RCPT, self._timeouts.rcpt)
        if claimed.n in transaction.results:
            return  # MAIL was refused: this is noise
        if isinstance(reply, Reply) and reply.category == 2:  # noqa: PLR2004
            transaction.accepted.append(claimed)
        else:
            transaction.end(claimed, Stage.RCPT, reply)

    async def _data(self, transaction: Transaction) -> bool:
        if not self._pipelining and not self._broken:
            self._wire.write(b"DATA\r\n")
        reply = await self._answer(transaction, Stage.DATA, self._timeouts.data)
        go_ahead = isinstance(reply, Reply) and reply.code == _GO_AHEAD
        if transaction.accepted and not go_ahead:
            transaction.end_rest(Stage.DATA, reply)
        elif go_ahead and not transaction.accepted:
            await self._lone_dot()
        return go_ahead and bool(transaction.accepted)

    async def _lone_dot(self) -> None:
        """Answer a 354 although no recipient was accepted (RFC 2920 3.1)."""
        self._wire.write(b".\r\n")
        reply = await self._wire.reply(self._timeouts.dot)
        if isinstance(reply, Reply) and reply.category == 2:  # noqa: PLR2004
            self._give_up("an empty message without recipients was accepted")

    async def _answer(
        self, transaction: Transaction, stage: Stage, limit: float
    ) -> Reply | Lost:
        if self._broken:
            said = Lost(reason="closed", detail="the primary said 421 before")
            return self._wire.lost or said
        reply = await self._wire.reply(limit)
        transaction.note(stage, reply)
        if not isinstance(reply, Reply):
            return reply
        self.heard = True
        if reply.code == _CLOSING:
            self._broken = True  # RFC 5321 3.8: it closes after this
        if _out_of_place(reply, stage):
            self._give_up(f"{reply} makes no sense at {stage}")
            if stage is Stage.DOT:  # whether it was accepted, remains unknown
                return self._wire.lost or reply
        return reply

    async def _reset(self) -> None:
        """Clear a transaction that was refused before its content."""
        self._wire.write(b"RSET\r\n")
        reply = await self._wire.reply(self._timeouts.mail)
        if not (isinstance(reply, Reply) and reply.category == 2):  # noqa: PLR2004
            self._give_up("RSET was refused")

    # --- the content

    async def _content(
        self, transaction: Transaction, source: "TransactionSource[Session]"
    ) -> Transaction | None:
        """Send content and final dot; return the transaction started behind it."""
        try:
            last = await self._body(transaction, source)
        except MessageUnreadable as error:
            problem = Problem(code=error.code, detail=error.detail)
            self._finish(transaction, Stage.BODY, problem)
            self._give_up("the spool file changed while it was sent")
            return None
        if not await source.is_durable(transaction):
            lost = Lost(reason="closed", detail="not sent: its claim was lost")
            self._wire.abort(lost)
        if self._wire.has_reply:
            await self._early(transaction)
        if self._wire.lost is not None:
            self._finish(transaction, Stage.BODY, self._wire.lost)
            return None
        following = await self._following(transaction, source)
        transaction.dotted = True
        transaction.dotted_at = time.monotonic()
        group = self._group(following) if following else b""
        self._wire.write(b"".join((last, b".\r\n", group)))
        limit = wait_for_dot(self._timeouts.dot, transaction.doubts)
        reply = await self._answer(transaction, Stage.DOT, limit)
        self._is_behind_dot = following is not None
        if following is not None:
            following.turn = time.monotonic()
        self._finish(transaction, Stage.DOT, reply)
        return following

    async def _following(
        self, transaction: Transaction, source: "TransactionSource[Session]"
    ) -> Transaction | None:
        one_by_one = self._waits_for_dot or transaction.delivery.alone
        if not self._pipelining or one_by_one or not self.usable:
            return None
        return await source.claim_now(self)

    async def _body(
        self, transaction: Transaction, source: "TransactionSource[Session]"
    ) -> bytes:
        """Write the content; stop at once when the peer answers or leaves.

        A small one is returned instead, to be sent together with its final dot: one
        system call, and one packet for the peer to wake up for.
        """
        chunks = transaction.wire_form(self.route.bare_newlines)
        if transaction.facts.size_bytes <= IN_MEMORY_BYTES:
            content = b"".join(chunks)
            if len(content) <= source.burst_bytes:
                await source.pace(len(content))
                return content
            chunks = iter((content,))
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            if not await self._write_paced(chunk, source):
                break
        return b""

    async def _write_paced(
        self, chunk: bytes, source: "TransactionSource[Session]"
    ) -> bool:
        """Write as much at a time as the rate allows; False when the peer is done."""
        start = 0
        while start < len(chunk):
            piece = chunk[start : start + source.burst_bytes]
            start += len(piece)
            await source.pace(len(piece))
            self._wire.write(piece)
            await self._wire.drain(self._timeouts.body)
            if self._wire.has_reply or self._wire.lost is not None:
                return False
        return True

    async def _early(self, transaction: Transaction) -> None:
        """Take a reply that came before the final dot as the reply to it."""
        reply = await self._wire.reply(0)
        if isinstance(reply, Reply) and reply.category in (4, 5):
            transaction.note(Stage.DOT, reply)
            self._finish(transaction, Stage.DOT, reply)
        self._give_up("answered before the final dot")

    def _finish(self, transaction: Transaction, stage: Stage, answer: Answer) -> None:
        for claimed in transaction.accepted:
            transaction.end(claimed, stage, answer)

    # --- the end

    def _give_up(self, why: str) -> None:
        self._broken = True
        self._wire.abort(Lost(reason="protocol", detail=why))

    async def quit(self) -> None:
        """End the session politely, if that is still possible."""
        if self._wire.lost is None and not self._broken:
            self._wire.write(b"QUIT\r\n")
            await self._wire.reply(self._timeouts.quit)

    def close(self) -> None:
        """Close the connection; ``loss`` says if the peer was faster."""
        self.loss = self._wire.lost
        self._wire.close()


def _out_of_place(reply: Reply, stage: Stage) -> bool:
    """Return whether a positive reply is of the wrong kind: we have lost step."""
    due = reply.code == _GO_AHEAD if stage is Stage.DATA else reply.category == 2  # noqa: PLR2004
    return reply.category in (2, 3) and not due
