"""RCPT without DATA: which recipients the primary would accept.

A server slows down or bans a client after some refusals: Postfix after 10 by default
(smtpd_soft_error_limit). So a session ends after fewer, and never has more RCPT under
way than it may still hear refusals.
"""

from collections.abc import Sequence

from drainer.mail.envelope import AddressError, ascii_form, is_ascii, parse_mailbox
from drainer.mail.reply import Lost, Reply, is_success
from drainer.smtp.commands import recipient_limit
from drainer.smtp.connection import Connection
from drainer.smtp.host_trust import PIPELINING
from drainer.smtp.route import Route

MAX_REFUSALS = 8
"""Refusals after which a session ends."""
MAX_TRANSACTIONS = 10
"""Transactions of a session: Postfix counts RSET as junk (smtpd_junk_command_limit)."""


def wire_form(mailbox: str) -> str:
    """Return a recipient for a plain RCPT; '' if only SMTPUTF8 could carry it."""
    text = ascii_form(mailbox)
    try:
        return text if is_ascii(text) and parse_mailbox(text) == text else ""
    except AddressError:
        return ""


class CalloutSession:
    """Asks for recipients on one session; never sends DATA."""

    def __init__(
        self, connection: Connection, route: Route, sender: str, most: int
    ) -> None:
        """Ask in the name of ``sender``; '' is the null sender.

        ``most``: recipients that a transaction may have.
        """
        self._wire = connection.wire
        self._limit = route.timeouts.command
        self._mail = f"MAIL FROM:<{sender}>"
        self._pipelines = PIPELINING in connection.extensions
        stated = recipient_limit(connection.extensions)
        self._most = min(most, stated or most)
        self._refusals = 0
        #: Transactions that were started.
        self.transactions = 0
        #: Recipients accepted in the transaction; None: none was started.
        self._accepted: int | None = None

    @property
    def accepted(self) -> int:
        """How many recipients the transaction has."""
        return self._accepted or 0

    def limit(self, most: int) -> None:
        """Start another transaction once this one has so many recipients."""
        self._most = min(self._most, most)

    @property
    def room(self) -> int:
        """How many recipients may be asked for together; 0: the session must end."""
        left = MAX_REFUSALS - self._refusals
        if self.transactions == MAX_TRANSACTIONS:
            left = min(left, self._most - self.accepted)
        return max(0, min(left, self._most if self._pipelines else 1))

    async def ask(self, recipients: Sequence[str]) -> list[Reply | Lost] | Reply | Lost:
        """Ask for at most ``room`` recipients; return the replies, in their order.

        Returns one reply instead if MAIL or RSET was refused: it is about no recipient.
        """
        start = await self._start(len(recipients))
        if start is not None:
            return start
        commands = (f"RCPT TO:<{each}>\r\n".encode() for each in recipients)
        self._wire.write(b"".join(commands))
        replies = [await self._wire.reply(self._limit) for _ in recipients]
        accepted = sum(map(is_success, replies))
        self._refusals += len(replies) - accepted
        self._accepted = (self._accepted or 0) + accepted
        return replies

    async def _start(self, more: int) -> Reply | Lost | None:
        """Start a transaction with room for more recipients; return a refusal of it."""
        if self._accepted is not None and self._accepted + more <= self._most:
            return None
        if self._accepted is not None:
            reply = await self._wire.ask("RSET", self._limit)
            if not is_success(reply):
                return reply
        reply = await self._wire.ask(self._mail, self._limit)
        if not is_success(reply):
            return reply
        self._accepted = 0
        self.transactions += 1
        return None

    async def end(self) -> None:
        """End the session, without a message."""
        if self._accepted is not None:
            await self._wire.ask("RSET", self._limit)
        await self._wire.ask("QUIT", self._limit)
        self._wire.close()
