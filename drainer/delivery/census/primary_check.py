"""The check before a drain: the primary must know the recipients that lists know.

It asks for a part of the listed recipients of the spool, without a message. A primary
that does not know half of them is not ready: nothing is sent to it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from drainer.delivery.census.callout import Callout, spread
from drainer.delivery.census.census import RecipientCensus
from drainer.delivery.census.interview import interview, open_callout
from drainer.delivery.census.recipients import count_spooled
from drainer.delivery.route_delivery import RouteDelivery
from drainer.delivery.settings import DrainSettings
from drainer.errors import DrainerError, PrimaryNotReady
from drainer.ledger.records import Decision, DecisionKind
from drainer.ledger.repository import Ledger
from drainer.mail.envelope import domain_of
from drainer.policy.census.callout import Contradiction, find_contradictions
from drainer.policy.census.existence import LISTED, Existence, ExistenceAnswer
from drainer.runtime.process import utcnow
from drainer.sources.protocol import Source

SCAN_SECONDS = 3.0
"""Listed recipients of a spool are looked for this long. A callout needs all of it."""
ASK_SECONDS = 30.0
MOST_OF_DOMAIN, MOST_DOMAINS = 200, 20
"""Recipients of one domain, and domains of one route, that are asked for."""
HINT = (
    "restore the users of the primary, then run the same command again; if the list is"
    " wrong, correct it, or use --no-census"
)

_Answers = dict[str, ExistenceAnswer]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PrimaryCheck:
    """Asks the primaries of one drain for recipients that the lists have."""

    census: RecipientCensus
    settings: DrainSettings
    ledger: Ledger
    #: Whether the check is to end early.
    is_stopped: Callable[[], bool]

    async def run(
        self, routes: Mapping[str, RouteDelivery], sources: Iterable[Source]
    ) -> None:
        """Leave out the routes whose primary has lost users.

        Raises PrimaryNotReady if no route is left, UsageError if a list cannot be read.
        """
        said = await asyncio.to_thread(self._look_up, sources)
        ready = [each for each in routes.values() if not each.not_ready]
        errors = await asyncio.gather(
            *(self._check(each, said.get(each.name, {})) for each in ready)
        )
        found = [error for error in errors if error is not None]
        if found and len(found) == len(ready):
            raise found[0]
        for error in found:
            _log.warning(f"{error}; drainer sends nothing there")

    def _look_up(self, sources: Iterable[Source]) -> dict[str, _Answers]:
        """Return what the lists say of the recipients of the spool, by route."""
        selection = self.settings.choice.selection
        seconds = None if self.settings.callout else SCAN_SECONDS
        count = count_spooled(sources, selection, seconds=seconds)
        rules = self.settings.admission
        found: dict[str, _Answers] = {}
        for path, target, answer in self.census.look_up(
            [mailbox for mailbox, _ in count.mailboxes()]
        ):
            found.setdefault(rules.route_of(path), {})[target] = answer
        return found

    async def _check(
        self, route: RouteDelivery, answers: _Answers
    ) -> DrainerError | None:
        """Ask the primary of a route; return why it is not ready."""
        error = await self._check_listed(route, _listed_by_domain(answers))
        if error is None and self.settings.callout and not self.is_stopped():
            await self._ask_undecided(route, answers)
        return error

    async def _check_listed(
        self, route: RouteDelivery, domains: Mapping[str, Sequence[str]]
    ) -> DrainerError | None:
        """Ask for some listed recipients of the largest domains."""
        if not domains or self.is_stopped():
            return None
        largest = sorted(domains.values(), key=len, reverse=True)[:MOST_DOMAINS]
        recipients = [each for part in largest for each in spread(part, MOST_OF_DOMAIN)]
        callout = await self._ask(route, recipients)
        samples = {d for d, listed in domains.items() if len(listed) > MOST_OF_DOMAIN}
        found = find_contradictions(recipients, callout.said, samples)
        lost = [each for each in found if each.has_lost_users]
        for each in found:
            await self.ledger.note(_decision(route.name, each))
        if lost:
            words = "; ".join(map(str, lost[:3]))
            message = f"the primary {route.name} has lost users: {words}"
            route.leave_out(message)
            return PrimaryNotReady(message, hint=HINT)
        for each in found:
            _log.warning(f"the primary {route.name}: {each}; is the list stale?")
        return None

    async def _ask(self, route: RouteDelivery, recipients: Sequence[str]) -> Callout:
        route.has_asked = True
        callout = await open_callout(route.settings)
        with suppress(TimeoutError):
            async with asyncio.timeout(ASK_SECONDS):
                await callout.run(recipients, self.is_stopped)
        if callout.ended:
            _log.warning(f"check of listed recipients of {route.name}: {callout.ended}")
        return callout

    async def _ask_undecided(self, route: RouteDelivery, answers: _Answers) -> None:
        """Ask for the recipients of which no list says anything."""
        undecided = {
            mailbox: answer
            for mailbox, answer in answers.items()
            if answer.existence is Existence.CANNOT_TELL
        }
        if not undecided:
            return
        route.has_asked = True
        result = await interview(
            route.settings, undecided, self.ledger.url, self.is_stopped
        )
        if result.ended:
            _log.warning(f"callout at {route.name}: {result.ended}")
        self.census.remember(result.answers)


def _listed_by_domain(answers: _Answers) -> dict[str, list[str]]:
    domains: dict[str, list[str]] = {}
    for mailbox, answer in answers.items():
        if answer.reason == LISTED:
            domains.setdefault(domain_of(mailbox), []).append(mailbox)
    return domains


def _decision(route: str, found: Contradiction) -> Decision:
    """Return the record of a domain whose listed recipients are refused."""
    return Decision(
        at=utcnow(),
        kind=DecisionKind.HEALTH,
        rule="health-census",
        verdict="fail" if found.has_lost_users else "warn",
        reply=found.reply,
        evidence={
            "route": route,
            "stage": f"census {found.domain}",
            "seconds": 0.0,
            "hint": HINT if found.has_lost_users else "is the list stale?",
            "asked": found.asked,
            "refused": len(found.refused),
            "recipients": list(found.refused[:5]),
        },
    )
