"""What a worker reads and writes in its ledger, in parts by subject.

Each method is a function of another module, which the writer calls with its connection:
``by_writer`` names it. ``stamped`` also gives it whose work this is, and when. The
result is a future, done when what was written is durable. It need not be awaited.
"""

import asyncio
import functools
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from drainer.ledger import (
    breaker_waits,
    breakers,
    claims,
    corrections,
    messages,
    overrides,
    route_assignment,
    route_shares,
    runs,
    scan_answers,
    unknown_recipients,
)
from drainer.ledger.owner import RENEW_EVERY
from drainer.ledger.query import quarantine
from drainer.ledger.records import ScanRow, WriterIdentity, WriteStamp, to_micros
from drainer.ledger.reports import evidence, outbox, success_reports
from drainer.ledger.writer.batch import WriterCall
from drainer.ledger.writer.client import WriterClient
from drainer.policy.admission.identity import ScanContext

P = ParamSpec("P")
T = TypeVar("T")


class LedgerPart:
    """One subject of a ledger."""

    def __init__(self, writer: WriterClient, identity: WriterIdentity) -> None:
        """Write through ``writer``."""
        self._writer = writer
        self._identity = identity

    def call(
        self,
        function: Callable[Concatenate[sa.Connection, P], T],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> asyncio.Future[T]:
        """Call a function in the writer, with its connection."""
        return self._writer.submit(WriterCall(function, arguments, named))

    def stamp(self) -> WriteStamp:
        """Return whose work this is, and when: now."""
        now = to_micros(datetime.now(UTC))
        return WriteStamp(owner=self._identity.owner, run=self._identity.run, now=now)


def by_writer(
    function: Callable[Concatenate[sa.Connection, P], T],
) -> Callable[Concatenate[LedgerPart, P], asyncio.Future[T]]:
    """Return the method that lets the writer call a function."""

    @functools.wraps(function)
    def method(
        part: LedgerPart, /, *arguments: P.args, **named: P.kwargs
    ) -> asyncio.Future[T]:
        return part.call(function, *arguments, **named)

    return method


def stamped(
    function: Callable[Concatenate[sa.Connection, WriteStamp, P], T],
) -> Callable[Concatenate[LedgerPart, P], asyncio.Future[T]]:
    """Return such a method of a function that takes a stamp."""

    @functools.wraps(function)
    def method(
        part: LedgerPart, /, *arguments: P.args, **named: P.kwargs
    ) -> asyncio.Future[T]:
        return part.call(function, part.stamp(), *arguments, **named)

    return method


class MessageLedger(LedgerPart):
    """Messages and their recipients: scanned, claimed, finished."""

    hold_unknown = stamped(unknown_recipients.hold)
    release_known = stamped(unknown_recipients.release)
    claim = stamped(claims.claim)
    claim_these = stamped(claims.claim_these)
    free = stamped(claims.free)
    next_due = stamped(claims.next_due)
    unfinished = by_writer(claims.count_unfinished)
    stopped_states = by_writer(claims.stopped_states)
    owned_elsewhere = stamped(claims.count_owned_elsewhere)
    finished = by_writer(messages.find_finished)
    acknowledged = stamped(messages.record_acknowledged)

    async def record(
        self,
        listings: Sequence[ScanRow],
        scan: ScanContext,
        routes: Collection[str],
        most: int | None = None,
    ) -> messages.RecordedBatch:
        """Record a part of a scan; return new messages claimed for these routes.

        At most ``most`` of them; the rest waits in the ledger, unclaimed.
        """
        outcome = await self.call(
            messages.record,
            self.stamp(),
            [(listing.message, listing.recipients) for listing in listings],
            scan,
            messages.NewClaims(frozenset(routes), most),
        )
        return messages.find_recorded_part(outcome, listings, routes)


class BreakerLedger(LedgerPart):
    """Circuit breakers, what waits for them, and pending bounces."""

    recall = stamped(breakers.recall)
    keep = stamped(breakers.keep)
    opened = stamped(breaker_waits.take_back_waiting)
    detain = stamped(breaker_waits.detain)
    closed = stamped(breaker_waits.make_waiting_due)
    wake_one = by_writer(breaker_waits.wake_one)
    find_due_bounces = stamped(breaker_waits.find_due_bounces)
    retry_due_bounces = stamped(breaker_waits.retry_due_bounces)
    retry_refused = stamped(corrections.retry_refused)
    hold_group = stamped(corrections.hold_group)
    held_groups = by_writer(corrections.find_held_groups)
    probe_group = stamped(corrections.probe_group)
    release_group = stamped(corrections.release_group)


class ReportLedger(LedgerPart):
    """Evidence about senders, and reports to them."""

    lacking_evidence = stamped(evidence.find_unproven)
    keep_evidence = stamped(evidence.keep_evidence)
    asked = stamped(success_reports.find_requested)
    answer = stamped(success_reports.answered)
    needless = by_writer(quarantine.find_needless)
    due_senders = stamped(outbox.due_senders_of)
    take = stamped(outbox.take)
    end = stamped(outbox.ended)


class RunLedger(LedgerPart):
    """Runs: the routes of their recipients, and their share of a route's rate."""

    assign = stamped(route_assignment.assign)
    last_activity = stamped(route_shares.last_activity)
    outlook = stamped(overrides.outlook)
    take_share = stamped(route_shares.take_share)
    renew = stamped(runs.renew)

    async def keep_lease(self) -> None:
        """Renew the lease without end; run it as a task."""
        while True:
            await asyncio.sleep(RENEW_EVERY.total_seconds())
            await self.renew()


class ScanLedger(LedgerPart):
    """The answers of content scanners."""

    answers = by_writer(scan_answers.answers_of)
    keep = stamped(scan_answers.keep_answer)
