"""The canary: does the primary refuse every recipient? It asks without a message.

An address that must exist, in the name of a real sender, answers that. An accepted
postmaster alone proves nothing, because many servers exempt it from every restriction.
A server that accepts any address proves nothing about its users.
"""

import secrets
from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from drainer.mail.reply import Lost, Reply, is_success
from drainer.mail.reply_codes import PERMANENT
from drainer.policy.breaker.breaker import CanaryOutcome
from drainer.smtp.callout import wire_form
from drainer.smtp.connection import ConnectFailure, Connection
from drainer.smtp.hosts import HostChoice
from drainer.smtp.own_name import has_own_name
from drainer.smtp.route import Route


class CanaryQuestion(Struct, frozen=True, kw_only=True):
    """What a canary asks."""

    sender: str
    #: Recipients that must be accepted.
    good: tuple[str, ...]
    #: The domain of postmaster, and of an address that must be refused; '' = none.
    domain: str = ""
    #: The recipients are of several domains: one accepted recipient is enough.
    any_domain: bool = False


class CanaryResult(Struct, frozen=True, kw_only=True):
    """The result, and the reply that shows it."""

    outcome: CanaryOutcome
    reply: str
    #: Recipients that were accepted.
    accepted: tuple[str, ...] = ()
    #: Recipients that were refused permanently, each with the reply.
    refused: Mapping[str, str] = field(default_factory=dict)


async def ask_canary(
    route: Route, question: CanaryQuestion
) -> CanaryResult | ConnectFailure:
    """Open a session and ask; return ConnectFailure when none could be opened."""
    question = _speakable(question)
    connection = await HostChoice(route).connect()
    if isinstance(connection, ConnectFailure):
        return connection
    try:
        if await has_own_name(connection, route):
            return CanaryResult(
                outcome=CanaryOutcome.REFUSED, reply=str(connection.banner)
            )
        interview = _Interview(connection, route)
        answer = await interview.run(question)
        await interview.say("QUIT")
        return answer
    finally:
        connection.wire.close()


async def ask_on(
    connection: Connection, route: Route, question: CanaryQuestion
) -> CanaryResult:
    """Ask on a session that is open, and leave it ready for a message."""
    interview = _Interview(connection, route)
    answer = await interview.run(_speakable(question))
    await interview.say("RSET")
    return answer


def _speakable(question: CanaryQuestion) -> CanaryQuestion:
    """Leave out what no plain command can carry: controls, or without SMTPUTF8."""
    domain = question.domain
    return replace(
        question,
        sender=question.sender if _is_speakable(question.sender) else "",
        good=tuple(filter(_is_speakable, question.good)),
        domain=domain if _is_speakable(f"postmaster@{domain}") else "",
    )


def _is_speakable(mailbox: str) -> bool:
    return mailbox != "" and wire_form(mailbox) == mailbox


class _Interview:
    """MAIL and RCPTs on one session; never DATA."""

    def __init__(self, connection: Connection, route: Route) -> None:
        self._wire = connection.wire
        self._limit = route.timeouts.command

    async def run(self, question: CanaryQuestion) -> CanaryResult:
        answer = await self._ask_good(question)
        if not question.good and question.domain:
            answer = await self._ask_postmaster(question) or answer
        return answer

    async def _ask_good(self, question: CanaryQuestion) -> CanaryResult:
        mail = await self.say(f"MAIL FROM:<{question.sender}>")
        refusal = _refusal(mail)
        if refusal:
            return CanaryResult(outcome=CanaryOutcome.REFUSED, reply=refusal)
        if not is_success(mail):  # what RCPT got then does not count: "MAIL first"
            return CanaryResult(outcome=CanaryOutcome.UNCLEAR, reply=str(mail))
        replies = {to: await self.say(f"RCPT TO:<{to}>") for to in question.good}
        answer = CanaryResult(
            outcome=CanaryOutcome.UNCLEAR,
            reply=str(next(iter(replies.values()), mail)),
            accepted=tuple(to for to, reply in replies.items() if is_success(reply)),
            refused={
                to: _refusal(reply) for to, reply in replies.items() if _refusal(reply)
            },
        )
        if answer.refused and not (question.any_domain and answer.accepted):
            words = next(iter(answer.refused.values()))
            return replace(answer, outcome=CanaryOutcome.REFUSED, reply=words)
        if not answer.accepted:
            return answer
        if question.domain and await self._takes_anybody(question.domain):
            return replace(answer, reply="the primary accepts any address")
        return replace(answer, outcome=CanaryOutcome.ACCEPTED)

    async def _takes_anybody(self, domain: str) -> bool:
        name = f"drainer-canary-{secrets.token_hex(6)}"
        return is_success(await self.say(f"RCPT TO:<{name}@{domain}>"))

    async def _ask_postmaster(self, question: CanaryQuestion) -> CanaryResult | None:
        """Return a refusal; an accepted postmaster proves nothing."""
        await self.say("RSET")
        if not is_success(await self.say("MAIL FROM:<>")):
            return None
        reply = await self.say(f"RCPT TO:<postmaster@{question.domain}>")
        refusal = _refusal(reply)
        return (
            CanaryResult(outcome=CanaryOutcome.REFUSED, reply=refusal)
            if refusal
            else None
        )

    async def say(self, command: str) -> Reply | Lost:
        """Send a command; return the answer."""
        return await self._wire.ask(command, self._limit)


def _refusal(answer: Reply | Lost) -> str:
    """Return the words of a permanent refusal, or ''."""
    is_one = isinstance(answer, Reply) and answer.category == PERMANENT
    return str(answer) if is_one else ""
