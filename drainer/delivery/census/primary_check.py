"""The check before a drain: the primary must know the recipients that lists know.

It asks for a part of the listed recipients of the spool, without a message. A primary
that does not know half of them is not ready: nothing is sent to it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from drainer.delivery.census.callout import Callout, CalloutSettings, spread
from drainer.delivery.census.census import RecipientCensus
from drainer.delivery.census.recipients import count_spooled
from drainer.delivery.route_delivery import RouteDelivery
from drainer.delivery.settings import DrainSettings
from drainer.errors import DrainerError, PrimaryNotReady
from drainer.ledger.records import Decision, DecisionKind
from drainer.ledger.repository import Ledger
from drainer.mail.mailbox import mailbox_key
from drainer.policy.census.callout import Contradiction, find_contradictions
from drainer.runtime.process import utcnow
from drainer.smtp.rate_limiter import RateLimiter
from drainer.sources.protocol import Source

SCAN_SECONDS = 30.0
"""The check reads recipients of the spool for at most this long."""
ASK_SECONDS = 30.0
MOST_OF_DOMAIN, MOST_DOMAINS = 200, 20
"""Recipients of one domain, and domains of one route, that are asked for."""
HINT = (
    "restore the users of the primary, then run the same command again; if the list is"
    " wrong, correct it, or use --no-census"
)

_log = logging.getLogger(__name__)


class PrimaryCheck:
    """Asks the primaries of one drain for recipients that the lists have."""

    def __init__(
        self,
        census: RecipientCensus,
        settings: DrainSettings,
        ledger: Ledger,
        is_stopped: Callable[[], bool],
    ) -> None:
        """Ask nothing yet; end early once ``is_stopped``."""
        self._census = census
        self._settings = settings
        self._ledger = ledger
        self._is_stopped = is_stopped

    async def run(
        self, routes: Mapping[str, RouteDelivery], sources: Iterable[Source]
    ) -> None:
        """Leave out the routes whose primary has lost users.

        Raises PrimaryNotReady if no route is left, UsageError if a list cannot be read.
        """
        listed = await asyncio.to_thread(self._find_listed, sources)
        ready = [each for each in routes.values() if not each.not_ready]
        errors = await asyncio.gather(
            *(self._check(each, listed.get(each.name, {})) for each in ready)
        )
        found = [error for error in errors if error is not None]
        if found and len(found) == len(ready):
            raise found[0]
        for error in found:
            _log.warning(f"{error}; drainer sends nothing there")

    def _find_listed(
        self, sources: Iterable[Source]
    ) -> dict[str, dict[str, list[str]]]:
        """Return listed recipients of the spool by route and domain."""
        selection = self._settings.choice.selection
        count = count_spooled(sources, selection, seconds=SCAN_SECONDS)
        rules = self._settings.admission
        found: dict[str, dict[str, list[str]]] = {}
        for target, path in self._census.listed([m for m, _ in count.mailboxes()]):
            domain = mailbox_key(target).rpartition("@")[2]
            domains = found.setdefault(rules.route_of(path), {})
            domains.setdefault(domain, []).append(target)
        return found

    async def _check(
        self, route: RouteDelivery, domains: Mapping[str, Sequence[str]]
    ) -> DrainerError | None:
        """Ask the primary of a route; return why it is not ready."""
        largest = sorted(domains, key=lambda d: -len(domains[d]))[:MOST_DOMAINS]
        asked = {d: spread(domains[d], MOST_OF_DOMAIN) for d in largest}
        recipients = [each for part in asked.values() for each in part]
        if not recipients or self._is_stopped():
            return None
        callout = await self._ask(route, recipients)
        found = find_contradictions(recipients, callout.said)
        lost = [each for each in found if each.has_lost_users]
        for each in found:
            await self._ledger.note(_decision(route.name, each))
        if lost:
            words = "; ".join(map(str, lost[:3]))
            message = f"the primary {route.name} has lost users: {words}"
            route.leave_out(message)
            return PrimaryNotReady(message, hint=HINT)
        for each in found:
            _log.warning(f"the primary {route.name}: {each}; is the list stale?")
        return None

    async def _ask(self, route: RouteDelivery, recipients: Sequence[str]) -> Callout:
        settings, rate_limiter = route.settings, RateLimiter(route.settings.rates)
        await rate_limiter.resize(1.0)
        route.has_asked = True
        callout = Callout(
            CalloutSettings(
                route=settings.route,
                sender=settings.probe.sender,
                connections=settings.connections,
                rules=settings.rules,
                thresholds=settings.thresholds,
            ),
            rate_limiter,
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(ASK_SECONDS):
                await callout.run(recipients, self._is_stopped)
        if callout.ended:
            _log.warning(f"check of listed recipients of {route.name}: {callout.ended}")
        return callout


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
