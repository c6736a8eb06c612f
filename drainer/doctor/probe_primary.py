"""Ask the primary: the ordinary health check, and a sender with strict SPF."""

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from drainer.bounce.evidence.dns import Resolver
from drainer.bounce.evidence.request import DnsServers
from drainer.doctor.checks.facts import DialogueAnswer, PrimaryFacts
from drainer.doctor.dialogue import (
    LIMITS,
    LOOK_SECONDS,
    open_talk,
    seconds_ahead,
)
from drainer.doctor.probe_backup import MAX_ADDRESSES
from drainer.doctor.probe_dns import QUESTION_SECONDS, is_strict
from drainer.mail.envelope import domain_of
from drainer.runtime.process import utcnow
from drainer.runtime.threads import aside
from drainer.smtp.health_check import (
    FAIL,
    WARN,
    HealthFinding,
    HealthProbe,
    HealthReport,
    check,
)
from drainer.smtp.route import Route, Timeouts


class PrimaryProbe(Struct, frozen=True, kw_only=True):
    """The questions for the primary."""

    route: Route
    probe: HealthProbe
    servers: DnsServers
    #: '' = no existing recipient is known.
    recipient: str = ""
    strict_sender: str
    limits: Timeouts = LIMITS
    seconds: float = LOOK_SECONDS


async def look_at(visit: PrimaryProbe, addresses: Sequence[str]) -> PrimaryFacts:
    """Return what the primary answers; questions without time stay unanswered."""
    facts: dict[str, Any] = {}
    try:
        async with asyncio.timeout(visit.seconds):
            await _run(visit, addresses[:MAX_ADDRESSES], facts)
    except TimeoutError:
        facts["problem"] = f"it did not finish within {visit.seconds:g} s"
    return PrimaryFacts(
        route=str(visit.route),
        recipient=visit.recipient,
        strict_sender=visit.strict_sender,
        **facts,
    )


async def _run(
    visit: PrimaryProbe, addresses: Sequence[str], facts: dict[str, Any]
) -> None:
    if not addresses:
        facts["problem"] = f"no address of {visit.route.host} is known"
        return
    routes = [replace(visit.route, address=a, timeouts=visit.limits) for a in addresses]
    doing = [_check(visit, routes, facts)]
    if visit.recipient:
        doing.append(_try_strict(visit, routes, facts))
    await asyncio.gather(*doing)


async def _check(
    visit: PrimaryProbe, routes: Sequence[Route], facts: dict[str, Any]
) -> None:
    healths = await asyncio.gather(*(check(route, visit.probe) for route in routes))
    facts |= {
        "stages": _stages(healths),
        "is_loop": any(health.loop for health in healths),
        "ahead": _ahead(healths),
    }


async def _try_strict(
    visit: PrimaryProbe, routes: Sequence[Route], facts: dict[str, Any]
) -> None:
    """Name the strict sender; at the same time, because a greeting may take long."""
    found = await asyncio.gather(*(_ask(visit, route) for route in routes))
    facts["strict"] = next((s for s in found if not s.stage.before_mail), None)
    facts["is_strict"] = await _is_strict(visit)


def _stages(healths: Sequence[HealthReport]) -> tuple[HealthFinding, ...]:
    """Return the stages of all addresses; a dead one does not decide for all."""
    found = tuple(finding for health in healths for finding in health.findings)
    if not any(map(_is_reached, healths)):
        return found
    return tuple(
        replace(each, verdict=WARN)
        if each.stage == "connect" and each.verdict == FAIL
        else each
        for each in found
    )


def _is_reached(health: HealthReport) -> bool:
    return any(finding.stage == "mail" for finding in health.findings)


def _ahead(healths: Sequence[HealthReport]) -> float | None:
    banners = (f.reply for h in healths for f in h.findings if f.stage == "banner")
    found = (seconds_ahead(banner, utcnow()) for banner in banners)
    return next((each for each in found if each is not None), None)


async def _is_strict(visit: PrimaryProbe) -> bool | None:
    timeout = min(visit.servers.timeout, QUESTION_SECONDS)
    servers = replace(visit.servers, timeout=timeout)
    domain = domain_of(visit.strict_sender)
    try:
        return await aside(lambda: is_strict(Resolver(servers), domain), 2 * timeout)
    except TimeoutError:
        return None


async def _ask(visit: PrimaryProbe, route: Route) -> DialogueAnswer:
    """Return the reply to RCPT for the strict sender; never send DATA."""
    talk, said = await open_talk(route, tls=route.tls, verify=route.verify)
    if talk is None:
        return said
    try:
        said = await talk.ask(visit.strict_sender, visit.recipient)
        await talk.leave()
        return said
    finally:
        talk.connection.wire.close()
