"""Messages and their recipients: scanned, claimed, finished."""

import functools
from collections.abc import Collection, Sequence
from datetime import datetime

from drainer.ledger import claims, messages, unknown_recipients
from drainer.ledger.part import LedgerPart, now
from drainer.ledger.records import ScanRow, to_micros
from drainer.ledger.route_mail import RouteMail
from drainer.policy.admission.identity import ScanContext
from drainer.policy.recipient.delivery import Delivery
from drainer.policy.recipient.state import CLAIMABLE, State


class MessageLedger(LedgerPart):
    """Messages and their recipients: scanned, claimed, finished."""

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
        outcome = await self._call(
            messages.record,
            listings=[(listing.message, listing.recipients) for listing in listings],
            scan=scan,
            claim=messages.NewClaims(self._identity, frozenset(routes), most),
            now=now(),
        )
        return messages.find_recorded_part(outcome, listings, routes)

    async def hold_unknown(self, review: unknown_recipients.RecipientReview) -> None:
        """Hold recipients that a census finds unknown."""
        run = self._identity.run
        await self._call(unknown_recipients.hold, review=review, run=run, now=now())

    async def release_known(self, review: unknown_recipients.RecipientReview) -> None:
        """Make pending what was held as unknown, and exists."""
        run = self._identity.run
        await self._call(unknown_recipients.release, review=review, run=run, now=now())

    async def claim(
        self,
        mail: RouteMail,
        until: datetime,
        *,
        tried: bool = False,
        twins: bool = True,
    ) -> list[Delivery]:
        """Claim what is due now, and was due by ``until``.

        ``tried`` leaves out what was never tried. Without ``twins`` it also leaves out
        messages that only their locators identify.
        """
        states = [s for s in CLAIMABLE if s is not State.PENDING or not tried]
        wanted = claims.ClaimRequest(
            mail=mail,
            due=min(now(), to_micros(until)),
            states=states,
            twins=twins,
        )
        return await self._call(claims.claim, wanted=wanted, owner=self._identity.owner)

    async def claim_these(
        self, seqs: Sequence[int], until: datetime, route: str
    ) -> list[Delivery]:
        """Claim what a route has due of these messages in the same way, in order."""
        due = min(now(), to_micros(until))
        return await self._call(
            claims.claim_these,
            seqs=list(seqs),
            due=due,
            owner=self._identity.owner,
            route=route,
        )

    def free(self, seq: int) -> None:
        """End the claim on a message of which nothing is under way any more."""
        call = functools.partial(claims.free, seq=seq, owner=self._identity.owner)
        self._submit(call)

    async def next_due(self, mail: RouteMail, *, own: bool) -> int | None:
        """Return when a pending or deferred recipient is due, in microseconds.

        With ``own``, also of messages that other routes of this drain have now.
        """
        states = (State.PENDING, State.DEFERRED)
        owner = self._identity.owner if own else None
        return await self._call(claims.next_due, mail=mail, states=states, owner=owner)

    async def unfinished(self, sources: Sequence[str]) -> int:
        """Return how many messages of these sources have recipients to try."""
        return await self._call(claims.count_unfinished, sources=sources)

    async def stopped_states(self, sources: Sequence[str]) -> dict[State, int]:
        """Return the recipients of these sources that were tried or held, by state."""
        return await self._call(claims.stopped_states, sources=sources)

    async def owned_elsewhere(self, sources: Sequence[str]) -> int:
        """Return how many messages of these sources another owner works on."""
        return await self._call(
            claims.count_owned_elsewhere, sources=sources, owner=self._identity.owner
        )

    async def finished(self, ids: Sequence[str]) -> dict[str, bool]:
        """Return those whose recipients are all final; True where there is a twin."""
        return await self._call(messages.find_finished, ids=ids)

    async def acknowledged(self, ids: Sequence[str]) -> None:
        """Remember that the source has dropped these messages."""
        await self._call(
            messages.record_acknowledged, ids=ids, run=self._identity.run, now=now()
        )
