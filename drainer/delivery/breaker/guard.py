"""The breakers during a drain: who may send, who probes, and what waits for them.

drainer.policy.breaker.registry decides. This module reports to each delivery worker
what it may do, wakes the ones that wait, and records every change.
drainer.delivery.breaker.monitor does what takes time.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from drainer.delivery.breaker.groups import GroupGuard
from drainer.delivery.breaker.nodes import NodeGuard
from drainer.delivery.control import DrainControl
from drainer.delivery.ready_queue import ReadyQueue
from drainer.ledger.records import DecisionKind
from drainer.mail.message import Problem
from drainer.mail.reply import Lost, Reply, Stage
from drainer.policy.breaker import breaker as breakers
from drainer.policy.breaker.breaker import BreakerState, Cause, CircuitBreaker, Phase
from drainer.policy.breaker.detector import (
    USUAL_WINDOWS,
    DetectorThresholds,
    RecipientKey,
    Refusal,
)
from drainer.policy.breaker.groups import MailTraits
from drainer.policy.breaker.history import ROUTE
from drainer.policy.breaker.known_good import KnownGoodRecipients
from drainer.policy.breaker.registry import BreakerRegistry
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.judge import BY_NODE, CONTRADICTED, ClassifiedResult
from drainer.runtime.process import utcnow
from drainer.smtp.connection import ConnectFailure

SOON = timedelta(milliseconds=50)
_BY_MESSAGE = BreakerState.HALF_OPEN, Phase.MESSAGES


class AttemptedMail(Struct, frozen=True, kw_only=True):
    """What the breakers want to know of a message beside its results."""

    seq: int
    reverse_path: str
    traits: MailTraits
    #: When the attempt started.
    began: datetime | None


class BreakerGuard:
    """Keeps the breakers of one route, for the sources of one drain."""

    def __init__(
        self,
        pauses: tuple[timedelta, ...],
        known: KnownGoodRecipients,
        control: DrainControl,
        ready_queue: ReadyQueue,
        thresholds: DetectorThresholds = USUAL_WINDOWS,
    ) -> None:
        """Start with mail flowing."""
        self.registry = BreakerRegistry(pauses, known, self._on_move, thresholds)
        self.control = control
        self.group_guard = GroupGuard()
        self.node_guard = NodeGuard(self.registry, control)
        self._ready_queue = ready_queue
        #: An operator has paused the drain: it starts no message and no canary.
        self.halted = False
        self._changed = asyncio.Event()
        #: Changes that the ledger does not have yet: old and new breaker.
        self.moves: deque[tuple[CircuitBreaker, CircuitBreaker]] = deque()
        #: The delivery worker that probes the route.
        self._prober: asyncio.Task[Any] | None = None
        self._began = utcnow()
        #: Domains with one probing message in flight.
        self._probing: set[str] = set()
        #: The canary waits for a connection, and the delivery worker that releases its
        #: own.
        self._crowded = False
        self._leaver: asyncio.Task[Any] | None = None

    # --- asked by delivery workers

    @property
    def breaker(self) -> CircuitBreaker:
        """The breaker of the route."""
        return self.registry.route

    @property
    def pauses(self) -> bool:
        """Whether the route's breaker waits for its timer."""
        return self.breaker.state is BreakerState.PAUSED

    @property
    def refuses(self) -> bool:
        """Whether the route's breaker is open: the primary refuses us."""
        return self.breaker.state is BreakerState.OPEN

    @property
    def reply(self) -> str:
        """The primary's reply because of which the route's breaker is not closed."""
        return self.breaker.cause.reply if self.breaker.cause else ""

    @property
    def wants_canary(self) -> str | None:
        """The scope whose canary is due, the route first; None = no scope."""
        return next(
            (
                breaker.scope
                for breaker in self.registry.all()
                if breaker.state is BreakerState.HALF_OPEN
                and breaker.phase is Phase.CANARY
            ),
            None,
        )

    @property
    def probes(self) -> bool:
        """Whether real messages probe some scope."""
        return any((g.state, g.phase) == _BY_MESSAGE for g in self.registry.all())

    @property
    def open_breakers(self) -> list[CircuitBreaker]:
        """The circuit breakers that are open, the route's first."""
        return [g for g in self.registry.all() if g.state is BreakerState.OPEN]

    def may_send(self, *, behind_dot: bool = False) -> bool:
        """Whether this task's session may start a message, ``behind_dot`` or not.

        While messages probe the route, only one delivery worker sends. When a canary
        waits for a connection, one delivery worker releases its own.
        """
        if self.breaker.is_closed:
            if not self._crowded and self._leaver is None:
                return True
            me = asyncio.current_task()
            if self._crowded:
                self._crowded, self._leaver = False, me
            return self._leaver is not me
        me = asyncio.current_task()
        return self.breaker.is_probed and self._prober is me and not behind_dot

    def probing_since(self, scope: str) -> datetime:
        """Return since when messages probe a scope; each of them proves something once.

        If the previous run left the breaker probing, probing counts from the start of
        this run.
        """
        return self.registry.since.get(scope, self._began)

    @contextlib.asynccontextmanager
    async def room(self, slots: asyncio.Semaphore) -> AsyncIterator[None]:
        """Hold one connection; if all are taken, a delivery worker releases its own."""
        self._crowded = slots.locked()
        if self._crowded:
            self._ready_queue.dismiss_one()
        try:
            async with slots:
                self._crowded = False
                yield
        finally:
            self._crowded = False

    def ask(self, now: datetime) -> timedelta | None:
        """Return None when a delivery worker may pass now, else how long to wait.

        While messages probe, only one delivery worker passes; ``leave`` ends its turn.
        """
        self.registry.apply(ROUTE, lambda breaker: breakers.probe(breaker, now))
        if self.breaker.is_closed:
            return None
        if self.breaker.is_probed and self._prober is None:
            self._prober = asyncio.current_task()
            return None
        return max((self.breaker.until or now) - now, SOON)

    def may_connect(self) -> bool:
        """Whether this task may still open the session that ``ask`` granted."""
        is_prober = self._prober is asyncio.current_task()
        return self.breaker.is_closed or (self.breaker.is_probed and is_prober)

    def leave(self) -> None:
        """End the turn of a delivery worker that had passed."""
        me = asyncio.current_task()
        if self._leaver is me:
            self._leaver = None
        if self._prober is me:  # not of one that passed before
            self._prober = None
            self.wake()

    def blocked_domains(self, domains: Iterable[str]) -> dict[str, str]:
        """Return domains whose mail must wait, each with the refusal; '' = it probes.

        While real messages probe a domain, one message at a time passes.
        """
        found = {}
        for domain in set(domains):
            breaker = self.registry.domains.get(domain)
            if breaker is None or breaker.is_closed:
                continue
            probes = breaker.state is BreakerState.HALF_OPEN
            if breaker.is_probed and domain not in self._probing:
                self._probing.add(domain)
            else:
                reply = breaker.cause.reply if breaker.cause else "no answer"
                found[domain] = "" if probes else reply
        return found

    def not_started(self, domains: Iterable[str]) -> None:
        """Note that a message that could have probed was not started."""
        self._probing.difference_update(domains)

    # --- waiting

    def close(self) -> None:
        """End every wait."""
        self.wake()

    def wake(self) -> None:
        """Wake every waiting task so that it checks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, limit: timedelta) -> None:
        """Wait until a breaker changes, at most this long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit.total_seconds()):
                await self._changed.wait()

    def end_pause(self) -> None:
        """Let a message probe now, although a pause of the route has not ended."""
        self.registry.apply(ROUTE, breakers.end_pause)

    def give_up(self, scope: str = ROUTE) -> None:
        """Open a breaker: waiting has lasted too long."""
        now = utcnow()
        self.registry.apply(scope, lambda breaker: breakers.give_up(breaker, now))

    def end(self) -> None:
        """Settle every open suspicion: in doubt, the primary refuses us."""
        now = utcnow()
        for breaker in self.registry.all():
            self.registry.leave(breaker.scope, now)

    # --- what happened

    def not_connected(self, failed: ConnectFailure) -> None:
        """Judge why a session could not be opened."""
        step = failed.steps[-1]
        self._failed(step.stage, step.answer)

    def dropped(self, loss: Lost, *, begun: bool) -> None:
        """Judge a session that the primary ended before it answered any MAIL.

        When a message was ``begun``, the message may be the cause: drainer tries
        another one.
        """
        self._failed(Stage.EHLO, loss, begun=begun)

    def _failed(
        self, stage: Stage, answer: Reply | Lost, *, begun: bool = False
    ) -> None:
        classification = classify(answer, stage)
        self.control.record(
            DecisionKind.CONNECTION,
            classification.rule,
            {"reason": classification.reason, "stage": stage.value},
            verdict=classification.verdict.value,
            reply=str(answer),
        )
        cause = Cause(
            trigger="early", classification=classification, reply=f"{stage}: {answer}"
        )
        now = utcnow()
        if not begun:
            self.registry.apply(
                ROUTE, lambda g: breakers.on_early_refusal(g, cause, now)
            )
            return
        self.registry.apply(ROUTE, lambda g: breakers.on_refusal(g, now, cause))
        self.registry.apply(ROUTE, lambda g: breakers.trip_suspicion(g, cause, now))

    def observe(
        self,
        classified: Sequence[ClassifiedResult],
        mail: AttemptedMail,
        now: datetime,
    ) -> list[tuple[RecipientKey, Refusal]]:
        """Show the breakers an attempt before its settlement.

        Once a domain's probe has ended, drainer puts the mail that waits to probe it
        back into the ready queue. Returns what the breakers saw, by recipient.
        """
        probing = len(self._probing)
        attempt: list[tuple[RecipientKey, Refusal]] = []
        for each in classified:
            if isinstance(each.result.answer, Problem):
                continue  # the primary was not asked
            if each.classification.rule in (CONTRADICTED, BY_NODE):
                continue  # it proves nothing about other messages
            claimed = each.result.claimed
            domain, rule = claimed.domain, each.classification.rule
            seen = Refusal(
                sender_domain=mail.traits.sender_domain,
                recipient=claimed.recipient.forward_path,
                recipient_domain=domain,
                stage=each.result.stage,
                classification=each.classification,
                answer=each.result.answer,
                again=claimed.refusal == Verdict.STOP,
                refused=claimed.refused if claimed.refusal == rule else None,
                elsewhere=self.node_guard.is_retried((mail.seq, claimed.n)),
                retried=claimed.attempts > 0,
                attachment=mail.traits.attachment,
                began=mail.began,
                is_dry=self.registry.is_dry(domain),
            )
            self._probing.discard(domain)
            attempt.append(((mail.seq, claimed.n), seen))
        self.registry.observe([seen for _, seen in attempt], mail.reverse_path, now)
        if len(self._probing) < probing:
            self._give_out_parked()
        return attempt

    def _give_out_parked(self) -> None:
        """Return parked messages to the ready queue.

        drainer picks probing messages at random from all that wait: a stranger may have
        sent many in a row.
        """
        self._ready_queue.unpark()
        if self.probes:
            self._ready_queue.shuffle()

    def _on_move(self, before: CircuitBreaker, after: CircuitBreaker) -> None:
        if after.state is not BreakerState.HALF_OPEN and after.scope == ROUTE:
            self._prober = None
        was = before.state, before.phase
        if (after.state, after.phase) == _BY_MESSAGE and was != _BY_MESSAGE:
            self.registry.since[after.scope] = utcnow()
        self.moves.append((before, after))
        self._give_out_parked()
        if self.refuses:
            self.control.close()
        self.wake()
        if after.state is before.state and after.until == before.until:
            return
        cause = after.cause or before.cause
        self.control.record(
            DecisionKind.BREAKER,
            f"breaker-{after.state}",
            {
                "scope": after.scope or "route",
                "trigger": cause.trigger if cause else "",
                "reason": cause.classification.reason if cause else "",
                "failures": after.failures,
            },
            verdict="" if after.is_closed else "stop",
            reply=cause.reply if cause else "",
        )
