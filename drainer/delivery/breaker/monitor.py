"""What moves breakers during a drain: canaries, timers, and bounces to confirm.

One task does it. It writes every change to the ledger, and sends the canary when a
breaker asks for it. It finds a message to probe with, and makes pending bounces due for
confirmation.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from drainer.delivery.breaker.guard import BreakerGuard
from drainer.errors import HostLimit
from drainer.ledger.breaker_waits import DueConfirmations
from drainer.ledger.breakers import breaker_of
from drainer.ledger.records import DecisionKind, from_micros
from drainer.ledger.repository import Ledger
from drainer.ledger.route_mail import RouteMail
from drainer.mail.envelope import domain_of
from drainer.policy.breaker import breaker as breakers
from drainer.policy.breaker.brake import Brake
from drainer.policy.breaker.breaker import BreakerState, CanaryOutcome
from drainer.policy.breaker.history import ROUTE
from drainer.runtime.process import utcnow
from drainer.smtp.canary import CanaryQuestion, CanaryResult, ask_canary
from drainer.smtp.connection import ConnectFailure
from drainer.smtp.hosts import HostChoice

LOOK_EVERY = timedelta(seconds=1)
ASK = 3
"""Canaries that must be refused before one is believed: one host may refuse it."""
ASK_AGAIN = 6
"""The same number while other sessions deliver."""
MAX_DOMAINS_ASKED = 20
"""Recipient domains that drainer probes before it confirms pending bounces."""


@dataclass(slots=True)
class BreakerMonitor:
    """Moves the breakers of one route and keeps them in the ledger."""

    breaker_guard: BreakerGuard
    ledger: Ledger
    hosts: HostChoice
    mail: RouteMail
    #: The connections that the primary may see at once.
    slots: asyncio.Semaphore
    _flying: bool = False
    #: Makes pending bounces due; None: none are to be confirmed.
    _retry_due: Callable[[], Awaitable[int]] | None = None
    #: Recipient domains that have paused in this run.
    _paused: set[str] = field(default_factory=set)

    @property
    def busy(self) -> bool:
        """Whether a breaker is about to change."""
        breaker_guard = self.breaker_guard
        return (
            self._flying
            or bool(breaker_guard.moves)
            or bool(self.breaker_guard.node_guard.retries)
            or self.breaker_guard.group_guard.changed
            or breaker_guard.wants_canary is not None
        )

    async def restore(self) -> datetime:
        """Take over the previous run's breakers: an operator's start probes at once.

        Returns when the first run to this route started.
        """
        memory = await self.ledger.breakers.recall(str(self.hosts.route))
        registry = self.breaker_guard.registry
        registry.known.load(memory.learnt)
        for recipient in memory.lost:
            registry.known.forget(recipient)
        for domain, sender_domain, at in memory.delivered:
            registry.recall(domain, sender_domain, from_micros(at))
        held = await self.ledger.breakers.held_groups(self.mail)
        self.breaker_guard.group_guard.held.update(held)
        for group in held:  # one message finds out whether the primary takes it now
            await self.ledger.breakers.probe_group(self.mail, group)
        for row in memory.breakers:
            breaker = breaker_of(row, self.breaker_guard.breaker.pauses)
            registry.restore(breaker)
            registry.apply(breaker.scope, breakers.recheck)
        return utcnow() if memory.first_run is None else from_micros(memory.first_run)

    async def run(self) -> None:
        """Do what is due, until it is cancelled."""
        while True:
            await self.persist_changes()
            await self._probe()
            if not self.breaker_guard.moves:
                await self.breaker_guard.wait(LOOK_EVERY)

    async def persist_changes(self) -> None:
        """Write the changes to the ledger, and their effect on waiting recipients."""
        moves = self.breaker_guard.moves
        while moves:
            before, after = moves[0]
            if after.scope != ROUTE and after.state is BreakerState.PAUSED:
                self._paused.add(after.scope)
            await self.ledger.breakers.keep(str(self.hosts.route), after)
            if after.state is BreakerState.OPEN:
                await self.ledger.breakers.opened(self.mail, after)
            elif after.waits_for_storm:
                await self.ledger.breakers.detain(self.mail, after)
            elif after.is_closed and not before.is_closed:
                await self.ledger.breakers.closed(self.mail, after.scope)
            moves.popleft()
            self.breaker_guard.wake()
        await self._correct()

    async def _correct(self) -> None:
        """Correct in the ledger what earlier attempts have settled too soon."""
        ledger, retries = self.ledger.breakers, self.breaker_guard.node_guard.retries
        while retries:
            await ledger.retry_refused(retries[0])
            retries.popleft()
        holds, releases = (
            self.breaker_guard.group_guard.holds,
            self.breaker_guard.group_guard.releases,
        )
        while holds:
            await ledger.hold_group(*holds[0])
            holds.popleft()
        while releases:
            await ledger.release_group(self.mail, releases[0])
            releases.popleft()

    async def wake_prober(self, deadline: datetime) -> bool:
        """Make a message behind a probing breaker its probe; return True if one is.

        After the deadline, nothing probes a domain again that has paused.
        """
        found, now = False, utcnow()
        for breaker in self.breaker_guard.registry.all():
            if breaker.scope in self._paused and now > deadline:
                self.breaker_guard.give_up(breaker.scope)
            elif breaker.is_probed:
                since = self.breaker_guard.probing_since(breaker.scope)
                woken = await self.ledger.breakers.wake_one(
                    self.mail, breaker.scope, since
                )
                found = woken or found
        return found

    async def _probe(self) -> None:
        now = utcnow()
        for breaker in self.breaker_guard.registry.all():
            if breaker.scope != ROUTE and breaker.until is not None:
                self.breaker_guard.registry.apply(
                    breaker.scope, lambda g: breakers.probe(g, now)
                )
        scope = self.breaker_guard.wants_canary
        if scope is None or self.breaker_guard.halted:
            return
        self._flying = True
        try:
            async with self.breaker_guard.room(self.slots):
                if self.breaker_guard.wants_canary == scope:
                    with suppress(HostLimit):  # it is sent again at the next check
                        await self.send_canary(scope)
        finally:
            self._flying = False

    async def send_canary(self, scope: str) -> None:
        """Ask whether a scope is healthy, and move its breaker by the answer."""
        known = self.breaker_guard.registry.known
        good = known.to_ask(scope)
        domain = scope or (domain_of(good[0]) if good else "")
        question = CanaryQuestion(
            sender=known.sender, good=good, domain=domain, any_domain=not scope
        )
        answer = await self._ask(scope, question)
        if isinstance(answer, ConnectFailure):
            self.breaker_guard.not_connected(answer)
            return
        self._tell(scope, answer, len(good))
        now = utcnow()
        registry = self.breaker_guard.registry
        if answer.outcome is CanaryOutcome.ACCEPTED:
            for address in answer.accepted:
                registry.on_accepted(domain_of(address), now)
                self.breaker_guard.node_guard.compare(domain_of(address))
            for address, reply in answer.refused.items():
                registry.record_contradiction(domain_of(address), scope, reply, now)
        taken = bool(answer.accepted) and not answer.refused
        registry.canary(scope, answer.outcome, answer.reply, now, taken=taken)

    async def _ask(
        self, scope: str, question: CanaryQuestion
    ) -> CanaryResult | ConnectFailure:
        """Ask; ask again after a refusal, because another host may answer then.

        One host among several may have lost its users, while the others deliver.
        """
        registry = self.breaker_guard.registry
        answer = await ask_canary(self.hosts.healthy, question)
        refused, asked = False, 1
        while (
            isinstance(answer, CanaryResult)
            and answer.outcome is CanaryOutcome.REFUSED
            and asked < (ASK_AGAIN if registry.has_delivered(scope) else ASK)
        ):
            refused, asked = True, asked + 1
            answer = await ask_canary(self.hosts.healthy, question)
        is_mixed = isinstance(answer, CanaryResult) and bool(answer.accepted)
        if refused and is_mixed:
            for domain in {domain_of(address) for address in question.good}:
                self.breaker_guard.node_guard.distrust(domain)
        return answer

    def _tell(self, scope: str, answer: CanaryResult, good: int) -> None:
        self.breaker_guard.control.record(
            DecisionKind.BREAKER,
            f"canary-{answer.outcome}",
            {"scope": scope or "route", "known_good": good},
            reply=answer.reply,
        )

    # --- confirmation

    async def confirm(self, brake: Brake, *, looked: bool) -> None:
        """Ask whether the primary is healthy if pending bounces are due.

        While the brake is on, they are retried and none becomes final.

        ``looked``: only those whose sender's evidence was gathered.
        """
        ledger, due = self.ledger.breakers, utcnow()
        found = await ledger.find_due_bounces(self.mail, due=due, looked=looked)
        pending = self.breaker_guard.registry.pending
        pending.start(brake, found.pending, found.handled)
        if pending.began_braked:
            self._tell_brake(found)
        if not found.due:
            return
        registry = self.breaker_guard.registry
        for domain in found.domains[:MAX_DOMAINS_ASKED]:
            if registry.blocking_breaker(domain) is None and registry.known.to_ask(
                domain
            ):
                async with self.slots:
                    await self.send_canary(domain)
        self._retry_due = functools.partial(
            ledger.retry_due_bounces, self.mail, due=due, looked=looked
        )

    async def make_pending_due(self) -> int:
        """Retry the pending bounces that were due at the start; return how many.

        It is called when all other mail was tried, and works once. Otherwise a refusal
        would be final before drainer sees that the primary refuses many others, too.
        """
        retry_due, self._retry_due = self._retry_due, None
        if retry_due is None or not self.breaker_guard.breaker.is_closed:
            return 0
        return await retry_due()

    def _tell_brake(self, found: DueConfirmations) -> None:
        self.breaker_guard.control.record(
            DecisionKind.BREAKER,
            "brake",
            {
                "reason": "too many permanent refusals: none becomes final",
                "pending": found.pending,
                "handled": found.handled,
            },
            verdict="stop",
        )
