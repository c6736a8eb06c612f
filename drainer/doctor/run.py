"""Collect the facts for the doctor's checks.

It asks everything at once and within time limits, but DNS first, because it names the
hosts. It sends only the test messages, to hosts that the operator named for them.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from drainer.bounce.evidence.dns import DnsOutcome, Resolver
from drainer.bounce.evidence.request import DnsServers
from drainer.doctor import probe_backup as backups
from drainer.doctor import probe_host
from drainer.doctor import probe_primary as primary
from drainer.doctor.checks.facts import (
    BackupFacts,
    DoctorFacts,
    DomainFacts,
    HostFacts,
    MailExchanger,
    PrimaryFacts,
)
from drainer.doctor.probe_dns import NamedHosts, look_up
from drainer.runtime.process import utcnow

T = TypeVar("T")
ShowWaiting = Callable[[str], None]


class DoctorSettings(Struct, frozen=True, kw_only=True):
    """What the doctor will examine."""

    named: NamedHosts
    servers: DnsServers
    #: Ports by host, if not 25.
    ports: Mapping[str, int]
    backups: backups.BackupProbe
    #: Its route leads to a host that DNS may still have to name.
    primary: primary.PrimaryProbe
    places: probe_host.HostPlaces


async def collect_facts(settings: DoctorSettings, show: ShowWaiting) -> DoctorFacts:
    """Return all facts, within half a minute; ``show`` gets the names still awaited.

    Test messages may take a minute more. Raises UsageError without a DNS server.
    """
    Resolver(settings.servers)  # an unusable one is an error before any question
    waiting = _WaitList(show)
    async with asyncio.TaskGroup() as group:
        around = group.create_task(
            waiting.for_("this host", probe_host.look_around(settings.places))
        )
        domain, hosts = await waiting.for_(
            "DNS", look_up(settings.servers, settings.named)
        )
        seen = [
            group.create_task(waiting.for_(host, _backup(settings, host, hosts)))
            for host in domain.backups
        ]
        first = group.create_task(
            waiting.for_("the primary", _primary(settings, domain, hosts))
        )
    found = tuple(task.result() for task in seen)
    return DoctorFacts(
        domain=domain,
        backups=found,
        primary=first.result(),
        here=_add_clocks(around.result(), first.result(), found),
    )


class _WaitList:
    """Reports which answers are still awaited."""

    def __init__(self, show: ShowWaiting) -> None:
        self._show = show
        self._left: list[str] = []

    async def for_(self, name: str, doing: Coroutine[Any, Any, T]) -> T:
        self._left.append(name)
        self._show(", ".join(self._left))
        try:
            return await doing
        finally:
            self._left.remove(name)
            self._show(", ".join(self._left))


async def _backup(
    settings: DoctorSettings, host: str, hosts: Mapping[str, MailExchanger]
) -> BackupFacts:
    known = hosts[host]
    if known.outcome is DnsOutcome.FAILED and not known.addresses:
        return BackupFacts(
            host=host, now=utcnow(), problem="DNS does not say its address"
        )
    port = settings.ports.get(host, 25)
    return await backups.look_at(host, port, known.addresses, settings.backups)


async def _primary(
    settings: DoctorSettings, domain: DomainFacts, hosts: Mapping[str, MailExchanger]
) -> PrimaryFacts:
    if not domain.primary:
        return PrimaryFacts()
    port = settings.ports.get(domain.primary, settings.primary.route.port)
    route = replace(settings.primary.route, host=domain.primary, port=port)
    if not settings.named.primary:  # never send the password to a host that DNS names
        route = replace(route, login=None)
    visit = replace(settings.primary, route=route)
    return await primary.look_at(visit, hosts[domain.primary].addresses)


def _add_clocks(
    found: HostFacts, first: PrimaryFacts, others: tuple[BackupFacts, ...]
) -> HostFacts:
    """Add what banners say about the time."""
    ahead = {first.route: first.ahead} | {each.host: each.ahead for each in others}
    known = {host: seconds for host, seconds in ahead.items() if seconds is not None}
    return replace(found, ahead=known)
