"""The connection pool of a drain: each task opens sessions, one after another.

drainer.delivery.worker says what a session does with its messages. The connection
limit, the circuit breakers and the rate limiter decide whether a task may open one.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from drainer.delivery.breaker.guard import BreakerGuard
from drainer.delivery.connection_limit import ConnectionLimit
from drainer.delivery.control import DrainControl
from drainer.delivery.loader import Loader
from drainer.delivery.pacing.controller import RateController
from drainer.delivery.ready_queue import ReadyQueue
from drainer.delivery.settings import RouteProgress, RouteSettings, connection_facts
from drainer.delivery.worker import DeliveryWorker
from drainer.errors import HostLimit, UsageError
from drainer.ledger.records import DecisionKind
from drainer.ledger.repository import Ledger
from drainer.mail.reply import Stage
from drainer.runtime.host_limits import has_descriptors, no_descriptor
from drainer.runtime.process import utcnow
from drainer.smtp.commands import recipient_limit
from drainer.smtp.connection import ConnectFailure, Connection
from drainer.smtp.host_trust import HostTrust
from drainer.smtp.hosts import HostChoice
from drainer.smtp.own_name import has_own_name
from drainer.smtp.rate_limiter import RateLimiter
from drainer.smtp.session import Session
from drainer.smtp.xclient import ClientIntroduction

_log = logging.getLogger(__name__)

MAX_UNHEARD = 5
"""Sessions in a row that ended without an answer to MAIL."""


PATIENCE = 1.0
"""Seconds of our silence after which a peer may rightly hang up."""


def _tired(session: Session) -> bool:
    """Whether the primary ended a session that had been silent for long."""
    gone = session.gone
    return gone.done() and gone.result() - session.connection.opened >= PATIENCE


@dataclass(slots=True, kw_only=True)
class ConnectionPool:
    """Opens sessions while there is work and the circuit breakers let them pass."""

    settings: RouteSettings
    ledger: Ledger
    control: DrainControl
    progress: RouteProgress
    breaker_guard: BreakerGuard
    ready_queue: ReadyQueue
    loader: Loader
    #: The connections that may be open to the primary at once.
    slots: asyncio.Semaphore
    hosts: HostChoice
    limit: ConnectionLimit
    rate_controller: RateController
    rate_limiter: RateLimiter
    #: Each session gets a copy of it.
    worker: DeliveryWorker
    #: Those of the open sessions, by their own id().
    _workers: dict[int, DeliveryWorker] = field(default_factory=dict)
    #: By address and port.
    _trust: dict[str, HostTrust] = field(default_factory=dict)
    #: Whether all sessions so far may speak for clients; None = there was none.
    speaks_for_clients: bool | None = None
    _unheard: int = 0
    #: Held while the first session is opened: a wrong password is tried once, not by
    #: all tasks at once.
    _first: asyncio.Lock = field(default_factory=asyncio.Lock)
    _reached: bool = False
    #: Tasks that open a session and have no message yet.
    _opening: set[asyncio.Task[Any]] = field(default_factory=set)

    def close(self) -> None:
        """Stop waiting for sessions that are still being opened."""
        for task in self._opening:
            task.cancel()

    async def run(self, number: int) -> None:
        """Open sessions, one after another, while there is work."""
        self.limit.number_task(number)
        while await self.ready_queue.wait():
            await self._wait_for_limit()
            if await self._pass_breaker():
                try:
                    async with self.slots:
                        if (
                            await self.rate_limiter.take_connection()
                            and not self.limit.is_surplus
                        ):
                            await self._session()
                finally:
                    self.breaker_guard.leave()

    @property
    def in_flight(self) -> list[str]:
        """The queue ids of the messages that the open sessions send."""
        return [id_ for worker in self._workers.values() for id_ in worker.in_flight]

    async def _wait_for_limit(self) -> None:
        """Hold the later tasks back while fewer connections are allowed."""
        while not self.ready_queue.closed and self.limit.is_surplus:
            await self.breaker_guard.wait(timedelta(seconds=1))

    async def _pass_breaker(self) -> bool:
        """Wait until this worker may open a session; False when the drain ends."""
        while not self.ready_queue.closed:
            now = utcnow()
            wait = self.breaker_guard.ask(now)
            if wait is None:
                return True
            deadline = self.progress.deadline(self.settings.give_up_after)
            too_long = self.breaker_guard.pauses and now + wait > deadline
            if self.breaker_guard.refuses or too_long:
                self.breaker_guard.give_up()
                self.control.close()
                return False
            self.progress.waiting = (
                f"{self.breaker_guard.breaker.state}: {self.breaker_guard.reply}"
            )
            await self.breaker_guard.wait(wait)
            self.progress.waiting = ""
        return False

    async def _session(self) -> None:
        began = time.monotonic()
        try:
            answer = await self._connect()
            if isinstance(answer, ConnectFailure) and not has_descriptors():
                raise no_descriptor()
        except HostLimit as limit:
            await self._do_with_fewer(limit)
            return
        if answer is None:
            return
        if isinstance(answer, ConnectFailure):
            await self._judge_failure(answer, began)
            return
        if await has_own_name(answer, self.settings.route):
            self._fail_loop()
            self.hosts.release(answer)
            answer.wire.close()
            return
        await self._serve(answer)

    async def _serve(self, answer: Connection) -> None:
        """Run a session on an established connection, and learn from it."""
        facts, banner = connection_facts(answer), str(answer.banner)
        self.control.record(DecisionKind.CONNECTION, "connected", facts, reply=banner)
        self.progress.answered = answer.shown
        _log.debug(f"connected to {answer.address}: {answer.banner}")
        self.progress.latency.record(
            "connect", sum(step.seconds for step in answer.steps)
        )
        if most := recipient_limit(answer.extensions):
            self.loader.max_recipients = min(most, self.loader.max_recipients)
        self._count_connection(+1)
        trust = self._trust.setdefault(answer.address, HostTrust())
        session = Session(answer, self.settings.route, trust, self.hosts)
        worker = self.worker.for_session(session)
        self._workers[id(worker)] = worker
        before = self.speaks_for_clients is not False
        introduction = ClientIntroduction.on(session.route, answer.extensions)
        self.speaks_for_clients = before and introduction.renews
        try:
            await worker.run(session)
        finally:
            del self._workers[id(worker)]
            self._count_connection(-1)
            self.hosts.release(answer)
        self._note_news(trust, answer.address)
        self._judge_session(session)

    async def _judge_failure(self, failed: ConnectFailure, began: float) -> None:
        """Pause the route; or use fewer sessions if the others are still served.

        A host that limits connections says so in many ways, by a 5xx or by hanging up
        too. If it refuses us, the other sessions end soon, and then no session is left.
        """
        step, others = failed.steps[-1], self.progress.connections
        if others and step.stage in (Stage.BANNER, Stage.EHLO):
            fewer = max(others, self.limit.allowed - 1)
            self._lower_limit("primary-limit", str(step.answer), fewer)
            await self.breaker_guard.wait(timedelta(seconds=1))
            return
        self.rate_controller.unreachable(began)
        self.breaker_guard.not_connected(failed)

    async def _do_with_fewer(self, limit: HostLimit) -> None:
        """Open no more sessions than now: this host, not the primary, is the limit."""
        fewer = max(1, self.progress.connections)
        self._lower_limit("host-limit", str(limit), fewer)
        if utcnow() > self.progress.deadline(self.settings.give_up_after):
            self.control.fail(limit)
        await self.breaker_guard.wait(timedelta(seconds=1))

    def _lower_limit(self, rule: str, reason: str, fewer: int) -> None:
        if self.limit.lower(fewer):
            evidence = {"connections": fewer, "reason": reason}
            self.control.record(DecisionKind.THROTTLE, rule, evidence)

    def _note_news(self, trust: HostTrust, address: str) -> None:
        """Record what a session has learned about its host, once, and log it."""
        while trust.news:
            rule, reason = trust.news.pop(0)
            _log.warning(f"{address}: {reason}")
            evidence = {"address": address, "reason": reason}
            self.control.record(DecisionKind.CONNECTION, rule, evidence)

    def _judge_session(self, session: Session) -> None:
        """Pause the route when the primary hangs up before it answers any MAIL.

        A single time, the message that was started is to blame, if there was one.
        Repeated times, it is not. A primary that hangs up on a session that waits
        silently for the rate is not to blame either.
        """
        if session.has_replied:
            self._unheard = 0
        elif session.loss is not None and (session.sent or not _tired(session)):
            self._unheard += 1
            if session.sent == 0 or self._unheard >= MAX_UNHEARD:
                self.breaker_guard.dropped(session.loss, begun=session.sent > 0)

    async def _connect(self) -> Connection | ConnectFailure | None:
        """Open a session; an ending drain does not wait for it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a worker is a task
        self._opening.add(task)
        try:
            if not self._reached:
                async with self._first:
                    if not self._reached:
                        return await self._connect_first()
            return await self.hosts.connect()
        finally:
            self._opening.discard(task)

    async def _connect_first(self) -> Connection | ConnectFailure | None:
        """Open a session while no other is opened; None if the breaker forbids it."""
        if not self.breaker_guard.may_connect():
            return None
        answer = await self.hosts.connect()
        self._reached = not isinstance(answer, ConnectFailure)
        return answer

    def _count_connection(self, change: int) -> None:
        self.progress.connections += change
        self.ledger.expect(change)

    def _fail_loop(self) -> None:
        message = (
            f"{self.settings.route} introduces itself with our own name"
            f" {self.settings.route.helo}: that is a loop, not the primary"
        )
        hint = (
            "check --to; if the host is right, set [primary] helo to another name, or"
            " allow_own_name = true"
        )
        self.control.fail(UsageError(message, hint=hint))
