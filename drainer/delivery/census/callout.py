"""The callout: several sessions ask the primary which recipients it would accept.

It keeps the limits of the route. It ends when the primary says 421, refuses us, or
refuses everybody: then refusals say nothing about single recipients.
"""

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from drainer.delivery.settings import RouteSettings
from drainer.errors import HostLimit
from drainer.mail.envelope import domain_of
from drainer.mail.reply import Lost, Reply, Stage, is_success
from drainer.mail.reply_codes import CLOSING
from drainer.policy.breaker.detector import Refusal, RefusalDetector
from drainer.policy.census.callout import judge_callout
from drainer.policy.census.existence import (
    ACCEPTS_ANY,
    NO_ANSWER,
    Existence,
    ExistenceAnswer,
)
from drainer.policy.classify.classifier import classify
from drainer.runtime.process import utcnow
from drainer.smtp.callout import CalloutSession, wire_form
from drainer.smtp.connection import ConnectFailure, Connection
from drainer.smtp.hosts import HostChoice
from drainer.smtp.own_name import has_own_name
from drainer.smtp.rate_limiter import RateLimiter

MAX_TRIES = 2
"""Sessions in which a recipient is asked for, if the first one is lost."""
MAX_LOST = 3
"""Sessions that may be lost before the callout ends."""


class Callout:
    """One callout on one route."""

    def __init__(self, settings: RouteSettings, rate_limiter: RateLimiter) -> None:
        """Ask nothing yet."""
        self._settings = settings
        self._rate_limiter = rate_limiter
        self._hosts = HostChoice(settings.route)
        self._detector = RefusalDetector(settings.thresholds)
        self._pending: deque[str] = deque()
        self._tries: Counter[str] = Counter()
        self._lost = 0
        #: Recipients that a transaction may have, as far as is known.
        self._most = settings.route.max_recipients
        self._is_enough: Callable[[], bool] = lambda: False
        #: It asks for random addresses, which a healthy primary refuses.
        self._is_random = False
        #: Domains of which the primary accepts any address, with its reply.
        self._catch_alls: dict[str, ExistenceAnswer] = {}
        #: What the primary said about each recipient that was asked for.
        self.said: dict[str, ExistenceAnswer] = {}
        #: Why it ended early; '' = it did not.
        self.ended = ""
        #: It refused everybody, so its refusals say nothing about single recipients.
        self.refuses_everybody = False

    async def run(
        self,
        recipients: Iterable[str],
        is_enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Ask for recipients, in order, until all are answered or it ``is_enough``.

        Of a domain that accepts any address it asks for none. Raises HostLimit if
        this host has no more sessions for the rest.
        """
        for mailbox in filter(wire_form, dict.fromkeys(recipients)):
            if any_accepted := self._catch_alls.get(domain_of(mailbox)):
                self.said[mailbox] = any_accepted
            else:
                self._pending.append(mailbox)
        self._is_enough = is_enough
        sessions = min(self._settings.connections, max(1, len(self._pending) // 4))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._converse()) for _ in range(sessions)]
        failure = next(filter(None, (task.result() for task in tasks)), None)
        if isinstance(failure, HostLimit) and not self._is_over:
            raise failure
        if failure is not None and not self._is_over:
            self.ended = f"no session with the primary: {failure}"
        self._pending.clear()

    async def find_catch_alls(self, domains: Iterable[str]) -> None:
        """Find the domains of which the primary accepts any address."""
        names = {f"drainer-census-{secrets.token_hex(6)}@{d}": d for d in domains}
        self._is_random = True
        await self.run(names)
        self._is_random = False
        for name, domain in names.items():
            said = self.said.pop(name, None)
            if said is not None and said.existence is Existence.KNOWN:
                self._catch_alls[domain] = ExistenceAnswer(
                    Existence.CANNOT_TELL, ACCEPTS_ANY, said.by
                )

    def answers(self) -> dict[str, ExistenceAnswer]:
        """Return what the replies are worth: none, if everybody is refused."""
        if not self.refuses_everybody:
            return self.said
        return {
            mailbox: said
            if said.existence is not Existence.UNKNOWN
            else ExistenceAnswer(Existence.CANNOT_TELL, NO_ANSWER, said.by)
            for mailbox, said in self.said.items()
        }

    # --- one session after another

    @property
    def _is_over(self) -> bool:
        return bool(self.ended) or not self._pending or self._is_enough()

    async def _converse(self) -> ConnectFailure | HostLimit | None:
        """Ask on one session after another; return why none could be opened.

        The primary, or this host, may limit the sessions: others continue.
        """
        while not self._is_over:
            if not await self._rate_limiter.take_connection():
                break
            try:
                connection = await self._hosts.connect()
            except HostLimit as limit:
                return limit
            if isinstance(connection, ConnectFailure):
                return connection
            try:
                await self._ask_on(connection)
            finally:
                connection.wire.close()
                self._hosts.release(connection)
        return None

    async def _ask_on(self, connection: Connection) -> None:
        """Ask on one session until it must end, or nothing is left."""
        if await has_own_name(connection, self._settings.route):
            self.ended = "the primary introduces itself with our own name"
            return
        sender = wire_form(self._settings.probe.sender)
        session = CalloutSession(connection, self._settings.route, sender, self._most)
        while not self._is_over and (asked := self._next(session.room)):
            if not await self._rate_limiter.take_recipients(len(asked)):
                return
            replies = await session.ask(list(map(wire_form, asked)))
            if isinstance(replies, Reply):
                self._pending.extend(asked)
                self._refuse(replies, session)
                break
            if isinstance(replies, Lost):
                replies = [replies] * len(asked)
            accepted = session.accepted - sum(map(is_success, replies))
            for mailbox, reply in zip(asked, replies, strict=True):
                self._hear(mailbox, reply, accepted)
                accepted += is_success(reply)
            session.limit(self._most)
            if isinstance(replies[-1], Lost):
                self._lose(replies[-1])
                return
        await session.end()

    def _next(self, room: int) -> list[str]:
        """Return the recipients to ask for together."""
        most = min(room, self._rate_limiter.burst_of("recipients"), len(self._pending))
        return [self._pending.popleft() for _ in range(most)]

    def _hear(self, mailbox: str, reply: Reply | Lost, accepted: int) -> None:
        """Note what the primary says about a recipient, after it accepted others."""
        if isinstance(reply, Lost):
            self._tries[mailbox] += 1
            if self._tries[mailbox] < MAX_TRIES:
                self._pending.append(mailbox)
            return
        heard = judge_callout(reply, self._settings.rules, accepted=accepted)
        if heard.is_one_too_many:
            self._most = min(self._most, accepted)
            self._pending.append(mailbox)
            return
        if reply.code == CLOSING or heard.refuses_us:
            self.ended = self.ended or str(reply)
            return
        self.said[mailbox] = heard.answer
        if self._is_random:
            return
        if heard.answer.existence is Existence.KNOWN:
            self._detector.record_acceptance(mailbox, domain_of(mailbox))
        elif heard.answer.existence is Existence.UNKNOWN:
            self._suspect(mailbox, reply)

    def _suspect(self, mailbox: str, reply: Reply) -> None:
        """End if the refusal detector finds that everybody is refused."""
        seen = Refusal(
            sender_domain=domain_of(self._settings.probe.sender),
            recipient=mailbox,
            recipient_domain=domain_of(mailbox),
            stage=Stage.RCPT,
            classification=classify(reply, Stage.RCPT, rules=self._settings.rules),
            answer=reply,
        )
        is_suspicious = self._detector.record_refusal(seen, utcnow()) is not None
        if is_suspicious and not any(
            said.existence is Existence.KNOWN for said in self.said.values()
        ):
            self.refuses_everybody = True
            self.ended = self.ended or f"the primary refuses everybody: {reply}"

    def _refuse(self, reply: Reply, session: CalloutSession) -> None:
        """End, unless the primary refuses only one more transaction of a session."""
        if session.transactions and reply.code != CLOSING:
            self._lose(reply)
        else:
            self.ended = self.ended or f"the primary refuses the callout: {reply}"

    def _lose(self, lost: Lost | Reply) -> None:
        self._lost += 1
        if self._lost >= MAX_LOST:
            self.ended = self.ended or f"the primary ends the sessions: {lost}"


def spread(recipients: Sequence[str], most: int) -> list[str]:
    """Return at most this many of the recipients, evenly spread over them."""
    if len(recipients) <= most:
        return list(recipients)
    return [recipients[n * len(recipients) // most] for n in range(most)]
