"""One SMTP session: a stream of messages in, a result per recipient out.

With PIPELINING (RFC 2920) MAIL, all RCPTs and DATA travel as one group. The group of
the next message travels behind the final dot of the last, if the worker has one ready.
Replies are attributed strictly by order (``drainer.smtp.reply_reader``).

The final dot waits until the ledger says that the in-flight rows are durable.

LMTP (RFC 2033) differs behind the dot: each accepted recipient has a reply of its own
there, and no other message travels until all of them are in.

A peer never makes a session raise. After each message every claimed recipient has
exactly one result.
"""

import itertools
import time

from drainer.errors import MessageUnreadable
from drainer.mail.message import Problem
from drainer.mail.reply import SESSION_END, Lost, Reply, Stage, is_success
from drainer.mail.reply_codes import CLOSING, GO_AHEAD, SUCCESS
from drainer.policy.classify.classifier import Answer
from drainer.policy.recipient.delivery import ClaimedRecipient
from drainer.policy.recipient.retry import wait_for_dot
from drainer.smtp.body import TransactionSource, write_body
from drainer.smtp.commands import (
    mail_command,
    rcpt_command,
    recipient_limit,
)
from drainer.smtp.connection import Connection
from drainer.smtp.host_trust import PIPELINING, HostTrust
from drainer.smtp.hosts import HostChoice
from drainer.smtp.reply_reader import NO_PROOF, ReplyReader
from drainer.smtp.route import Route
from drainer.smtp.transaction import Transaction
from drainer.smtp.xclient import ClientIntroduction, narrow_extensions

_numbers = itertools.count()

_OUT_OF_TURN = 503


class Session:
    """The transactions on one established connection."""

    def __init__(
        self,
        connection: Connection,
        route: Route,
        trust: HostTrust | None = None,
        hosts: HostChoice | None = None,
    ) -> None:
        """Take it over; a host's sessions share ``trust``, and a route's ``hosts``."""
        #: Differs from that of any other session.
        self.number = next(_numbers)
        self.connection = connection
        self.trust = trust or HostTrust()
        self.hosts = hosts or HostChoice(route)
        self.extensions = self.trust.trusted(connection.extensions)
        self.route = route
        self._timeouts = route.timeouts
        self._wire = connection.wire
        self._pipelining = PIPELINING in self.extensions
        self._introduction = ClientIntroduction.on(route, connection.extensions)
        self._replies = ReplyReader(connection, self.trust)
        #: Recipients that one transaction may have; 0 = the primary does not say.
        self.max_recipients = recipient_limit(connection.extensions)
        self.sent = 0
        self._delivered = 0
        #: Domains whose known-good recipients this host accepted, or was asked for.
        self.vouched: set[str] = set()
        self.asked: set[str] = set()
        #: Its host refuses what others accept: it must end.
        self.shunned = False
        #: Why the connection was lost, unless we ended it.
        self.loss: Lost | None = None
        #: Done when the connection is gone.
        self.gone = connection.wire.gone

    @property
    def usable(self) -> bool:
        """Whether another message may be sent on this connection."""
        age = time.monotonic() - self.connection.opened
        return (
            not self._replies.broken
            and not self.shunned
            and self._wire.lost is None
            and not self._wire.has_reply  # unsolicited: 421 before it closes
            and not (self._pipelining and PIPELINING in self.trust.ignored)
            and self.sent < min(self.route.max_messages, self.trust.max_messages)
            and age < self.route.max_age
            and not self.hosts.is_ahead(self.connection.server)
        )

    @property
    def has_replied(self) -> bool:
        """Whether the peer ever answered a MAIL."""
        return self._replies.has_replied

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
        transaction.offer = self.extensions
        transaction.own_replies = self.route.speaks_lmtp
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
        following, delivered = None, self._delivered
        if await self._introduce(transaction) and await self._envelope(transaction):
            following = await self._content(transaction, source)
        elif not self._replies.broken and self._wire.lost is None:
            await self._reset()
        self.hosts.count(self.connection.server, delivered=self._delivered > delivered)
        if not transaction.in_step:
            is_used = self._delivered or transaction.behind_dot
            before = self.sent - 1 if is_used else 0
            self._replies.take_back(
                transaction, before=before, pipelined=self._pipelining
            )
        elif transaction.delivery.alone:
            self.trust.judge_alone(ended=False)
        if self._replies.forgive_parameters(transaction):
            self.extensions = self.trust.trusted(self.extensions)
        # Only for twins: every path has ended the others.
        transaction.end_rest(Stage.BODY, self._replies.loss)
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
            self.extensions = narrow_extensions(self.extensions, reply)
            self._pipelining = PIPELINING in self.extensions
        elif self._pipelining:
            return True
        return self._begin_introduced(transaction)

    async def _welcome(self, transaction: Transaction) -> Reply | None:
        """Return the reply when it is positive; abort everything otherwise.

        MAIL and DATA may be on their way, and a dot would end them: to abort is the
        only way not to deliver an empty message.
        """
        reply = await self._replies.answer(
            transaction, Stage.FORWARD, self._timeouts.command
        )
        if is_success(reply):
            return reply
        early = isinstance(reply, Reply)  # a loss proves nothing about it
        transaction.end_rest(Stage.FORWARD if early else Stage.MAIL, reply)
        self._replies.give_up("the primary does not let us name the client")
        return None

    def _begin_introduced(self, transaction: Transaction) -> bool:
        """Write the envelope; False when the client may not send what we may."""
        problem = transaction.misfit(self.extensions, transaction.delivery.claimed)
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
        refused = not is_success(reply)
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
        limit = self._timeouts.command
        reply = await self._replies.answer(transaction, Stage.MAIL, limit)
        is_early = isinstance(reply, Reply) and reply.code == _OUT_OF_TURN
        if not (transaction.behind_dot and is_early) or self._replies.broken:
            return reply
        self.trust.wait_for_dots(str(reply))
        # RCPT and DATA, without a transaction:
        if not await self._replies.skip(transaction.rcpts + 1, self._timeouts.data):
            return self._replies.loss
        await self._reset()
        self._wire.write(self._envelope_group(transaction))
        return await self._replies.answer(transaction, Stage.MAIL, limit)

    async def _recipient(
        self, transaction: Transaction, claimed: ClaimedRecipient
    ) -> None:
        if not self._pipelining:
            self._write_next(rcpt_command(claimed.recipient, self.extensions), "RCPT")
        reply = await self._replies.answer(
            transaction, Stage.RCPT, self._timeouts.command
        )
        accepted = is_success(reply)
        if claimed.n in transaction.results:  # MAIL was refused: this is noise
            if accepted:
                self._replies.lose_step(
                    f"{reply} makes no sense after MAIL was refused"
                )
        elif accepted:
            transaction.accepted.append(claimed)
        else:
            transaction.end(claimed, Stage.RCPT, reply)

    async def _data(self, transaction: Transaction) -> bool:
        if not self._pipelining:
            self._write_next(b"DATA", "DATA")
        reply = await self._replies.answer(transaction, Stage.DATA, self._timeouts.data)
        go_ahead = isinstance(reply, Reply) and reply.code == GO_AHEAD
        if go_ahead and self._replies.is_interrupted("the content"):
            go_ahead, reply = (
                False,
                await self._replies.answer(transaction, Stage.DATA, 0),
            )
        if not go_ahead:
            transaction.end_rest(Stage.DATA, reply)
            return False
        transaction.in_step = not self._replies.broken
        self.trust.pipelines |= self._pipelining and transaction.in_step
        if not transaction.accepted:
            await self._lone_dot()
        return bool(transaction.accepted)

    async def _lone_dot(self) -> None:
        """Answer a 354 although no recipient was accepted (RFC 2920 3.1).

        The refusals count: the 354 came in its turn. A primary that takes the empty
        message is careless, and drainer opens another session. LMTP has no reply to a
        dot without recipients, and must not say 354 (RFC 2033 4.2): the session ends.
        """
        if self.route.speaks_lmtp:
            self._replies.give_up("354 although no recipient was accepted")
            return
        if is_success(await self._wire.ask(".", self._timeouts.dot)):
            self._replies.give_up("an empty message without recipients was accepted")

    async def _reset(self) -> None:
        """Clear a transaction that was refused before its content; prove the step.

        No primary refuses RSET (RFC 5321 4.1.1.5), so a refusal belongs to a command
        before it. A code that says "not implemented" proves nothing.
        """
        if self._replies.is_interrupted("RSET"):
            return
        reply = await self._wire.ask("RSET", self._timeouts.command)
        if isinstance(reply, Lost):
            return
        if reply.code in NO_PROOF:
            self._replies.give_up("RSET was refused")
        elif reply.category != SUCCESS:
            self._replies.lose_step(f"{reply} makes no sense at RSET")
        elif self._replies.has_extra():
            self._replies.lose_step("there were more replies than commands")

    def _write_next(self, command: bytes, name: str) -> None:
        """Write a command that must not travel behind an unread reply."""
        if not self._replies.broken and not self._replies.is_interrupted(name):
            self._wire.write(command + b"\r\n")

    # --- the content

    async def _content(
        self, transaction: Transaction, source: "TransactionSource[Session]"
    ) -> Transaction | None:
        """Send content and final dot; return the transaction started behind it."""
        try:
            limiter = source.rate_limiter
            last = await write_body(transaction, self._wire, self.route, limiter)
        except MessageUnreadable as error:
            problem = Problem(code=error.code, detail=error.detail)
            self._finish(transaction, Stage.BODY, problem)
            self._replies.give_up("the spool file changed while it was sent")
            return None
        if not await source.is_durable(transaction):
            self._wire.abort(Lost(reason="closed", detail="its claim was lost"))
        if self._wire.has_reply:
            await self._replies.take_early(transaction)
        if self._wire.lost is not None:
            self._finish(transaction, Stage.BODY, self._wire.lost)
            return None
        following = await self._following(transaction, source)
        group = self._group(following) if following is not None else b""
        if self._wire.has_reply:  # it came while the next message was looked for
            await self._replies.take_early(transaction)
            self._finish(transaction, Stage.BODY, self._replies.loss)
            if following is not None:  # it was not sent
                said = self._replies.loss.detail
                following.void(Stage.MAIL, Lost(reason=SESSION_END, detail=said))
            return following
        transaction.dotted = True
        transaction.dotted_at = time.monotonic()
        self._wire.write(b"".join((last, b".\r\n", group)))
        limit = wait_for_dot(self._timeouts.dot, transaction.doubts)
        replies = await self._replies.at_dot(
            transaction, limit, is_last=following is None
        )
        if following is not None:
            following.turn = time.monotonic()
            first = replies[0]
            following.spoilt = not isinstance(first, Reply) or first.code == CLOSING
        for claimed, reply in zip(transaction.accepted, replies, strict=True):
            transaction.end(claimed, Stage.DOT, reply)
        self._delivered += any(map(is_success, replies))
        return following

    async def _following(
        self, transaction: Transaction, source: "TransactionSource[Session]"
    ) -> Transaction | None:
        is_last = transaction.delivery.alone or self.route.speaks_lmtp
        one_by_one = is_last or self.trust.waits_for_dot
        if not self._pipelining or one_by_one or not self.usable:
            return None
        following = await source.claim_now(self)
        if following is not None:
            following.behind_dot = True
        return following

    def _finish(self, transaction: Transaction, stage: Stage, answer: Answer) -> None:
        for claimed in transaction.accepted:
            transaction.end(claimed, stage, answer)

    # --- the end

    async def quit(self) -> None:
        """End the session politely, if that is still possible."""
        if self._wire.lost is None and not self._replies.broken:
            await self._wire.ask("QUIT", self._timeouts.quit)

    def close(self) -> None:
        """Close the connection; ``loss`` says if the peer ended it, or spoke first."""
        self.loss = self._wire.lost
        if self.loss is None and self._wire.has_reply and not self.sent:
            self.loss = Lost(reason="protocol", detail="a reply to no command")
        self._wire.close()
