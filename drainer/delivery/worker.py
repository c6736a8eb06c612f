"""One attempt, start to end: what stands between the backlog and a session.

The order of writes is the promise. Open the attempt (durable before the final
dot leaves), send, settle, close it (durable before the source is told). The
session pulls: it asks this lane for the next message, and tells how it ended.
"""

import asyncio
import functools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from drainer.bounce.decider import BounceDecider
from drainer.delivery.leases import SourceLeases
from drainer.delivery.ready_queue import ReadyQueue
from drainer.errors import HostLimit, LedgerLost, SourceError
from drainer.ledger.records import AttemptEnd, AttemptStart, StateConflict, WriteOutcome
from drainer.ledger.repository import Ledger
from drainer.ledger.writer.client import Then
from drainer.mail.envelope import domain_of
from drainer.mail.message import BEHIND_BREAKER, HOST_LIMIT, Problem
from drainer.mail.reply import Lost, Stage
from drainer.policy.recipient.delivery import Delivery
from drainer.policy.recipient.judge import (
    BouncePermit,
    BreakerView,
    ClassifiedResult,
    RetryPolicy,
    SettleContext,
    excuse,
    judge,
)
from drainer.policy.recipient.settle import Settlement, settle
from drainer.policy.recipient.state import FINAL
from drainer.runtime.process import utcnow
from drainer.smtp.commands import misfit
from drainer.smtp.rate_limiter import RateLimiter
from drainer.smtp.session import Session
from drainer.smtp.transaction import Transaction

WORTH_TELLING = 0.001
"""Seconds of waiting for the throttle that the trace shows."""
MAX_STAGE_TEXT = 500
"""Characters of a reply that are kept with the time of its stage."""


def attempt_id() -> int:
    """Return a new attempt's id: 63 bits that grow with time, so rows lie in order."""
    return (time.time_ns() // 1000 << 12) | random.getrandbits(12)


def _stages(work: Transaction) -> tuple[tuple[str, int, str], ...]:
    waited: tuple[tuple[str, int, str], ...] = ()
    if work.waited >= WORTH_TELLING:
        waited = (("throttle.wait", 0, f"{work.waited:.3f} s"),)
    told = [
        (str(stage), int(seconds * 1e6), answer[:MAX_STAGE_TEXT])
        for stage, seconds, answer in work.stages
    ]
    return (*waited, *told)


class DeliveryEvents(Protocol):
    """Who is told what became of the attempts."""

    def flowing(self, *, behind: bool = False) -> bool:
        """Whether another message may be begun; ``behind`` the dot of one before it."""
        ...

    def barred(self, work: Transaction) -> Mapping[str, str]:
        """Return recipient domains that must wait, each with the refusal.

        Without one it is not yet clear whether they are refused.
        """
        ...

    def unused(self, work: Transaction) -> None:
        """Take note that admitted work was not begun after all."""

    def observe(
        self, work: Transaction, judged: Sequence[ClassifiedResult], now: datetime
    ) -> None:
        """Look at an attempt before it is settled."""

    def settled(self, work: Transaction, settlements: tuple[Settlement, ...]) -> None:
        """Take note that an attempt ended; its record is under way."""

    def recorded(self, work: Transaction, settlements: tuple[Settlement, ...]) -> None:
        """Take note that the record of an attempt is durable."""

    def defect(self, error: Exception) -> None:
        """Take note of a failure of our own."""

    def failed(self, error: Exception) -> None:
        """Send nothing more: the ledger or a lease cannot be written."""


@dataclass(slots=True, kw_only=True)
class DeliveryWorker:
    """One session's line: feeds it, and writes down what it did."""

    backlog: ReadyQueue
    ledger: Ledger
    throttle: RateLimiter
    policy: RetryPolicy
    watcher: DeliveryEvents
    leases: SourceLeases
    standing: BreakerView
    bouncer: BounceDecider | None
    idle: float
    address: str = ""
    _openings: dict[int, "asyncio.Future[None]"] = field(default_factory=dict)
    _begun: dict[int, Transaction] = field(default_factory=dict)

    async def serve(self, session: Session) -> None:
        """Run a session to its end; a failure of ours holds just its messages."""
        try:
            await session.run(self)
        except asyncio.CancelledError:
            self._keep_in_doubt()
            raise
        except HostLimit as limit:
            self._end_all(Problem(code=HOST_LIMIT, detail=str(limit)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is ours
            self._end_all(Problem(code="defect", detail=repr(error)))
            self.watcher.defect(error)

    def _end_all(self, problem: Problem) -> None:
        """End what has started; what is past its final dot is in doubt."""
        for work in list(self._begun.values()):
            lost = Lost(reason="closed", detail=f"after the dot: {problem.detail}")
            late = work.dotted
            work.end_rest(Stage.DOT if late else Stage.BODY, lost if late else problem)
            self._close(work)

    def _keep_in_doubt(self) -> None:
        """Name what is past its final dot, when the ledger cannot settle it."""
        if self.ledger.has_failed():
            for work in self._begun.values():
                if work.dotted:
                    self.ledger.reserve.keep_unknown(work.attempt, work.job, utcnow())

    async def next(self, session: Session) -> Transaction | None:
        """Wait for a message that fits this primary, and for the throttle."""
        self.address = session.connection.address
        while self.watcher.flowing() and (
            work := await self.backlog.take(self.idle, fresh=session.sent == 0)
        ):
            admitted = self._admit(work, session)
            if admitted is None:
                continue
            work = admitted
            if not session.speaks_for(work):
                self._put_back(work)
                return None
            asked = time.monotonic()
            may_send = await self.throttle.message(work.rcpts, session.gone)
            work.waited = time.monotonic() - asked
            if (
                not may_send
                or self.backlog.closed
                or session.lost
                or not self.watcher.flowing()
            ):
                self._put_back(work)
                return None
            self._open(work)
            return work
        return None

    async def next_now(self, session: Session) -> Transaction | None:
        """Return a message that can be begun at once, behind a final dot."""
        while self.watcher.flowing(behind=True) and (work := self.backlog.take_now()):
            admitted = self._admit(work, session)
            if admitted is None:
                continue
            fits = session.speaks_for(admitted)
            if fits and await self.throttle.message_now(admitted.rcpts):
                return admitted  # it is opened when the one before it has ended
            self._put_back(admitted)
            return None
        return None

    @property
    def grain(self) -> int:
        """How many octets may leave at once."""
        return self.throttle.grain

    async def pace(self, size: int) -> None:
        """Wait until so many octets may leave."""
        await self.throttle.octets(size)

    async def durable(self, work: Transaction) -> bool:
        """Wait until the attempt is on disk; False: it must not be sent."""
        try:
            await self._openings[work.attempt]
            return await self.leases.begin(work.spooled.message)
        except StateConflict:
            return False
        except (LedgerLost, SourceError) as error:
            self.watcher.failed(error)
            return False

    def ended(self, work: Transaction, following: Transaction | None) -> None:
        """Settle an attempt; its outcome shares a commit with the next opening."""
        self._close(work)
        if following is not None:
            self._open(following)

    def refuse(self, work: Transaction, problem: Problem) -> None:
        """Hold a message that is not to be sent; the primary is not asked."""
        work.started = time.monotonic()
        work.end_rest(Stage.MAIL, problem)
        self._open(work)
        self._close(work)

    def _admit(self, work: Transaction, session: Session) -> Transaction | None:
        """Return what may go of work that was taken; the rest is settled or put back.

        Whoever is behind the breaker of its domain waits there.
        """
        if self._misfits(work, session):
            return None
        barred = self.watcher.barred(work)
        if barred and (all(barred.values()) or not self.backlog.set_aside(work)):
            return self._leave_behind(work, barred, session)
        return None if barred else self._fit(work, session)

    def _leave_behind(
        self, work: Transaction, barred: Mapping[str, str], session: Session
    ) -> Transaction | None:
        """Settle the recipients behind a breaker; return the others, if any."""
        claimed = work.job.claimed
        going = tuple(each for each in claimed if each.domain not in barred)
        waiting = tuple(each for each in claimed if each.domain in barred)
        detail = next(filter(None, barred.values()), "it is being asked")
        problem = Problem(code=BEHIND_BREAKER, detail=detail)
        if not going:
            self.refuse(work, problem)
            return None
        work, rest = self.backlog.cut(work, going, waiting)
        self.refuse(rest, problem)
        return self._fit(work, session)

    def _put_back(self, work: Transaction) -> None:
        self.watcher.unused(work)
        self.backlog.put_back(work)

    def _misfits(self, work: Transaction, session: Session) -> bool:
        recipients = [claimed.recipient for claimed in work.job.claimed]
        message = work.spooled.message
        problem = misfit(message, work.facts, recipients, session.extensions)
        if problem is None:
            return False
        self.refuse(work, problem)
        return True

    def _fit(self, work: Transaction, session: Session) -> Transaction:
        """Return as much of the work as the primary takes in one transaction."""
        limit = session.max_recipients
        if 0 < limit < len(work.job.claimed) and limit < len(list(work.addressed)):
            work = self.backlog.split(work, limit)
        work.has_dsn = "dsn" in session.extensions
        return work

    def _open(self, work: Transaction) -> None:
        work.attempt = attempt_id()
        ago = time.monotonic() - work.started if work.started else 0.0
        opened = AttemptStart(
            id=work.attempt,
            job=work.job,
            connection=self.address,
            started=utcnow() - timedelta(seconds=ago),
        )
        self._openings[work.attempt] = self._opening(opened)
        self._begun[work.attempt] = work

    def _close(self, work: Transaction) -> None:
        now = utcnow()
        moment = SettleContext(
            now=now,
            draw=random.random(),  # noqa: S311 - jitter, not a secret
            sender_domain=domain_of(work.job.message.envelope.reverse_path),
            standing=self.standing,
            kept=work.job.kept,
            permit=self._permit(work.job, now),
        )
        endings = work.endings.values()
        judged = excuse(judge(endings, self.policy.rules, work.sent), moment)
        self.watcher.observe(work, judged, now)
        settlements = settle(judged, moment, self.policy)
        last = self.backlog.end(work)
        finished = work.job.whole and all(s.state in FINAL for s in settlements)
        self._openings.pop(work.attempt, None)
        self._begun.pop(work.attempt, None)
        closed = AttemptEnd(
            id=work.attempt,
            job=work.job,
            ended=now,
            stages=_stages(work),
            settlements=settlements,
            free=last and not finished,
            # A report is made of the copy: the source may have let go by then.
            relayed=self.bouncer is not None and work.job.kept and not work.has_dsn,
        )
        self._settle(closed, functools.partial(self._settled, work, settlements))
        self.watcher.settled(work, settlements)

    def _permit(
        self, job: Delivery, now: datetime
    ) -> Callable[[ClassifiedResult], BouncePermit] | None:
        if self.bouncer is None:
            return None
        return functools.partial(self.bouncer.permit, job, now=now)

    def _opening(self, opened: AttemptStart) -> "asyncio.Future[None]":
        """Hand an opening to the ledger; its failure is told to who awaits it."""
        try:
            return self.ledger.submit(opened)
        except LedgerLost as error:
            self.watcher.failed(error)
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(error)
            future.exception()  # so that nobody complains when it is not awaited
            return future

    def _settle(self, closed: AttemptEnd, then: Then) -> None:
        """Hand an outcome to the ledger; its failure is told, never raised."""
        try:
            self.ledger.settle(closed, then)
        except LedgerLost as error:
            self.watcher.failed(error)

    def _settled(
        self,
        work: Transaction,
        settlements: tuple[Settlement, ...],
        outcome: WriteOutcome,
    ) -> None:
        if outcome.error is None:
            self.watcher.recorded(work, settlements)
        elif isinstance(outcome.error, LedgerLost):
            self.watcher.failed(outcome.error)
