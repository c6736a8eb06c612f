"""The callout of `census`: what the primaries say, and where they contradict lists."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.config.build.server_routes import with_server_routes
from drainer.config.build.spools import with_domains
from drainer.delivery.build import build_routes, make_admission
from drainer.delivery.census.interview import InterviewResult, interview
from drainer.delivery.mx_hosts import with_mx_hosts
from drainer.delivery.settings import RouteSettings
from drainer.policy.census.callout import (
    Contradiction,
    UnlistedRecipients,
    find_contradictions,
    find_unlisted,
)
from drainer.policy.census.existence import LISTED, Existence, ExistenceAnswer
from drainer.policy.recipient.mapping import AddressMapping
from drainer.sources.protocol import Source

Answers = Mapping[str, ExistenceAnswer]


class RouteFindings(NamedTuple):
    """What the primary of one route says."""

    route: str
    result: InterviewResult
    contradictions: list[Contradiction]
    unlisted: list[UnlistedRecipients]


def ask_primaries(
    config: Config, sources: list[Source], listed: Answers
) -> list[RouteFindings]:
    """Ask the primary of each route for its recipients.

    Raises UsageError if no primary is named, LedgerError if answers cannot be kept.
    """
    config = with_server_routes(config, sources)
    config, no_route, unanswered, _ = with_mx_hosts(with_domains(config, sources))
    rules = make_admission(config, AddressMapping(), no_route, unanswered)
    by_route: dict[str, dict[str, ExistenceAnswer]] = {}
    for mailbox, answer in listed.items():
        by_route.setdefault(rules.route_of(mailbox), {})[mailbox] = answer
    routes = build_routes(config, explicit=True)
    return asyncio.run(_ask_all(config, routes, by_route))


async def _ask_all(
    config: Config,
    routes: tuple[RouteSettings, ...],
    by_route: Mapping[str, Answers],
) -> list[RouteFindings]:
    asked = [each for each in routes if each.name in by_route]
    results = await asyncio.gather(
        *(interview(e, by_route[e.name], ledger_url(config)) for e in asked)
    )
    return [
        _findings(each.name, result, by_route[each.name])
        for each, result in zip(asked, results, strict=True)
    ]


def _findings(route: str, result: InterviewResult, listed: Answers) -> RouteFindings:
    known = [m for m, answer in listed.items() if answer.reason == LISTED]
    unknown = [m for m, a in listed.items() if a.existence is Existence.UNKNOWN]
    return RouteFindings(
        route,
        result,
        find_contradictions(known, result.answers),
        find_unlisted(unknown, result.answers),
    )


def decide_existence(
    listed: ExistenceAnswer, said: ExistenceAnswer | None
) -> ExistenceAnswer:
    """Return what counts: the list's word, else the primary's."""
    if said is None or listed.existence is not Existence.CANNOT_TELL:
        return listed
    return said


def words_of(findings: RouteFindings) -> Iterator[str]:
    """Yield what people must know of a callout."""
    result = findings.result
    start = f"the primary {findings.route}:"
    if result.ended:
        yield f"{start} the callout ended early: {result.ended}"
    for each in findings.contradictions:
        cause = "it has lost users" if each.has_lost_users else "is the list stale?"
        yield f"{start} {each}; {cause}"
    for unlisted in findings.unlisted:
        yield f"{start} {unlisted}; is the list complete?"


def callout_facts(findings: RouteFindings) -> dict[str, Any]:
    """Return a callout as JSON for scripts."""
    result = findings.result
    return {
        "route": findings.route,
        "asked": result.asked,
        "remembered": result.remembered,
        "ended": result.ended or None,
    }


def contradiction_facts(findings: RouteFindings) -> Iterator[dict[str, Any]]:
    """Yield the contradictions of a callout as JSON for scripts."""
    for each in findings.contradictions:
        yield {
            "route": findings.route,
            "domain": each.domain,
            "kind": "lost-users" if each.has_lost_users else "stale-entries",
            "asked": each.asked,
            "recipients": list(each.refused),
            "reply": each.reply,
        }
    for unlisted in findings.unlisted:
        yield {
            "route": findings.route,
            "domain": unlisted.domain,
            "kind": "not-listed",
            "asked": None,
            "recipients": list(unlisted.recipients),
            "reply": None,
        }
