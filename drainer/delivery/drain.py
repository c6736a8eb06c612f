"""The drain: one task group that scans, sends, tries again and acknowledges.

It ends when every recipient is final or waits for something that a drain does
not wait for; when the primary refuses us (the breaker opens); when the ledger
cannot be written; or when it is told to stop: then it claims nothing more and
lets the sessions finish their message.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from drainer.bounce.quarantine.cleanup import QuarantineCleaner
from drainer.bounce.quarantine.store import Quarantine
from drainer.bounce.service import BounceService
from drainer.delivery.acknowledger import Acknowledger
from drainer.delivery.breaker.guard import BreakerGuard
from drainer.delivery.breaker.monitor import BreakerMonitor
from drainer.delivery.connections import ConnectionPool
from drainer.delivery.fair_queue import WINDOW, FairQueue
from drainer.delivery.feeder import LOOK_AGAIN, Feeder
from drainer.delivery.leases import SourceLeases
from drainer.delivery.loader import Loader
from drainer.delivery.pacing.controller import ControllerParts, RateController
from drainer.delivery.ready_queue import ReadyQueue
from drainer.delivery.selector import Selector
from drainer.delivery.settings import DrainSettings, Progress
from drainer.delivery.worker import DeliveryWorker
from drainer.errors import (
    DrainerError,
    LedgerLost,
    OwnedElsewhere,
)
from drainer.ledger.records import Decision
from drainer.ledger.repository import Ledger
from drainer.mail.reply import Stage
from drainer.policy.breaker.known_good import KnownGoodRecipients
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.judge import ClassifiedResult, RetryPolicy
from drainer.policy.recipient.retry import usual_confirm_after
from drainer.policy.recipient.settle import Settlement
from drainer.runtime.process import utcnow
from drainer.runtime.workers import WorkerProcess
from drainer.smtp.rate_limiter import RateLimiter
from drainer.smtp.transaction import Transaction
from drainer.sources.protocol import LeasingSource, Source

BACKLOG = 100
"""Messages; how far the drain looks ahead is the window's matter."""
LEASED = 400
"""How far it looks ahead in a source that others share: they want some, too."""
MAX_DEFECTS = 3


class Drain:
    """One run over some sources to one primary."""

    def __init__(
        self,
        orders: DrainSettings,
        sources: Sequence[Source],
        ledger: Ledger,
        *,
        leases: SourceLeases | None = None,
        at_hand: WorkerProcess | None = None,
    ) -> None:
        """Prepare; nothing is read or written before ``run``.

        ``leases`` have been started, if any of the sources are shared; ``at_hand`` is
        a scanner that waits for the first source.
        """
        self.orders = orders
        self.ledger = ledger
        self.tally = Progress(started=utcnow())
        known = KnownGoodRecipients(orders.known_good, orders.sender)
        self.keeper = BreakerGuard(orders.pauses, known, self.note, orders.windows)
        self._sources = {source.url: source for source in sources}
        self._urls = list(self._sources)
        self.keeper.on_move = self._heed_breakers
        self._quarantine = Quarantine(orders.quarantine) if orders.quarantine else None
        self._intake = Loader(
            self._sources,
            orders.admission,
            orders.route.max_recipients,
            self._quarantine,
            tells=orders.bouncing is not None,
        )
        self._backlog = ReadyQueue(max(BACKLOG, 2 * orders.connections))
        self._throttle = RateLimiter(orders.rates)
        self.steering = self._make_steering()
        self.keeper.on_crowd = self._backlog.dismiss_one
        self._sessions = self._make_sessions()
        self._probing = BreakerMonitor(
            self.keeper, ledger, orders.route, self._urls, self._sessions.slots
        )
        self._leases = leases or SourceLeases([])
        self._acknowledger = Acknowledger(ledger, self._sources)
        self._tidier = (
            QuarantineCleaner(ledger, self._quarantine) if self._quarantine else None
        )
        self._feed = self._make_feed(at_hand)
        #: Sources that refused to let go of finished messages, and why.
        self.refusals = self._acknowledger.refusals
        self._error: Exception | None = None
        self._policy = RetryPolicy(schedule=orders.schedule, rules=orders.rules)
        #: Tells senders; None: nobody is told anything.
        self.telling = (
            BounceService(ledger, self._sources, self._quarantine, orders.bouncing)
            if orders.bouncing
            else None
        )

    def _make_steering(self) -> RateController:
        means = ControllerParts(
            orders=self.orders,
            ledger=self.ledger,
            throttle=self._throttle,
            tally=self.tally,
            keeper=self.keeper,
        )
        return RateController(means)

    def _make_sessions(self) -> ConnectionPool:
        return ConnectionPool(
            owner=self,
            orders=self.orders,
            ledger=self.ledger,
            tally=self.tally,
            keeper=self.keeper,
            backlog=self._backlog,
            intake=self._intake,
            slots=asyncio.Semaphore(self.orders.connections),
            steering=self.steering,
            throttle=self._throttle,
        )

    def _make_feed(self, at_hand: WorkerProcess | None) -> Feeder:
        shared = any(isinstance(each, LeasingSource) for each in self._sources.values())
        fair = self.orders.choice.order is None
        return Feeder(
            orders=self.orders,
            sources=self._sources,
            ledger=self.ledger,
            picker=Selector(self.orders, self.ledger, self._urls),
            window=FairQueue(LEASED if shared else WINDOW, fair=fair),
            backlog=self._backlog,
            intake=self._intake,
            acknowledger=self._acknowledger,
            tally=self.tally,
            keeper=self.keeper,
            probing=self._probing,
            at_hand=at_hand,
            refuse=lambda work, problem: self.new_lane().refuse(work, problem),
        )

    # --- the run

    async def run(self) -> None:
        """Drain; on return everything is in the ledger. Raises what ended it.

        The sources must have been bound to the route (Ledger.bind).
        """
        last = await self.ledger.last_activity(str(self.orders.route))
        self._throttle.resume(None if last is None else utcnow() - last)
        async with self.telling or nullcontext():
            await self._drain()
        await self._leave_breakers()
        if self._error is not None:
            raise self._error
        await self._check_ownership()

    async def _drain(self) -> None:
        """Send what is to be sent, and do all that runs beside that."""
        await self._take_up()
        async with asyncio.TaskGroup() as group:
            lease = group.create_task(self._guarded(self.ledger.keep_lease()))
            steering = group.create_task(self._guarded(self.steering.run()))
            asking = group.create_task(self._guarded(self.steering.loads.run()))
            renewal = group.create_task(self._guarded(self._leases.keep()))
            probing = group.create_task(self._guarded(self._probing.run()))
            gathering = group.create_task(self._guarded(self._gather()))
            acknowledging = group.create_task(self._guarded(self._acknowledger.run()))
            tidying = group.create_task(self._guarded(self._tidy()))
            numbers = range(self.orders.connections)
            lanes = [group.create_task(self._sessions.lane(n)) for n in numbers]
            await self._feed.run(self._guarded)
            self.close()
            await self._finish(lanes)
            for side in (steering, asking, renewal, probing, gathering):
                side.cancel()
            await self._guarded(self._report())
            lease.cancel()
            self._acknowledger.close()
            await acknowledging
            if self._tidier is not None:
                self._tidier.close()
            await tidying

    def stop(self) -> None:
        """End soon: claim nothing more, let each session finish its message."""
        self.tally.interrupted = True
        if self.telling is not None:
            self.telling.close()
        self.close()

    def close(self) -> None:
        """End in order: nothing more is begun."""
        self._feed.close()
        self._throttle.close()
        self.keeper.wake()
        self._sessions.cancel_opening()

    async def _take_up(self) -> None:
        """Go on where the breakers stood, and let what is ripe be confirmed."""
        first_run = await self._probing.recall()
        confirm_after = self.orders.confirm_after
        if confirm_after is None:
            confirm_after = usual_confirm_after(utcnow() - first_run)
        schedule = replace(self.orders.schedule, confirm_after=confirm_after)
        self._policy = RetryPolicy(schedule=schedule, rules=self.orders.rules)
        if self.telling is not None and not self.orders.scans:
            await self.telling.gather_once()  # it is for this that a person runs it
        looked = self.telling is not None
        await self._probing.confirm(self.orders.brake, looked=looked)

    async def _gather(self) -> None:
        if self.telling is not None:
            await self.telling.gather()

    async def _tidy(self) -> None:
        if self._tidier is not None:
            await self._tidier.run()

    async def _report(self) -> None:
        if self.telling and not self.tally.interrupted and self._error is None:
            await self.telling.finish()

    async def _leave_breakers(self) -> None:
        """Bring what the breakers came to into the ledger."""
        if not self.tally.interrupted and self._error is None:
            self.keeper.end()
        await self._guarded(self._probing.settle_moves())

    async def _finish(self, lanes: list[asyncio.Task[None]]) -> None:
        """Wait for the sessions; after a signal only for the grace."""
        pending: set[asyncio.Task[None]] = set(lanes)
        while pending:
            ending = self.tally.interrupted or self._error is not None
            limit = self.orders.grace if ending else LOOK_AGAIN
            _, pending = await asyncio.wait(pending, timeout=limit.total_seconds())
            if ending:
                break
        for late in pending:
            late.cancel()

    async def _check_ownership(self) -> None:
        if self.tally.claimed or self.tally.interrupted:
            return
        owned = await self.ledger.owned_elsewhere(self._urls)
        if owned or await self._leases.elsewhere():
            message = "another drain works on this source and left nothing to claim"
            raise OwnedElsewhere(message, hint="`drainer status` shows how it stands")

    async def _guarded(self, doing: Coroutine[Any, Any, None]) -> None:
        """Run a side task; its failure ends the drain in order, not at once."""
        try:
            await doing
        except DrainerError as error:
            self.failed(error)

    # --- the lanes' means

    def new_lane(self) -> DeliveryWorker:
        """Return what feeds a new session."""
        return DeliveryWorker(
            backlog=self._backlog,
            ledger=self.ledger,
            throttle=self._throttle,
            policy=self._policy,
            watcher=self,
            leases=self._leases,
            standing=self.keeper.scopes,
            bouncer=self.telling.bouncer if self.telling else None,
            idle=self.orders.route.timeouts.idle,
        )

    def note(self, decision: Decision) -> None:
        """Write a decision down."""
        try:
            self.ledger.note(decision)
        except LedgerLost as error:
            self.failed(error)

    def _bring_back(self) -> None:
        """Give out again what was set aside.

        Messages that probe are drawn from all that wait: a stranger may have sent
        many in a row.
        """
        self._backlog.bring_back()
        if self.keeper.probes and self.orders.choice.order is None:
            self._backlog.shuffle()

    def _heed_breakers(self) -> None:
        self._bring_back()
        if self.keeper.refuses:
            self.close()

    # --- told by the lanes (deliver.Watcher)

    def flowing(self, *, behind: bool = False) -> bool:
        """Whether this lane's session may begin another message."""
        return not self._sessions.surplus and self.keeper.flowing(behind=behind)

    def barred(self, work: Transaction) -> Mapping[str, str]:
        """Return recipient domains that wait behind their breaker."""
        return self.keeper.barred(each.domain for each in work.job.claimed)

    def unused(self, work: Transaction) -> None:
        """Take note that admitted work was not begun after all."""
        self.keeper.unused(each.domain for each in work.job.claimed)

    def observe(
        self, work: Transaction, judged: Sequence[ClassifiedResult], now: datetime
    ) -> None:
        """Let the breakers look at an attempt before it is settled."""
        sender = work.job.message.envelope.reverse_path
        lasted = timedelta(seconds=time.monotonic() - work.started)
        if self.keeper.observe(judged, sender, now, lasted=lasted):
            self._bring_back()
        dot, rcpt = work.seconds_for_dot, work.seconds_for_rcpt
        if dot is not None:
            self.keeper.scopes.took(dot, now)
            self.tally.pulse.saw("dot", dot)
        if rcpt is not None:
            self.tally.pulse.saw("rcpt", rcpt)
        self.steering.observe(work, judged, dot=dot, rcpt=rcpt)

    def settled(self, work: Transaction, settlements: tuple[Settlement, ...]) -> None:
        """Count what became of an attempt."""
        delivered = False
        for settlement in settlements:
            verdict = settlement.judgement.verdict
            self.tally.verdicts[verdict] += 1
            delivered = delivered or verdict is Verdict.DELIVER
        if delivered:
            self.tally.count_sent(work.job.seq)
            self.tally.sent_bytes += work.facts.size_bytes
            self.tally.last_success = utcnow()
        if any(s.judgement.rule == "rcpt-too-many" for s in settlements):
            taken = sum(1 for s in settlements if s.stage is not Stage.RCPT)
            self._intake.max_recipients = max(1, taken)

    def recorded(self, work: Transaction, settlements: tuple[Settlement, ...]) -> None:
        """Let the source be told, now that the outcome is durable."""
        if self._tidier is not None:
            self._tidier.consider(work, settlements)
        if self.orders.acknowledge:
            self._acknowledger.consider(work, settlements)

    def defect(self, error: Exception) -> None:
        """Count a failure of our own; the third ends the drain."""
        self.tally.defects += 1
        if self.tally.defects >= MAX_DEFECTS:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """End the drain: nothing more may be sent."""
        if self._error is None:
            self._error = error
        self.close()
