"""The drain: one task group that scans, sends, tries again and acknowledges.

It ends when every recipient is final or waits for something that a drain does
not wait for; when the primary refuses us (the gate opens); when the ledger
cannot be written; or when it is told to stop: then it claims nothing more and
lets the sessions finish their message.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from drainer.acknowledge import Acknowledger
from drainer.backlog import Backlog
from drainer.deliver import Lane, utcnow
from drainer.errors import LedgerUnwritable, OwnedElsewhere, UsageError
from drainer.intake import Intake, next_batch
from drainer.ledger import Decision, Kind, from_micros
from drainer.ledger.sql import Ledger
from drainer.mail.envelope import domain_of
from drainer.mail.reply import Stage
from drainer.policy import gate as gates
from drainer.policy.admit import Admission
from drainer.policy.classify import Verdict, classify
from drainer.policy.gate import Gate, GateState
from drainer.policy.job import Job
from drainer.policy.schedule import Schedule
from drainer.policy.settle import Settlement
from drainer.policy.throttle import Rate, ramp_window
from drainer.smtp import Route
from drainer.smtp.check import own_name
from drainer.smtp.connect import Connection, Failed, connect
from drainer.smtp.session import Session, Work
from drainer.smtp.throttle import Throttle
from drainer.sources import Source

BACKLOG = 400
MAX_DEFECTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a drain is told to do."""

    route: Route
    admission: Admission
    schedule: Schedule
    connections: int
    messages: Rate | None
    octets: Rate | None
    ramp: timedelta
    pauses: tuple[timedelta, ...]
    give_up_after: timedelta
    #: How long sessions may go on after the first signal.
    grace: timedelta = timedelta(seconds=30)
    acknowledge: bool = True


@dataclass(slots=True)
class Tally:
    """What a drain has done so far, for the progress line and the summary."""

    started: datetime
    scanned: int = 0
    known: int = 0
    scanning: bool = True
    sent_messages: int = 0
    sent_bytes: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    last_success: datetime | None = None
    connections: int = 0
    #: What the drain waits for, in words; '' while it works.
    waiting: str = ""
    interrupted: bool = False
    defects: int = 0
    in_doubt: int = 0
    claimed: int = 0


class Drain:
    """One run over some sources to one primary."""

    def __init__(
        self, orders: Orders, sources: Sequence[Source], ledger: Ledger
    ) -> None:
        """Prepare; nothing is read or written before ``run``."""
        self.orders = orders
        self.ledger = ledger
        self.tally = Tally(started=utcnow())
        self.gate = Gate(pauses=orders.pauses)
        self._sources = {source.url: source for source in sources}
        self._urls = list(self._sources)
        self._intake = Intake(
            self._sources, orders.admission, orders.route.max_recipients
        )
        self._backlog = Backlog(BACKLOG)
        self._acknowledger = Acknowledger(ledger, self._sources)
        self._gate_moved = asyncio.Event()
        self._probing = False
        self._error: Exception | None = None
        self._throttle = Throttle(None, None)
        self._tasks: list[asyncio.Task[None]] = []

    # --- the run

    async def run(self) -> None:
        """Drain; on return everything is in the ledger. Raises what ended it."""
        await self.ledger.bind(self._urls, str(self.orders.route))
        self._throttle = await self._limits()
        await self._throttle.start()
        async with asyncio.TaskGroup() as group:
            lease = group.create_task(self.ledger.keep_lease())
            acknowledging = group.create_task(self._acknowledger.run())
            self._tasks = [
                group.create_task(self._lane(n)) for n in range(self.orders.connections)
            ]
            await self._flow()
            self._backlog.close()
            await self._finish_lanes()
            lease.cancel()
            self._acknowledger.close()
            await acknowledging
        if self._error is not None:
            raise self._error
        await self._check_ownership()

    def stop(self) -> None:
        """End soon: claim nothing more, let each session finish its message."""
        self.tally.interrupted = True
        self._backlog.close()
        self._move_gate(self.gate)

    async def _limits(self) -> Throttle:
        last = await self.ledger.last_activity(str(self.orders.route))
        level = 0.0
        if last is not None and self.orders.messages is not None:
            level = self.orders.messages.level_after(utcnow() - last)
        return Throttle(self.orders.messages, self.orders.octets, level=level)

    async def _finish_lanes(self) -> None:
        grace = None
        if self.tally.interrupted or self._error is not None:
            grace = self.orders.grace.total_seconds()
        _, late = await asyncio.wait(self._tasks, timeout=grace)
        while not late and not all(task.done() for task in self._tasks):
            _, late = await asyncio.wait(self._tasks, timeout=grace)
        for task in late:
            task.cancel()

    async def _check_ownership(self) -> None:
        if self.tally.claimed or self.tally.interrupted:
            return
        if await self.ledger.owned_elsewhere(self._urls):
            message = "another drain works on this source and left nothing to claim"
            raise OwnedElsewhere(message, hint="`drainer status` shows how it stands")

    # --- work in

    async def _flow(self) -> None:
        """Feed the lanes until nothing is left that this drain waits for."""
        try:
            for source in self._sources.values():
                await self._scan(source)
            self.tally.scanning = False
            while not self._backlog.closed and await self._feed_due():
                pass
        except LedgerUnwritable as error:
            self.failed(error)

    async def _scan(self, source: Source) -> None:
        scan = source.scan()
        while not self._backlog.closed:
            batch = await asyncio.to_thread(next_batch, scan, self.orders.admission)
            if not batch:
                return
            recorded = await self.ledger.record(batch)
            self.tally.scanned += len(batch)
            self.tally.known += recorded.known
            self._acknowledger.offer(recorded.finished)
            for job in recorded.jobs:
                await self._put(job)

    async def _put(self, job: Job) -> None:
        self.tally.claimed += 1
        if job.spooled is not None:
            works = list(self._intake.works(job))
        else:
            works = await asyncio.to_thread(lambda: list(self._intake.works(job)))
        for work, problem in works:
            if problem is None:
                await self._backlog.put(work)
            else:
                self._backlog.count(work)
                self._new_lane().refuse(work, problem)

    async def _feed_due(self) -> bool:
        """Claim what is due, or wait for it; False when this drain is done."""
        self._backlog.settled.clear()
        jobs = await self.ledger.claim(self._urls)
        for job in jobs:
            await self._put(job)
        if jobs:
            return True
        if self._backlog.outstanding:
            await self._wait_for_event(timedelta(seconds=5))
            return True
        due = await self.ledger.next_due(self._urls)
        now = utcnow()
        if due is None or self._backlog.closed:
            return False
        wait = from_micros(due) - now
        if now + wait > self._deadline():
            return False
        self.tally.waiting = f"next retry in {max(0, wait.total_seconds()):.0f} s"
        await self._wait_for_event(max(wait, timedelta(milliseconds=20)))
        self.tally.waiting = ""
        return True

    def _deadline(self) -> datetime:
        since = self.tally.last_success or self.tally.started
        return since + self.orders.give_up_after

    async def _wait_for_event(self, limit: timedelta) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit.total_seconds()):
                await self._backlog.settled.wait()

    # --- lanes

    async def _lane(self, n: int) -> None:
        """Open sessions while there is work and the gate lets them pass."""
        while await self._backlog.wait():
            await self._ramp(n)
            if not await self._pass_gate():
                continue
            try:
                await self._session()
            finally:
                if self.gate.state is GateState.PROBING:
                    self._probing = False
                    self._move_gate(self.gate)

    async def _ramp(self, n: int) -> None:
        """Hold the later lanes back during the first minutes."""
        while not self._backlog.closed:
            elapsed = utcnow() - self.tally.started
            if n < ramp_window(elapsed, self.orders.ramp, self.orders.connections):
                return
            await self._wait_gate_moved(timedelta(seconds=1))

    async def _session(self) -> None:
        answer = await connect(self.orders.route)
        if isinstance(answer, Failed):
            self._not_connected(answer)
            return
        if own_name(answer, self.orders.route):
            self._fail_loop(answer)
            answer.wire.close()
            return
        self._note_connection(answer)
        self.tally.connections += 1
        self.ledger.expect(self.tally.connections)
        lane = self._new_lane()
        try:
            await Session(answer, self.orders.route).run(lane)
        except Exception as error:  # noqa: BLE001 - a defect of ours: held, loudly
            self._defect(error)
        finally:
            self.tally.connections -= 1
            self.ledger.expect(self.tally.connections)

    def _new_lane(self) -> Lane:
        return Lane(
            backlog=self._backlog,
            ledger=self.ledger,
            throttle=self._throttle,
            schedule=self.orders.schedule,
            watcher=self,
            idle=self.orders.route.timeouts.idle,
        )

    def _defect(self, error: Exception) -> None:
        self.tally.defects += 1
        if self.tally.defects >= MAX_DEFECTS:
            self.failed(error)

    # --- the gate

    async def _pass_gate(self) -> bool:
        """Wait until this lane may open a session; False when it is over."""
        while not self._backlog.closed:
            now = utcnow()
            self.gate = gates.probe(self.gate, now)
            match self.gate.state:
                case GateState.CLOSED:
                    return True
                case GateState.PROBING if not self._probing:
                    self._probing = True
                    return True
                case GateState.PAUSED if (self.gate.until or now) > self._deadline():
                    self._open_gate("nothing was accepted for too long")
                case _:
                    until = self.gate.until or now
                    wait = max(until - now, timedelta(milliseconds=50))
                    self.tally.waiting = f"paused: {self.gate.reply}"
                    await self._wait_gate_moved(wait)
                    self.tally.waiting = ""
        return False

    async def _wait_gate_moved(self, limit: timedelta) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit.total_seconds()):
                await self._gate_moved.wait()

    def _move_gate(self, gate: Gate) -> None:
        self.gate = gate
        if gate.state is not GateState.PROBING:
            self._probing = False
        self._gate_moved.set()
        self._gate_moved = asyncio.Event()

    def _open_gate(self, why: str) -> None:
        self._move_gate(gates.give_up(self.gate))
        self.tally.waiting = why
        self._backlog.close()

    def _not_connected(self, failed: Failed) -> None:
        step = failed.steps[-1]
        judgement = classify(step.answer, step.stage)
        reply = f"{step.stage}: {step.answer}"
        self._note(
            Decision(
                at=utcnow(),
                kind=Kind.CONNECTION,
                rule=judgement.rule,
                verdict=judgement.verdict.value,
                reply=str(step.answer),
                evidence={"reason": judgement.reason, "stage": step.stage.value},
            )
        )
        moved = gates.refused_early(self.gate, judgement, reply, utcnow())
        self._take_gate(moved)

    def _take_gate(self, moved: Gate) -> None:
        if moved is self.gate:
            return
        self._move_gate(moved)
        self._note_gate()
        if moved.state is GateState.OPEN:
            self._backlog.close()

    def _note_gate(self) -> None:
        judgement = self.gate.judgement
        self._note(
            Decision(
                at=utcnow(),
                kind=Kind.GATE,
                rule=f"gate-{self.gate.state}",
                verdict="stop" if self.gate.state is not GateState.CLOSED else "",
                reply=self.gate.reply,
                evidence={
                    "reason": judgement.reason if judgement else "",
                    "failures": self.gate.failures,
                },
            )
        )

    def _note_connection(self, connection: Connection) -> None:
        steps = [
            [s.stage.value, int(s.seconds * 1e6), str(s.answer)[:200]]
            for s in connection.steps
        ]
        self._note(
            Decision(
                at=utcnow(),
                kind=Kind.CONNECTION,
                rule="connected",
                reply=str(connection.banner),
                evidence={
                    "address": connection.address,
                    "tls": connection.tls,
                    "steps": steps,
                },
            )
        )

    def _note(self, decision: Decision) -> None:
        try:
            self.ledger.note(decision)
        except LedgerUnwritable as error:
            self.failed(error)

    def _fail_loop(self, connection: Connection) -> None:
        message = (
            f"{self.orders.route} calls itself {connection.peer_name}, which is our"
            " own name: that is a loop, not the primary"
        )
        hint = "check --to; if the name is right, set [primary] helo to another one"
        self.failed(UsageError(message, hint=hint))

    # --- told by the lanes (deliver.Watcher)

    def flowing(self) -> bool:
        """Whether sessions may begin another message."""
        return self.gate.state in (GateState.CLOSED, GateState.PROBING)

    def settled(self, work: Work, settlements: tuple[Settlement, ...]) -> None:
        """Count, and let the gate see what it must."""
        now = utcnow()
        delivered = False
        for settlement in settlements:
            self.tally.verdicts[settlement.judgement.verdict] += 1
            if settlement.judgement.verdict is Verdict.DELIVER:
                delivered = True
            self._learn(settlement, settlements)
        if delivered:
            self.tally.sent_messages += 1
            self.tally.sent_bytes += work.facts.size_bytes
            self.tally.last_success = now
            self._take_gate(gates.succeeded(self.gate))
        stop = next((s for s in settlements if gates.is_stop(s.judgement)), None)
        if stop is not None and stop.judgement.scope.value == "route":
            self._stopped(work, stop, now)

    def _learn(
        self, settlement: Settlement, settlements: tuple[Settlement, ...]
    ) -> None:
        """Learn the primary's limit of recipients (RFC 5321 4.5.3.1.10)."""
        if settlement.judgement.rule == "rcpt-too-many":
            taken = sum(1 for s in settlements if s.stage is not Stage.RCPT)
            self._intake.max_recipients = max(1, taken)

    def _stopped(self, work: Work, stop: Settlement, now: datetime) -> None:
        moved = gates.stopped(
            self.gate,
            stop.judgement,
            stop.reply,
            sender_domain=domain_of(work.job.message.envelope.reverse_path),
            now=now,
        )
        self._take_gate(moved)

    def recorded(self, work: Work, settlements: tuple[Settlement, ...]) -> None:
        """Let the source be told, now that the outcome is durable."""
        if self.orders.acknowledge:
            self._acknowledger.consider(work, settlements)

    def failed(self, error: Exception) -> None:
        """End the drain: nothing more may be sent."""
        if self._error is None:
            self._error = error
        self._backlog.close()
