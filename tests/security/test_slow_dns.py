"""Strangers whose DNS crawls: nobody else waits for them, and they get no bounce.

A sender owns the servers of his domain. They may never answer, answer after seconds,
lead from one name to the next, or ask for TCP and be silent there.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import dns.flags
import dns.message
import pytest
from msgspec.structs import replace

from drainer.bounce.evidence.client import EvidenceWorker
from drainer.bounce.evidence.dns import DnsAnswer, DnsOutcome
from drainer.bounce.evidence.mx import MxTargets
from drainer.bounce.evidence.request import DnsServers, EvidenceSettings
from drainer.bounce.evidence.shared_dns import MAX_BYTES, SharedResolver, owner_of
from drainer.mail.envelope import Recipient
from drainer.policy.bounce.evidence import judge
from drainer.policy.bounce.facts import (
    Reachability,
    SenderFacts,
    Strength,
    TrustSettings,
)
from tests.integration.bounce.evidence.test_gather import question
from tests.support.dns.zones import Zone, serving
from tests.support.scenarios.bounces import CLIENT, Refusing, nobody_unknown, refusing
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script

pytestmark = pytest.mark.alone
"""A quick look gives DNS a second: on a busy machine, honest servers take longer."""

StartPeer = Callable[..., PeerThread]

MX: Final = "192.0.2.25"


@dataclass(slots=True)
class Crawling(Zone):
    """A resolver behind which some domains answer as slowly as their owners like.

    The first label of a domain says how: ``silent1.example``, ``late2.example``. All
    others are honest: they have a record for SPF, and a mail server.
    """

    #: Set at the end, so that no answer is outstanding any more.
    over: threading.Event = field(default_factory=threading.Event)

    def reply(self, query: dns.message.Message) -> dns.message.Message | None:
        """Answer, or not, or late."""
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        domain = ".".join(name.split(".")[-2:])
        kind = next((each for each in ATTACKS if domain.startswith(each)), "")
        attack = ATTACKS.get(kind)
        if attack is None:
            self._honest(domain)
            return Zone.reply(self, query)
        return attack(self, query, name, domain)

    def _honest(self, domain: str) -> None:
        if domain not in self.records:
            self.add(domain, "TXT", "v=spf1 ip4:192.0.2.1 -all")
            self.add(domain, "MX", f"10 mx.{domain}")
            self.add(f"mx.{domain}", "A", MX)

    def after(self, seconds: float, query: dns.message.Message) -> dns.message.Message:
        """Answer from the records, late."""
        self.over.wait(seconds)
        response = Zone.reply(self, query)
        assert response is not None
        return response


Attack = Callable[[Crawling, dns.message.Message, str, str], dns.message.Message | None]


def _silent(zone: Crawling, _: dns.message.Message, name: str, __: str) -> None:
    zone.asked.append((name, ""))


def _late(
    zone: Crawling, query: dns.message.Message, _: str, domain: str
) -> dns.message.Message:
    zone._honest(domain)
    return zone.after(4, query)


def _chain(
    zone: Crawling, query: dns.message.Message, name: str, domain: str
) -> dns.message.Message:
    """Every record includes the next name."""
    if name not in zone.records:
        label = name.removesuffix(domain).rstrip(".")
        step = int(label.removeprefix("s")) if label[1:].isdigit() else 0
        zone.add(name, "TXT", f"v=spf1 include:s{step + 1}.{domain} -all")
    return zone.after(0.4, query)


def _absent(
    zone: Crawling, query: dns.message.Message, name: str, domain: str
) -> dns.message.Message:
    """NXDOMAIN, each after a while, and a record that asks for many names."""
    if name == domain and name not in zone.records:
        terms = " ".join(f"a:{n}.{domain}" for n in range(50))
        zone.add(name, "TXT", f"v=spf1 {terms} -all")
        for n in range(10):
            zone.add(name, "MX", f"{n} mx{n}.{domain}")
    return zone.after(0.3, query)


def _truncated(
    zone: Crawling, query: dns.message.Message, name: str, _: str
) -> dns.message.Message | None:
    """First: ask by TCP. Then nothing."""
    zone.asked.append((name, ""))
    if zone.asked.count((name, "")) % 2 == 0:
        return None
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= dns.flags.TC
    return response


def _refused_late(
    zone: Crawling, query: dns.message.Message, name: str, _: str
) -> dns.message.Message:
    """SERVFAIL, again and again, each after a while."""
    zone.asked.append((name, ""))
    zone.over.wait(0.8)
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(dns.rcode.SERVFAIL)
    return response


ATTACKS: Final[dict[str, Attack]] = {
    "silent": _silent,
    "late": _late,
    "chain": _chain,
    "absent": _absent,
    "truncated": _truncated,
    "servfail": _refused_late,
}


SLOW: Final = [f"{kind}{n}.example" for n in range(3) for kind in ATTACKS]
HONEST: Final = [f"honest{n}.example" for n in range(12)]
#: Slow and honest ones in turns, the slow ones first.
MIXED: Final = [each for pair in zip(SLOW, HONEST, strict=False) for each in pair]


@pytest.fixture
def crawling() -> Iterator[tuple[Crawling, DnsServers]]:
    """Give a server that crawls, and how it is asked."""
    zone = Crawling()
    with serving(zone) as servers:
        yield zone, replace(servers, timeout=2.0, budget=4.0, domain_budget=3.0)
        zone.over.set()


async def look(
    checks: EvidenceWorker, domains: list[str], *, quick: bool
) -> tuple[dict[str, SenderFacts], dict[str, float]]:
    """Look at a message of each domain at once; return facts, and seconds it took."""
    found: dict[str, SenderFacts] = {}
    took: dict[str, float] = {}
    started = time.monotonic()

    async def one(domain: str) -> None:
        asked = question(sender=f"bob@{domain}")
        found[domain] = await checks.facts(asked, quick=quick)
        took[domain] = time.monotonic() - started

    await asyncio.gather(*map(one, domains))
    return found, took


def strength_of(facts: SenderFacts) -> Strength:
    """Return what the facts amount to."""
    return judge(
        facts, Recipient(forward_path="x@example.org"), TrustSettings()
    ).strength


def test_a_quick_look_sets_slow_domains_aside(
    crawling: tuple[Crawling, DnsServers],
) -> None:
    """Honest ones are proven, slow ones are neither proven nor refused."""
    _, servers = crawling

    async def ask() -> tuple[dict[str, SenderFacts], dict[str, float]]:
        async with EvidenceWorker(EvidenceSettings(servers=servers)) as checks:
            return await look(checks, MIXED, quick=True)

    found, took = asyncio.run(ask())
    for domain, facts in found.items():
        expected = Strength.PROVEN if domain in HONEST else Strength.LATER
        assert strength_of(facts) is expected, (domain, facts)
    assert {found[each].reach for each in HONEST} == {Reachability.YES}
    # One after the other, the slow ones would take 4 s each.
    assert max(took[each] for each in HONEST) < 2 * len(SLOW)


def test_a_patient_look_ends_all_the_same(
    crawling: tuple[Crawling, DnsServers],
) -> None:
    """After the budget of the domain or of the message; it says which DNS is slow."""
    _, servers = crawling

    async def ask() -> tuple[dict[str, SenderFacts], dict[str, float]]:
        async with EvidenceWorker(EvidenceSettings(servers=servers)) as checks:
            return await look(checks, SLOW[: len(ATTACKS)], quick=False)

    found, took = asyncio.run(ask())
    assert max(took.values()) < 4 * servers.budget
    for domain, facts in found.items():
        # Of "absent" the record asks for too many names.
        assert strength_of(facts) in (Strength.LATER, Strength.NOT), (domain, facts)
    silent = found["silent0.example"]
    assert silent.spf is not None
    assert "DNS of silent0.example did not answer in time" in silent.spf.detail


def test_a_domain_has_one_budget_for_all_its_names(
    crawling: tuple[Crawling, DnsServers],
) -> None:
    """However many messages it sends, from however many names below it."""
    zone, servers = crawling
    names = [f"x{n}.silent1.example" for n in range(30)]

    async def ask() -> dict[str, SenderFacts]:
        async with EvidenceWorker(EvidenceSettings(servers=servers)) as checks:
            await look(checks, ["silent1.example"], quick=False)
            asked = len(zone.asked)
            found, _ = await look(checks, names, quick=False)
            assert len(zone.asked) < asked + len(names)
            return found

    found = asyncio.run(ask())
    assert {strength_of(facts) for facts in found.values()} == {Strength.LATER}


def test_nobody_is_charged_for_the_dns_of_another(
    crawling: tuple[Crawling, DnsServers],
) -> None:
    """A forged sender, or a forged From, does not put the honest domain off."""
    zone, servers = crawling
    content = b"From: <bob@silent2.example>\r\n\r\nhello\r\n"

    async def ask() -> SenderFacts:
        async with EvidenceWorker(EvidenceSettings(servers=servers)) as checks:
            asked = question(content, sender="bob@honest1.example")
            return await checks.facts(asked, quick=True)

    facts = asyncio.run(ask())
    assert strength_of(facts) is Strength.PROVEN
    assert not [name for name, _ in zone.asked if "silent" in name]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("s1._domainkey.mail.sender.example", "sender.example"),
        ("_dmarc.sender.co.uk", "sender.co.uk"),
        ("a.me.github.io", "me.github.io"),
        ("4.3.2.192.in-addr.arpa", "3.2.192.in-addr.arpa"),
        ("9.2.0.192.in-addr.arpa", "2.0.192.in-addr.arpa"),
        ("1." * 32 + "ip6.arpa", "1." * 12 + "ip6.arpa"),
        ("com", "com"),
        ("", ""),
    ],
)
def test_time_is_charged_to_whom_the_name_belongs(name: str, owner: str) -> None:
    """Neighbours at a provider, and in a network, are not each other's."""
    assert owner_of(name) == owner


def test_a_late_answer_is_kept_for_the_next_message(
    crawling: tuple[Crawling, DnsServers],
) -> None:
    """It is asked once, although two waited for it, and one had no patience."""
    zone, servers = crawling

    async def ask() -> None:
        dns = SharedResolver(servers)
        name = "chain1.example"
        early = await dns.ask(name, "TXT", 0.01)
        both = await asyncio.gather(dns.ask(name, "TXT", 5), dns.ask(name, "TXT", 5))
        assert early.outcome is DnsOutcome.FAILED
        assert [each.outcome for each in both] == [DnsOutcome.FOUND] * 2

    asyncio.run(ask())
    assert len(zone.asked) == 1


def test_a_flood_of_large_answers_is_forgotten(
    crawling: tuple[Crawling, DnsServers],
) -> None:
    """The oldest first: memory is bounded."""
    zone, servers = crawling
    for n in range(5):
        zone.add(f"n{n}.big.example", "TXT", "x" * 60_000)

    async def ask() -> int:
        dns = SharedResolver(servers)
        for n in range(5):
            found = await dns.ask(f"n{n}.big.example", "TXT", 5)
            assert found.outcome is DnsOutcome.FOUND
        large = DnsAnswer(DnsOutcome.FOUND, (b"x" * 60_000,))
        for n in range(MAX_BYTES // 60_000 + 10):
            dns._keep((f"m{n}.big.example", "TXT"), large)
        return dns._bytes

    assert asyncio.run(ask()) <= MAX_BYTES


def test_servers_of_senders_are_found_beside_slow_ones(
    crawling: tuple[Crawling, DnsServers],
) -> None:
    """For reports by ``via = "mx"``: a slow domain is tried another time."""
    _, servers = crawling

    async def ask() -> tuple[list[MxTargets], float]:
        async with EvidenceWorker(
            EvidenceSettings(servers=servers, hostname="mx2.example")
        ) as checks:
            started = time.monotonic()
            found = await asyncio.gather(*map(checks.relays, MIXED))
            return found, time.monotonic() - started

    found, took = asyncio.run(ask())
    for domain, relays in zip(MIXED, found, strict=True):
        if domain in HONEST:
            assert relays.targets == ((f"mx.{domain}", MX),)
        elif not domain.startswith(("chain", "absent")):
            assert (relays.targets, relays.later) == ((), True), domain
    assert took < 2 * len(SLOW)


# ---- the command


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: StartPeer
) -> Iterator[Refusing]:
    """Give a backup whose refused mail has honest senders, and slow ones."""
    monkeypatch.chdir(tmp_path)
    with refusing(tmp_path, peer(), peer(Script(rcpt=nobody_unknown))) as made:
        yield made


def test_reports_to_honest_senders_leave_while_slow_ones_wait(
    bench: Refusing, crawling: tuple[Crawling, DnsServers]
) -> None:
    """One `bounces run` for all of them; no slow sender is bounced or lost."""
    zone, servers = crawling
    bench.configure(
        bounce={
            "send": False,
            "dns_port": servers.port,
            "dns_run_budget": "4s",
            "sender_per_hour": 100,
        },
        breaker={"give_up_after": "0s", "brake_least": 1000},
    )
    senders = {
        bench.add(
            f"nobody{n}@example.org", sender=f"bob@{domain}", envelope=CLIENT
        ): domain
        for n, domain in enumerate(MIXED)
    }
    assert bench.drain().code == 5
    assert zone.asked == []
    bench.configure(bounce={"send": True})
    started = time.monotonic()
    run = bench.start("bounces", "run", "--no-check", "--json")
    try:
        # What a single session refused is tried on another one first: one message or
        # two, by the order in which the folder lists them.
        bench.relay.wait(lambda: len(bench.reports) >= len(HONEST) - 2, timeout=50)
        took = time.monotonic() - started
    finally:
        run.communicate(timeout=60)
    assert took < 2 * len(SLOW)  # one after the other: more than 4 s for each
    for _ in range(3):
        if len(bench.reports) < len(HONEST):
            bench.run("bounces", "run", "--no-check", "--json")
    notified = {report.forward_paths[0] for report in bench.reports}
    assert notified == {f"bob@{domain}" for domain in HONEST}
    for name, domain in senders.items():
        why = bench.why(name)
        if domain in SLOW:
            assert why["state"] == "bounce-pending"
