"""A delivery worker: claim, open, send, settle, close; one session's messages in turn.

The order of writes keeps the promise. The attempt is opened before MAIL and is durable
before the final dot is sent. The outcome is durable before the source is acknowledged.
"""

import asyncio
import functools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Self

from msgspec import structs

from drainer.bounce.decider import BounceDecider
from drainer.delivery.control import DrainControl
from drainer.delivery.events import DeliveryEvents
from drainer.delivery.leases import SourceLeases
from drainer.delivery.ready_queue import ReadyQueue
from drainer.errors import HostLimit, LedgerLost, SourceError
from drainer.ledger.records import (
    AttemptEnd,
    AttemptStart,
    StateConflict,
    WriteOutcome,
    new_attempt_id,
)
from drainer.ledger.repository import Ledger
from drainer.mail.envelope import domain_of
from drainer.mail.message import BEHIND_BREAKER, HOST_LIMIT, Problem
from drainer.mail.reply import Lost, Stage
from drainer.policy.breaker.registry import BreakerRegistry
from drainer.policy.classify.rules import Rule
from drainer.policy.recipient.delivery import Delivery
from drainer.policy.recipient.judge import (
    BouncePermit,
    ClassifiedResult,
    SettleContext,
    classify_attempt,
    exempt_message_specific,
)
from drainer.policy.recipient.retry import RetrySchedule
from drainer.policy.recipient.settle import Settlement, settle, settle_delivered
from drainer.policy.recipient.state import FINAL
from drainer.runtime.process import utcnow
from drainer.smtp.rate_limiter import RateLimiter
from drainer.smtp.session import Session
from drainer.smtp.transaction import Transaction


@dataclass(slots=True, kw_only=True)
class DeliveryWorker:
    """Feeds one session, and records what it did."""

    ready_queue: ReadyQueue
    ledger: Ledger
    rate_limiter: RateLimiter
    schedule: RetrySchedule
    rules: Sequence[Rule]
    control: DrainControl
    events: DeliveryEvents
    leases: SourceLeases
    breakers: BreakerRegistry
    bounce_decider: BounceDecider | None
    #: Returns the list of recipients that has an address; None: there are no lists.
    listed: Callable[[str], str] | None
    #: Seconds to wait for a message before the session ends.
    idle: float
    _session: Session | None = None
    #: The writes of attempts that are open, and their transactions, by attempt.
    _openings: dict[int, "asyncio.Future[None]"] = field(default_factory=dict)
    _in_flight: dict[int, Transaction] = field(default_factory=dict)

    def for_session(self, session: Session) -> Self:
        """Return a worker like this one, for a session of its own."""
        return replace(self, _session=session, _openings={}, _in_flight={})

    @property
    def in_flight(self) -> list[str]:
        """The queue ids of the messages that this session sends."""
        return [each.delivery.message.native_id for each in self._in_flight.values()]

    async def run(self, session: Session) -> None:
        """Run a session to its end; a failure of ours holds only its messages."""
        try:
            await self._deliver_all(session)
        except asyncio.CancelledError:
            self._keep_in_doubt()
            raise
        except HostLimit as limit:
            self._end_in_flight(Problem(code=HOST_LIMIT, detail=str(limit)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is ours
            self._end_in_flight(Problem(code="defect", detail=repr(error)))
            self.control.count_defect(error)

    async def _deliver_all(self, session: Session) -> None:
        """Deliver one message after another; this is the life of each of them."""
        following: Transaction | None = None
        try:
            while session.usable or following:
                transaction = following or await self._claim(session)
                if transaction is None:
                    break
                if following is None:
                    if not await self.events.vet(session, transaction):
                        self._put_back(transaction)
                        break
                    self._open(transaction)  # in flight, in the ledger
                    session.start(transaction)  # MAIL, RCPT, DATA
                # The content; the final dot waits until the attempt is durable.
                following = await session.send(transaction, self)
                settlements = self._settle(transaction)  # replies become states
                self._close(transaction, settlements)  # then the source is acknowledged
                if following is not None:  # it started behind the dot of this one
                    self._open(following)
                if transaction.delivery.alone:
                    break
            await session.quit()
        finally:
            session.close()

    # --- claim

    async def _claim(self, session: Session) -> Transaction | None:
        """Wait for a message that fits this primary, and for the rate limiter."""
        while self.events.may_start() and (
            taken := await self.ready_queue.take(self.idle, fresh=session.sent == 0)
        ):
            transaction = self._admit(taken, session)
            if transaction is None:
                continue
            if not session.speaks_for(transaction):
                self._put_back(transaction)
                return None
            asked = time.monotonic()
            may_send = await self.rate_limiter.take_message(
                transaction.rcpts, session.gone
            )
            transaction.waited = time.monotonic() - asked
            if (
                not may_send
                or self.ready_queue.closed
                or session.lost
                or not self.events.may_start()
            ):
                self._put_back(transaction)
                return None
            return transaction
        return None

    async def claim_now(self, session: Session) -> Transaction | None:
        """Return a message that can start at once, behind a final dot."""
        while self.events.may_start(behind_dot=True) and (
            taken := self.ready_queue.take_now()
        ):
            transaction = self._admit(taken, session)
            if transaction is None:
                continue
            fits = session.speaks_for(transaction) and not self.events.must_vet(
                session, transaction
            )
            if fits and await self.rate_limiter.take_message_now(transaction.rcpts):
                return transaction  # it is opened when the one before it has ended
            self._put_back(transaction)
            return None
        return None

    def _admit(self, transaction: Transaction, session: Session) -> Transaction | None:
        """Return the part that may go now; settle or put back the rest.

        Recipients behind the circuit breaker of their domain wait there.
        """
        fitting = self._hold_misfits(transaction, session)
        if fitting is None:
            return None
        transaction = fitting
        blocked = self.events.blocked_domains(transaction)
        if blocked and (
            all(blocked.values()) or not self.ready_queue.park(transaction)
        ):
            return self._leave_behind(transaction, blocked, session)
        return None if blocked else self._fit(transaction, session)

    def _hold_misfits(
        self, transaction: Transaction, session: Session
    ) -> Transaction | None:
        """Settle what this primary cannot take; return the other recipients, if any.

        An address that needs SMTPUTF8 does not hold the recipients beside it.
        """
        claimed = transaction.delivery.claimed
        problem = transaction.misfit(session.extensions, claimed)
        if problem is None:
            return transaction
        fitting = tuple(
            each
            for each in claimed
            if transaction.misfit(session.extensions, [each]) is None
        )
        if not fitting:
            self.refuse(transaction, problem)
            return None
        others = tuple(each for each in claimed if each not in fitting)
        transaction, rest = self.ready_queue.cut(transaction, fitting, others)
        self.refuse(rest, problem)
        return transaction

    def _leave_behind(
        self, transaction: Transaction, blocked: Mapping[str, str], session: Session
    ) -> Transaction | None:
        """Settle the recipients behind a breaker; return the others, if any."""
        claimed = transaction.delivery.claimed
        going = tuple(each for each in claimed if each.domain not in blocked)
        waiting = tuple(each for each in claimed if each.domain in blocked)
        detail = next(filter(None, blocked.values()), "it is being asked")
        problem = Problem(code=BEHIND_BREAKER, detail=detail)
        if not going:
            self.refuse(transaction, problem)
            return None
        transaction, rest = self.ready_queue.cut(transaction, going, waiting)
        self.refuse(rest, problem)
        return self._fit(transaction, session)

    def _fit(self, transaction: Transaction, session: Session) -> Transaction:
        """Return as many recipients as the primary takes in one transaction."""
        limit = session.max_recipients
        claimed = transaction.delivery.claimed
        if 0 < limit < len(claimed) and limit < transaction.rcpts:
            transaction = self.ready_queue.split(transaction, limit)
        transaction.has_dsn = "dsn" in session.extensions
        return transaction

    def _put_back(self, transaction: Transaction) -> None:
        self.events.not_started(transaction)
        self.ready_queue.put_back(transaction)

    def refuse(self, transaction: Transaction, problem: Problem) -> None:
        """Hold a message that is not to be sent; the primary is not asked."""
        transaction.started = time.monotonic()
        transaction.end_rest(Stage.MAIL, problem)
        self._open(transaction)
        self._close(transaction, self._settle(transaction))

    # --- open

    def _open(self, transaction: Transaction) -> None:
        """Hand the in-flight rows of a new attempt to the ledger."""
        transaction.attempt = new_attempt_id()
        started = transaction.started
        ago = time.monotonic() - started if started else 0.0
        transaction.began = utcnow() - timedelta(seconds=ago)
        opened = AttemptStart(
            id=transaction.attempt,
            delivery=transaction.delivery,
            connection=self._session.connection.name if self._session else "",
            started=transaction.began,
        )
        self._openings[transaction.attempt] = self._write_start(opened)
        self._in_flight[transaction.attempt] = transaction

    def _write_start(self, opened: AttemptStart) -> "asyncio.Future[None]":
        """Return the write; the task that awaits it gets its failure."""
        try:
            return self.ledger.submit(opened)
        except LedgerLost as error:
            self.control.fail(error)
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(error)
            future.exception()  # it is not always awaited
            return future

    # --- send: what the session asks for meanwhile

    async def is_durable(self, transaction: Transaction) -> bool:
        """Wait until the attempt is on disk; False: it must not be sent."""
        try:
            await self._openings[transaction.attempt]
            return await self.leases.begin(transaction.spooled.message)
        except StateConflict:
            return False
        except (LedgerLost, SourceError) as error:
            self.control.fail(error)
            return False

    # --- settle

    def _settle(self, transaction: Transaction) -> tuple[Settlement, ...]:
        """Return the new state of each recipient; the circuit breakers judge first."""
        session = self._session
        results = classify_attempt(
            transaction.results.values(), self.rules, transaction.sent
        )
        delivered = settle_delivered(results)
        if delivered is not None:
            self.events.replied(transaction, results, session)
            return delivered
        context = self._context(transaction)
        results = exempt_message_specific(
            self.events.pass_on(results, session), context
        )
        group, elsewhere = self.events.replied(transaction, results, session)
        if elsewhere or group is not None:
            context = structs.replace(context, elsewhere=elsewhere, group=group)
        return settle(results, context)

    def _context(self, transaction: Transaction) -> SettleContext:
        """Return the circumstances in which an attempt is settled."""
        now = utcnow()
        delivery = transaction.delivery
        return SettleContext(
            now=now,
            draw=random.random(),  # noqa: S311 - jitter, not a secret
            sender_domain=domain_of(delivery.message.envelope.reverse_path),
            breakers=self.breakers,
            schedule=self.schedule,
            attachment=transaction.facts.has_attachment,
            vouched=self._session.vouched if self._session else (),
            kept=delivery.kept,
            permit=self._permit(delivery, now),
            listed=self.listed,
        )

    def _permit(
        self, delivery: Delivery, now: datetime
    ) -> Callable[[ClassifiedResult], BouncePermit] | None:
        if self.bounce_decider is None:
            return None
        return functools.partial(self.bounce_decider.permit, delivery, now=now)

    # --- close

    def _close(
        self, transaction: Transaction, settlements: tuple[Settlement, ...]
    ) -> None:
        """Hand the outcome to the ledger; once it is durable, ``_closed`` is called."""
        delivery = transaction.delivery
        is_last = self.ready_queue.end(transaction)
        is_final = delivery.whole and all(s.state in FINAL for s in settlements)
        self._openings.pop(transaction.attempt, None)
        self._in_flight.pop(transaction.attempt, None)
        reports = self.bounce_decider is not None
        end = AttemptEnd(
            id=transaction.attempt,
            delivery=delivery,
            ended=utcnow(),
            stages=transaction.timeline,
            settlements=settlements,
            free=is_last and not is_final,
            # It is made from the copy: the source may have dropped the message.
            relayed=reports and delivery.kept and not transaction.has_dsn,
        )
        try:
            closed = functools.partial(self._closed, transaction, settlements)
            self.ledger.settle(end, closed)
        except LedgerLost as error:
            self.control.fail(error)
        self.events.settled(transaction, settlements)

    def _closed(
        self,
        transaction: Transaction,
        settlements: tuple[Settlement, ...],
        outcome: WriteOutcome,
    ) -> None:
        if outcome.error is None:
            self.events.recorded(transaction, settlements)
        elif isinstance(outcome.error, LedgerLost):
            self.control.fail(outcome.error)

    def _end_in_flight(self, problem: Problem) -> None:
        """End what has started; what is past its final dot is in doubt."""
        for transaction in list(self._in_flight.values()):
            lost = Lost(reason="closed", detail=f"after the dot: {problem.detail}")
            late = transaction.dotted
            transaction.end_rest(
                Stage.DOT if late else Stage.BODY, lost if late else problem
            )
            self._close(transaction, self._settle(transaction))

    def _keep_in_doubt(self) -> None:
        """Name what is past its final dot, when the ledger cannot settle it."""
        if self.ledger.has_failed():
            for each in self._in_flight.values():
                if each.dotted:
                    reserve = self.ledger.reserve
                    reserve.keep_unknown(each.attempt, each.delivery, utcnow())
