"""The breakers while a drain runs: who may go, who probes, and what waits for them.

The decisions are drainer.policy.breaker.registry'; this tells each lane what it may do,
wakes those who wait, and writes every move down. drainer.delivery.breaker.monitor does
what takes time.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from drainer.ledger.records import Decision, DecisionKind
from drainer.mail.envelope import domain_of
from drainer.mail.message import Problem
from drainer.mail.reply import Lost, Reply, Stage
from drainer.policy.breaker import breaker as breakers
from drainer.policy.breaker.breaker import BreakerState, Cause, CircuitBreaker, Phase
from drainer.policy.breaker.detector import USUAL_WINDOWS, DetectorThresholds, Refusal
from drainer.policy.breaker.known_good import KnownGoodRecipients
from drainer.policy.breaker.registry import ROUTE, BreakerRegistry
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.judge import CONTRADICTED, ClassifiedResult
from drainer.runtime.process import utcnow
from drainer.smtp.connection import ConnectFailed

SOON = timedelta(milliseconds=50)
_BY_MESSAGE = BreakerState.PROBING, Phase.MESSAGES


class BreakerGuard:
    """Keeps the breakers of one route, for the sources of one drain."""

    def __init__(
        self,
        pauses: tuple[timedelta, ...],
        known: KnownGoodRecipients,
        note: Callable[[Decision], None],
        windows: DetectorThresholds = USUAL_WINDOWS,
    ) -> None:
        """Start with mail flowing. ``note`` writes a decision down."""
        self.scopes = BreakerRegistry(pauses, known, self._on_move, windows)
        self.note = note
        #: Called after every move.
        self.on_move: Callable[[], None] = lambda: None
        #: Called when the canary waits for a connection.
        self.on_crowd: Callable[[], None] = lambda: None
        #: Somebody has paused the drain: nothing new is begun, no canary either.
        self.halted = False
        self._changed = asyncio.Event()
        #: Moves that the ledger does not know yet: old and new breaker.
        self.moves: deque[tuple[CircuitBreaker, CircuitBreaker]] = deque()
        #: The lane that probes the route.
        self._prober: asyncio.Task[Any] | None = None
        self._began = utcnow()
        #: Domains of which one message is on its way to probe.
        self._probing: set[str] = set()
        #: The canary waits for a connection, and the lane that gives up its own.
        self._crowded = False
        self._leaver: asyncio.Task[Any] | None = None

    # --- asked by lanes

    @property
    def breaker(self) -> CircuitBreaker:
        """The breaker of the route."""
        return self.scopes.route

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
        """What the primary said that the route's breaker is not closed for."""
        return self.breaker.cause.reply if self.breaker.cause else ""

    @property
    def wants_canary(self) -> str | None:
        """The scope whose canary is due, the route first; None = no scope."""
        return next(
            (
                breaker.scope
                for breaker in self.scopes.all()
                if breaker.state is BreakerState.PROBING
                and breaker.phase is Phase.CANARY
            ),
            None,
        )

    @property
    def probes(self) -> bool:
        """Whether real messages probe some scope."""
        return any((g.state, g.phase) == _BY_MESSAGE for g in self.scopes.all())

    @property
    def open_breakers(self) -> list[CircuitBreaker]:
        """The circuit breakers that are open, the route's first."""
        return [g for g in self.scopes.all() if g.state is BreakerState.OPEN]

    def flowing(self, *, behind: bool = False) -> bool:
        """Whether this lane's session may begin another message; ``behind`` a dot.

        While messages probe the route only one lane does. When a canary waits for
        a connection, one lane gives up its own.
        """
        if self.breaker.flows:
            if not self._crowded and self._leaver is None:
                return True
            me = asyncio.current_task()
            if self._crowded:
                self._crowded, self._leaver = False, me
            return self._leaver is not me
        me = asyncio.current_task()
        return self._probes_by_message() and self._prober is me and not behind

    def _probes_by_message(self) -> bool:
        return self.breaker.state is BreakerState.PROBING and (
            self.breaker.phase is Phase.MESSAGES
        )

    def probing_since(self, scope: str) -> datetime:
        """Return since when messages probe a scope; each of them tells something once.

        A breaker that the run before left probing has done so since this one began.
        """
        return self.scopes.since.get(scope, self._began)

    @contextlib.asynccontextmanager
    async def room(self, slots: asyncio.Semaphore) -> AsyncIterator[None]:
        """Hold one of the connections; a lane makes room when all are taken."""
        self._crowded = slots.locked()
        if self._crowded:
            self.on_crowd()
        try:
            async with slots:
                self._crowded = False
                yield
        finally:
            self._crowded = False

    def ask(self, now: datetime) -> timedelta | None:
        """Return None when a lane may pass now, else how long to wait.

        While messages probe only one lane passes; ``leave`` ends its turn.
        """
        self.scopes.apply(ROUTE, lambda breaker: breakers.probe(breaker, now))
        if self.breaker.flows:
            return None
        if self._probes_by_message() and self._prober is None:
            self._prober = asyncio.current_task()
            return None
        return max((self.breaker.until or now) - now, SOON)

    def leave(self) -> None:
        """End the turn of a lane that had passed."""
        me = asyncio.current_task()
        if self._leaver is me:
            self._leaver = None
        if self._prober is me:  # not of one that passed before
            self._prober = None
            self.wake()

    def barred(self, domains: Iterable[str]) -> dict[str, str]:
        """Return domains whose mail must wait, each with the refusal; '' = it probes.

        One message at a time passes while real messages probe a domain.
        """
        if not self.scopes.domains:
            return {}
        found = {}
        for domain in set(domains):
            breaker = self.scopes.domains.get(domain)
            if breaker is None or breaker.flows:
                continue
            probes = breaker.state is BreakerState.PROBING
            by_message = probes and breaker.phase is Phase.MESSAGES
            if by_message and domain not in self._probing:
                self._probing.add(domain)
            else:
                reply = breaker.cause.reply if breaker.cause else "no answer"
                found[domain] = "" if probes else reply
        return found

    def unused(self, domains: Iterable[str]) -> None:
        """Take note that a message that might have probed was not begun."""
        self._probing.difference_update(domains)

    # --- waiting

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, limit: timedelta) -> None:
        """Wait until something moves, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit.total_seconds()):
                await self._changed.wait()

    def give_up(self) -> None:
        """Open the route's breaker: waiting has lasted too long."""
        now = utcnow()
        self.scopes.apply(ROUTE, lambda breaker: breakers.give_up(breaker, now))

    def end(self) -> None:
        """Leave no suspicion unanswered: in doubt, the primary refuses us."""
        now = utcnow()
        for breaker in self.scopes.all():
            self.scopes.leave(breaker.scope, now)

    # --- what happened

    def not_connected(self, failed: ConnectFailed) -> None:
        """Judge why a session could not be opened."""
        step = failed.steps[-1]
        self._failed(step.stage, step.answer)

    def dropped(self, loss: Lost, *, begun: bool) -> None:
        """Judge a session that the primary ended before it answered any MAIL.

        When a message was ``begun`` it may be about that message: another one is tried.
        """
        self._failed(Stage.EHLO, loss, begun=begun)

    def _failed(
        self, stage: Stage, answer: Reply | Lost, *, begun: bool = False
    ) -> None:
        judgement = classify(answer, stage)
        self.note(
            Decision(
                at=utcnow(),
                kind=DecisionKind.CONNECTION,
                rule=judgement.rule,
                verdict=judgement.verdict.value,
                reply=str(answer),
                evidence={"reason": judgement.reason, "stage": stage.value},
            )
        )
        cause = Cause(trigger="early", judgement=judgement, reply=f"{stage}: {answer}")
        now = utcnow()
        if not begun:
            self.scopes.apply(ROUTE, lambda g: breakers.refused_early(g, cause, now))
            return
        self.scopes.apply(ROUTE, lambda g: breakers.refused(g, now, cause))
        self.scopes.apply(ROUTE, lambda g: breakers.suspect(g, cause, now))

    def observe(
        self,
        judged: Sequence[ClassifiedResult],
        reverse_path: str,
        now: datetime,
        *,
        lasted: timedelta,
    ) -> bool:
        """Let the breakers look at an attempt that ``lasted`` so long, before settling.

        True when another message may probe a domain now.
        """
        probing = len(self._probing)
        sender_domain = domain_of(reverse_path)
        attempt = []
        for each in judged:
            if isinstance(each.ending.answer, Problem):
                continue  # the primary was not asked
            if each.judgement.rule == CONTRADICTED:
                continue  # it tells of nobody else
            claimed = each.ending.claimed
            domain = claimed.domain
            seen = Refusal(
                sender_domain=sender_domain,
                recipient=claimed.recipient.forward_path,
                recipient_domain=domain,
                stage=each.ending.stage,
                judgement=each.judgement,
                answer=each.ending.answer,
                again=claimed.refusal == Verdict.STOP,
                retried=claimed.attempts > 0,
                began=now - lasted,
            )
            self._probing.discard(domain)
            attempt.append(seen)
        self.scopes.observe(attempt, reverse_path, now)
        return len(self._probing) < probing

    def _on_move(self, before: CircuitBreaker, after: CircuitBreaker) -> None:
        if after.state is not BreakerState.PROBING and after.scope == ROUTE:
            self._prober = None
        was = before.state, before.phase
        if (after.state, after.phase) == _BY_MESSAGE and was != _BY_MESSAGE:
            self.scopes.since[after.scope] = utcnow()
        self.moves.append((before, after))
        self.on_move()
        self.wake()
        if after.state is before.state and after.until == before.until:
            return
        cause = after.cause or before.cause
        self.note(
            Decision(
                at=utcnow(),
                kind=DecisionKind.BREAKER,
                rule=f"breaker-{after.state}",
                verdict="" if after.flows else "stop",
                reply=cause.reply if cause else "",
                evidence={
                    "scope": after.scope or "route",
                    "trigger": cause.trigger if cause else "",
                    "reason": cause.judgement.reason if cause else "",
                    "failures": after.failures,
                },
            )
        )
