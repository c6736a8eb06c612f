"""The lanes of a drain: each opens sessions, one after another, while it may.

What a session does with its messages is drainer.delivery.worker's; which lane may open
one is said by the steering, the breakers, and the number of connections.
"""

import asyncio
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from drainer.delivery.breaker.guard import BreakerGuard
from drainer.delivery.loader import Loader
from drainer.delivery.pacing.controller import RateController
from drainer.delivery.ready_queue import ReadyQueue
from drainer.delivery.settings import DrainSettings, Progress, connected
from drainer.delivery.worker import DeliveryWorker
from drainer.errors import HostLimit, UsageError
from drainer.ledger.records import Decision, DecisionKind
from drainer.ledger.repository import Ledger
from drainer.runtime.host_limits import has_descriptor, no_descriptor
from drainer.runtime.process import utcnow
from drainer.smtp.commands import recipient_limit
from drainer.smtp.connection import ConnectFailed, Connection, connect
from drainer.smtp.health_check import own_name
from drainer.smtp.rate_limiter import RateLimiter
from drainer.smtp.session import Session

MAX_UNHEARD = 5
"""Sessions in a row that ended without an answer to MAIL."""


PATIENCE = 1.0
"""Seconds of our silence after which nobody can be blamed for hanging up."""


def _tired(session: Session) -> bool:
    """Whether the primary ended a session that had been silent for long."""
    gone = session.gone
    return gone.done() and gone.result() - session.connection.opened >= PATIENCE


class Owner(Protocol):
    """Whose lanes these are."""

    def new_lane(self) -> DeliveryWorker:
        """Return what feeds a new session."""
        ...

    def note(self, decision: Decision) -> None:
        """Write a decision down."""

    def failed(self, error: Exception) -> None:
        """End the drain: nothing more may be sent."""

    def close(self) -> None:
        """End the drain in order."""


@dataclass(slots=True, kw_only=True)
class ConnectionPool:
    """Opens sessions while there is work and the breakers let them pass."""

    owner: Owner
    orders: DrainSettings
    ledger: Ledger
    tally: Progress
    keeper: BreakerGuard
    backlog: ReadyQueue
    intake: Loader
    #: The connections that the primary may see at once.
    slots: asyncio.Semaphore
    steering: RateController
    throttle: RateLimiter
    #: The number of each lane.
    _lanes: dict[asyncio.Task[Any] | None, int] = field(default_factory=dict)
    _unheard: int = 0
    #: How many sessions this host has let us have.
    _most: int = sys.maxsize
    #: Lanes that open a session and have nothing in hand.
    _opening: set[asyncio.Task[Any]] = field(default_factory=set)

    def cancel_opening(self) -> None:
        """Wait for no session that is being opened."""
        for task in self._opening:
            task.cancel()

    async def lane(self, n: int) -> None:
        """Open sessions while there is work and the breaker lets them pass."""
        self._lanes[asyncio.current_task()] = n
        while await self.backlog.wait():
            await self._room()
            if await self._pass_breaker():
                try:
                    async with self.slots:
                        if await self.throttle.connection() and not self.surplus:
                            await self._session()
                finally:
                    self.keeper.leave()

    @property
    def surplus(self) -> bool:
        """Whether this lane's session is one more than there may be."""
        allowed = min(self.steering.connections, self._most)
        if allowed >= self.orders.connections:
            return False  # without asking for the task, at every message
        return self._lanes.get(asyncio.current_task(), 0) >= allowed

    async def _room(self) -> None:
        """Hold the later lanes back while fewer connections are allowed."""
        while not self.backlog.closed and self.surplus:
            await self.keeper.wait(timedelta(seconds=1))

    async def _pass_breaker(self) -> bool:
        """Wait until this lane may open a session; False when it is over."""
        while not self.backlog.closed:
            now = utcnow()
            wait = self.keeper.ask(now)
            if wait is None:
                return True
            deadline = self.tally.deadline(self.orders.give_up_after)
            too_long = self.keeper.pauses and now + wait > deadline
            if self.keeper.refuses or too_long:
                self.keeper.give_up()
                self.owner.close()
                return False
            self.tally.waiting = f"{self.keeper.breaker.state}: {self.keeper.reply}"
            await self.keeper.wait(wait)
            self.tally.waiting = ""
        return False

    async def _session(self) -> None:
        began = time.monotonic()
        try:
            answer = await self._connect()
            if isinstance(answer, ConnectFailed) and not has_descriptor():
                raise no_descriptor()
        except HostLimit as limit:
            await self._do_with_fewer(limit)
            return
        if isinstance(answer, ConnectFailed):
            self.steering.unreachable(began)
            self.keeper.not_connected(answer)
            return
        if own_name(answer, self.orders.route):
            self._fail_loop(answer)
            answer.wire.close()
            return
        self.owner.note(connected(answer))
        self.tally.pulse.saw("connect", sum(step.seconds for step in answer.steps))
        if most := recipient_limit(answer.extensions):
            self.intake.max_recipients = min(most, self.intake.max_recipients)
        self._count_connection(+1)
        session = Session(answer, self.orders.route)
        try:
            await self.owner.new_lane().serve(session)
        finally:
            self._count_connection(-1)
        self._judge_session(session)

    async def _do_with_fewer(self, limit: HostLimit) -> None:
        """Have no more sessions than now: this host, not the primary, is in the way."""
        fewer = max(1, self.tally.connections)
        if fewer < self._most:
            self._most = fewer
            evidence: dict[str, object] = {"connections": fewer, "reason": str(limit)}
            rule = "host-limit"
            self.owner.note(
                Decision(
                    at=utcnow(),
                    kind=DecisionKind.THROTTLE,
                    rule=rule,
                    evidence=evidence,
                )
            )
        if utcnow() > self.tally.deadline(self.orders.give_up_after):
            self.owner.failed(limit)
        await self.keeper.wait(timedelta(seconds=1))

    def _judge_session(self, session: Session) -> None:
        """Pause the route when the primary hangs up before it answers any MAIL.

        Once is the fault of the message that was begun, if one was; time after
        time it is not. Nor is it one to tire of a session that says nothing, because
        it waits for the rate.
        """
        if session.heard:
            self._unheard = 0
        elif session.loss is not None and (session.sent or not _tired(session)):
            self._unheard += 1
            if session.sent == 0 or self._unheard >= MAX_UNHEARD:
                self.keeper.dropped(session.loss, begun=session.sent > 0)

    async def _connect(self) -> Connection | ConnectFailed:
        """Open a session; an ending drain does not wait for it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a lane is a task
        self._opening.add(task)
        try:
            return await connect(self.orders.route)
        finally:
            self._opening.discard(task)

    def _count_connection(self, change: int) -> None:
        self.tally.connections += change
        self.ledger.expect(self.tally.connections)

    def _fail_loop(self, connection: Connection) -> None:
        message = (
            f"{self.orders.route} calls itself {connection.peer_name}, which is our"
            " own name: that is a loop, not the primary"
        )
        hint = "check --to; if the name is right, set [primary] helo to another one"
        self.owner.failed(UsageError(message, hint=hint))
