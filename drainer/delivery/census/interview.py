"""What the primary of one route says about recipients, with what it said lately."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from drainer.delivery.census.callout import Callout
from drainer.delivery.settings import RouteSettings
from drainer.errors import LedgerError
from drainer.ledger import callouts, engine
from drainer.ledger.engine import LedgerURL
from drainer.mail.envelope import domain_of
from drainer.policy.census.existence import Existence, ExistenceAnswer
from drainer.smtp.rate_limiter import RateLimiter


class InterviewResult(Struct, frozen=True, kw_only=True):
    """What the primary of a route says."""

    answers: dict[str, ExistenceAnswer]
    #: Recipients that were asked for now.
    asked: int
    #: Recipients of which the ledger had the answer.
    remembered: int
    #: Why the callout ended early; '' = it did not.
    ended: str


async def open_callout(settings: RouteSettings) -> Callout:
    """Return a callout at the primary of a route, under the limits of the route."""
    rate_limiter = RateLimiter(settings.rates)
    await rate_limiter.resize(1.0)
    return Callout(settings, rate_limiter)


async def interview(
    settings: RouteSettings,
    listed: Mapping[str, ExistenceAnswer],
    url: LedgerURL,
    is_stopped: Callable[[], bool] = lambda: False,
) -> InterviewResult:
    """Ask the primary for recipients, given what the lists say of each.

    Known-good recipients come first: they show that it does not refuse everybody. What
    it said lately is not asked again, unless that contradicts a list. Raises
    LedgerError if the answers cannot be kept.
    """
    remembered = await asyncio.to_thread(_recall, url, settings.name, listed)
    agreed = {m: a for m, a in remembered.items() if _agrees(a, listed[m])}
    rest = [mailbox for mailbox in listed if mailbox not in agreed]
    callout = await open_callout(settings)
    if rest:
        domains = dict.fromkeys(map(domain_of, rest))
        await callout.find_catch_alls(filter(None, domains))
    good = settings.probe.accept if rest else ()
    await callout.run((*good, *rest), is_stopped)
    said = callout.answers()
    fresh = {mailbox: said[mailbox] for mailbox in rest if mailbox in said}
    await asyncio.to_thread(callouts.keep, url, settings.name, fresh)
    return InterviewResult(
        answers=agreed | fresh,
        asked=len(fresh),
        remembered=len(agreed),
        ended=callout.ended,
    )


def _recall(
    url: LedgerURL, route: str, mailboxes: Iterable[str]
) -> dict[str, ExistenceAnswer]:
    if engine.is_file(url) and engine.file_id(url) is None:
        return {}
    try:
        return callouts.recall(url, route, mailboxes)
    except LedgerError:
        return {}  # then it is made, or the callout says why it cannot be


def _agrees(answer: ExistenceAnswer, listed: ExistenceAnswer) -> bool:
    undecided = listed.existence is Existence.CANNOT_TELL
    return undecided or answer.existence is listed.existence
