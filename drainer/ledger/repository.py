"""Ledger: what a worker remembers, on SQLAlchemy.

Every coroutine returns when what it wrote is durable. ``submit`` returns a future
and ``settle`` tells a function instead: sessions let the network work meanwhile.
"""

import asyncio
import functools
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import URL

from drainer.errors import LedgerLost
from drainer.ledger import (
    breaker_waits,
    breakers,
    claims,
    engine,
    messages,
    overrides,
    runs,
)
from drainer.ledger.codec import decision_row
from drainer.ledger.owner import RENEW_EVERY, Owner, wait_for_last_commits
from drainer.ledger.query import quarantine
from drainer.ledger.records import (
    AttemptEnd,
    AttemptStart,
    Decision,
    Row,
    ScanRow,
    from_micros,
    to_micros,
)
from drainer.ledger.reports import evidence, limits, outbox, success_reports
from drainer.ledger.reserve import Reserve, place_of, records_of
from drainer.ledger.writer.batch import (
    DecisionRows,
    WriterCall,
    WriterIdentity,
    opening,
)
from drainer.ledger.writer.client import Then, WriterClient
from drainer.policy.admission.identity import ScanContext
from drainer.policy.breaker.breaker import CircuitBreaker
from drainer.policy.pacing.overrides import ActiveOverrides
from drainer.policy.recipient.delivery import Delivery
from drainer.policy.recipient.judge import BouncePermit
from drainer.policy.recipient.settle import FAR
from drainer.policy.recipient.state import CLAIMABLE, State
from drainer.runtime.workers import WorkerProcess

T = TypeVar("T")


def _now() -> int:
    return to_micros(datetime.now(UTC))


class Ledger:
    """The ledger of one worker process."""

    def __init__(
        self,
        url: URL,
        locks: Path,
        *,
        unknown: timedelta,
        at_hand: WorkerProcess | None = None,
    ) -> None:
        """Open or create the ledger and take an owner's lock in ``locks``.

        ``unknown`` is how long a recipient in doubt rests, ``at_hand`` a helper that
        may write. Raises LedgerError as engine.connect does.
        """
        self._unknown = unknown
        self.url = url
        self._engine = engine.connect(url, create=True)
        self._owner = Owner.acquire(locks)
        self.reserve = Reserve(self._owner, place_of(self._engine, url))
        self.run_id = uuid.uuid4().hex
        self._identity = WriterIdentity(owner=self._owner.id, run=self.run_id)
        self._writer = WriterClient(url, self.run_id, self._owner.descriptor, at_hand)
        self.has_failed = self._writer.has_failed

    @property
    def commits(self) -> int:
        """How many transactions were committed so far."""
        return self._writer.commits

    def expect(self, sessions: int) -> None:
        """Tell how many sessions share a commit; a third of them make it worth one.

        If it took all of them, they would wait for it together, and it for them.
        """
        self._writer.quorum = max(1, sessions * 2 // 3)

    async def start(self, route: str) -> runs.RunStart:
        """Begin a run: announce the owner, take over from dead ones."""
        with engine.opening(self.url), self._engine.connect() as connection:
            await wait_for_last_commits(connection)
        await self._writer.start()
        now, left = _now(), self.reserve.unread()
        begun = await self._call(
            runs.begin,
            owner=self._owner.row(now) | {"route": route},
            identity=self._identity,
            due=now + self._unknown // timedelta(microseconds=1),
            reserved=list(records_of(left)),
        )
        self.reserve.put_away(left)
        return begun

    async def bind(self, sources: Iterable[str], route: str) -> None:
        """Bind sources to their primary; UsageError when it is another one."""
        await self._call(runs.bind, sources=list(sources), route=route, now=_now())

    async def record(
        self, listings: Sequence[ScanRow], scan: ScanContext, most: int | None = None
    ) -> messages.RecordedBatch:
        """Write down a part of a scan; new messages come back claimed.

        At most ``most`` of them; the rest waits in the ledger, unclaimed.
        """
        outcome = await self._call(
            messages.record,
            listings=[(listing.message, listing.recipients) for listing in listings],
            scan=scan,
            claim=(self._identity, most),
            now=_now(),
        )
        return messages.recorded_part(outcome, listings)

    async def claim(
        self,
        sources: Sequence[str],
        until: datetime,
        *,
        tried: bool = False,
        twins: bool = True,
    ) -> list[Delivery]:
        """Claim what is due now, and fell due by ``until``.

        ``tried`` leaves alone what was never tried; without ``twins``, so does it
        messages that only their locators name.
        """
        states = [s for s in CLAIMABLE if s is not State.PENDING or not tried]
        wanted = claims.ClaimRequest(
            sources=sources,
            due=min(_now(), to_micros(until)),
            states=states,
            twins=twins,
        )
        return await self._call(claims.claim, wanted=wanted, owner=self._owner.id)

    async def claim_these(self, seqs: Sequence[int], until: datetime) -> list[Delivery]:
        """Claim what is due likewise of these messages, in this order."""
        due = min(_now(), to_micros(until))
        return await self._call(
            claims.claim_these, seqs=list(seqs), due=due, owner=self._owner.id
        )

    def free(self, seq: int) -> None:
        """End the claim on a message of which nothing is under way any more."""
        call = functools.partial(claims.free, seq=seq, owner=self._owner.id)
        self._writer.submit(WriterCall(call))

    async def next_due(self, sources: Sequence[str]) -> int | None:
        """Return when a pending or deferred recipient is due, in microseconds."""
        states = (State.PENDING, State.DEFERRED)
        return await self._call(claims.next_due, sources=sources, states=states)

    async def unfinished(self, sources: Sequence[str]) -> int:
        """Return how many messages of these sources have recipients to try."""
        return await self._call(claims.unfinished, sources=sources)

    async def owned_elsewhere(self, sources: Sequence[str]) -> int:
        """Return how many messages of these sources another owner works on."""
        return await self._call(
            claims.owned_elsewhere, sources=sources, owner=self._owner.id
        )

    def submit(self, operation: AttemptStart | AttemptEnd) -> asyncio.Future[None]:
        """Write an attempt's in-flight rows, or its outcome.

        The future is done when that is durable. It raises Conflict when the
        recipients are in another state than claimed: somebody else was there.
        """
        return self._writer.submit(self._rows(operation))

    def settle(self, closed: AttemptEnd, then: Then) -> None:
        """Write an attempt's outcome likewise; ``then`` is called when it is durable.

        What the ledger cannot take goes to the reserve.
        """
        then = functools.partial(self.reserve.on_settled, closed, then)
        try:
            self._writer.post(self._rows(closed), then)
        except LedgerLost:
            self.reserve.keep(closed)
            raise

    def _rows(self, operation: AttemptStart | AttemptEnd) -> object:
        match operation:
            case AttemptStart():
                return opening(operation, self._identity)
            case AttemptEnd():
                return limits.ending(operation, self._identity)

    def note(self, *decisions: Decision) -> asyncio.Future[None]:
        """Append decisions that belong to no attempt."""
        rows = [decision_row(decision, self.run_id) for decision in decisions]
        return self._writer.submit(DecisionRows(rows))

    async def finished(self, ids: Sequence[str]) -> dict[str, bool]:
        """Return those whose recipients are all final; True where there is a twin."""
        return await self._call(messages.finished, ids=ids)

    async def acknowledged(self, ids: Sequence[str]) -> None:
        """Remember that the source has dropped these messages."""
        await self._call(messages.acknowledged, ids=ids, run=self.run_id, now=_now())

    async def last_activity(self, route: str) -> datetime | None:
        """Return until when another run may have sent to this route."""
        found = await self._call(
            runs.last_activity, route=route, run=self.run_id, now=_now()
        )
        return None if found is None else from_micros(found)

    async def outlook(self, most: int) -> tuple[float, ActiveOverrides]:
        """Return what this run should have of its route's rate, 0 to 1; what holds.

        At most ``most`` runs share it; the others have to wait.
        """
        share, in_force = await self._call(
            overrides.outlook, run=self.run_id, most=most, now=_now()
        )
        return share / runs.WHOLE, in_force

    async def take_share(self, share: float) -> float:
        """Take a share of the rate; return how much the other runs have left.

        Lower the own rate before telling a smaller share, never after.
        """
        wanted = int(share * runs.WHOLE)
        taken = await self._call(
            runs.take_share, run=self.run_id, wanted=wanted, now=_now()
        )
        return taken / runs.WHOLE

    # --- the breakers

    async def recall(self, route: str) -> breakers.RouteMemory:
        """Return a route's breakers as the last run left them, and what it knew."""
        return await self._call(breakers.recall, route=route, now=_now())

    async def keep_breaker(self, route: str, breaker: CircuitBreaker) -> None:
        """Write a breaker down."""
        await self._call(breakers.keep, route=route, breaker=breaker, now=_now())

    async def breaker_opened(
        self, sources: Sequence[str], breaker: CircuitBreaker
    ) -> int:
        """Take back the refusals behind a breaker that opened; return how many."""
        now = _now()
        return await self._call(
            breaker_waits.opened,
            behind=breaker_waits.WaitingScope(sources, breaker.scope),
            run=self.run_id,
            breaker=breaker,
            times=(now, now + FAR // timedelta(microseconds=1)),
        )

    async def breaker_closed(self, sources: Sequence[str], scope: str) -> None:
        """Make due what waited for a breaker that closed."""
        behind = breaker_waits.WaitingScope(sources, scope)
        await self._call(breaker_waits.closed, behind=behind, now=_now())

    async def wake_one(
        self, sources: Sequence[str], scope: str, since: datetime
    ) -> bool:
        """Make one that waits for a breaker due now, to probe with; False = none.

        Those that were tried since then are none.
        """
        behind = breaker_waits.WaitingScope(sources, scope)
        return await self._call(
            breaker_waits.wake_one, behind=behind, since=to_micros(since)
        )

    async def ripen(
        self,
        sources: Sequence[str],
        brake: breaker_waits.Brake,
        *,
        dry: bool = False,
        looked: bool = False,
    ) -> breaker_waits.DueConfirmations:
        """Let refusals whose confirmation delay is over be tried again."""
        return await self._call(
            breaker_waits.ripen,
            sources=sources,
            how=breaker_waits.ConfirmationCheck(brake, looked=looked, dry=dry),
            identity=(self.run_id, _now()),
        )

    # --- bounces

    async def lacking_evidence(
        self, sources: Sequence[str], limit: int, but: Sequence[int] = ()
    ) -> list[Row]:
        """Return messages with a refusal of whose sender too little is known."""
        which = evidence.MissingEvidence(sources, limit, but)
        return await self._call(evidence.lacking, which=which, now=_now())

    async def keep_evidence(self, seq: int, found: Row) -> None:
        """Write down what was found about a sender (evidence.stored)."""
        row = {"message": seq, **found}
        await self._call(evidence.keep_evidence, row=row, now=_now())

    async def asked_reports(
        self, sources: Sequence[str]
    ) -> list[success_reports.SuccessReportRequest]:
        """Return reports of deliveries that the bounce rules may be asked about now."""
        return await self._call(success_reports.asked, sources=sources, now=_now())

    async def answer_reports(
        self,
        answers: Sequence[tuple[success_reports.SuccessReportRequest, BouncePermit]],
    ) -> None:
        """Write down what the bounce rules said of them."""
        await self._call(
            success_reports.answered, answers=answers, run=self.run_id, now=_now()
        )

    async def needless(self, ids: Sequence[str]) -> list[str]:
        """Return those of the messages of which no copy is needed any more."""
        return await self._call(quarantine.needless_now, ids=ids)

    async def due_senders(self, waits: outbox.ReportDelays) -> list[str]:
        """Return who gets the reports that are due now."""
        return await self._call(outbox.due_senders, waits=waits, now=_now())

    async def take_report(
        self, waits: outbox.ReportDelays, hostname: str
    ) -> outbox.QueuedReport | None:
        """Begin an attempt to send the next report that is due; None when none is."""
        return await self._call(
            outbox.take,
            waits=waits,
            identity=self._identity,
            now=_now(),
            hostname=hostname,
        )

    async def end_report(
        self, queued: outbox.QueuedReport, ending: outbox.ReportResult
    ) -> None:
        """Write down what became of that attempt."""
        about = {"queued": queued, "ending": ending, "identity": self._identity}
        await self._call(outbox.ended, now=_now(), **about)

    async def keep_lease(self) -> None:
        """Renew the lease for ever; run it as a task."""
        while True:
            await asyncio.sleep(RENEW_EVERY.total_seconds())
            await self._call(runs.renew, owner=self._owner.id, now=_now())

    async def sync(self) -> None:
        """Return when all that was submitted is durable, for others to read."""
        await self._call(runs.renew, owner=self._owner.id, now=_now())

    async def finish(self, exit_code: int) -> None:
        """End the run: give claims back, note the end, drop the owner."""
        await self._call(
            runs.end,
            identity=self._identity,
            ending=(exit_code, self.commits),
            now=_now(),
            rest=self._unknown,
        )

    async def stop(self) -> None:
        """Commit what is queued, end the writer, free the lock."""
        await self._writer.stop()
        self.reserve.release()
        self._owner.release()
        self._engine.dispose()

    async def _call(self, function: Callable[..., T], **arguments: object) -> T:
        """Let the writer call a function with its connection."""
        call = WriterCall(functools.partial(function, **arguments))
        result: T = await self._writer.submit(call)
        return result
