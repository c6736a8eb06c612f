"""SPF behind our DNS seam, against a real DNS server: the RFC 7208 suite, the traps."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import dns.name
import pytest
import yaml

from drainer.bounce.evidence import spf
from drainer.bounce.evidence.dns import Resolver
from drainer.bounce.evidence.gather import gather
from drainer.bounce.evidence.request import DnsServers, EvidenceSettings, SenderQuestion
from drainer.mail.envelope import Recipient
from drainer.policy.bounce.evidence import judge
from drainer.policy.bounce.facts import (
    SenderFacts,
    Strength,
    TrustSettings,
    parse_address,
)
from tests.support.dns.zones import SERVFAIL, TIMEOUT, Zone, serving, zone_of
from tests.support.paths import DATA

SUITE: Final = DATA / "spf" / "rfc7208-tests.yml"


def cases() -> Iterator[Any]:
    """Yield every case of the suite with the zone of its scenario."""
    for scenario in yaml.safe_load_all(SUITE.read_text("utf-8")):
        for name, case in scenario["tests"].items():
            yield pytest.param(scenario["zonedata"], case, id=name)


def suite_zone(data: Mapping[str, Any]) -> Zone:
    """Return the zone as the suite means it: TXT is made of SPF where it is absent."""
    zone = Zone()
    for name, entries in data.items():
        zone.records.setdefault(name.lower(), [])
        pairs = [
            pair
            for each in entries
            for pair in (each.items() if isinstance(each, dict) else [(TIMEOUT, "")])
        ]
        has_txt = any(kind == "TXT" for kind, _ in pairs)
        for kind, value in pairs:
            _add(zone, name, kind, value)
            if kind == "SPF" and not has_txt:
                _add(zone, name, "TXT", value)
    return zone


def _add(zone: Zone, name: str, kind: str, value: Any) -> None:
    if value == "NONE":
        return
    if value == TIMEOUT:
        zone.add(name, f"{kind}-{TIMEOUT}")
    elif isinstance(value, list):
        if kind == "MX":
            zone.add(name, kind, f"{value[0]} {value[1] or '.'}")
        else:
            zone.add(name, kind, "".join(value).encode())
    else:
        zone.add(name, kind, value)


def test_the_whole_suite_is_there() -> None:
    """None was lost by a change of the file."""
    assert len(list(cases())) == 203


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Zone, DnsServers]]:
    """Serve one zone, which each case of the suite fills anew."""
    zone = Zone(silent="error.")
    with serving(zone, timeout=1) as servers:
        yield zone, servers


@pytest.mark.parametrize(("zonedata", "case"), list(cases()))
def test_rfc_7208_suite(
    zonedata: Mapping[str, Any],
    case: Mapping[str, Any],
    served: tuple[Zone, DnsServers],
) -> None:
    """Every case ends as the suite says, asked of a real DNS server."""
    zone, servers = served
    zone.records = suite_zone(zonedata).records
    sender = case["mailfrom"] or f"postmaster@{case['helo']}"
    local, at, domain = sender.partition("@")
    local, domain = (local, domain) if at else ("", sender)
    address = parse_address(case["host"])
    assert address is not None
    found = spf.check(
        Resolver(servers), address, local=local, domain=domain, helo=case["helo"]
    )
    wanted = case["result"]
    assert found.result in ([wanted] if isinstance(wanted, str) else wanted), found


# ---- what passes, and proves nothing

RECIPIENT: Final = Recipient(forward_path="anna@primary.example")
TRUST: Final = TrustSettings(trusted_spf_domains=frozenset(("trusted.example",)))


def facts_of(
    zone: Zone, *, sender: str = "bob@sender.example", client: str = "192.0.2.1"
) -> SenderFacts:
    """Gather the facts about a message without content."""
    with serving(zone, timeout=1) as servers:
        question = SenderQuestion(
            reverse_path=sender,
            client=client,
            helo="helo.example",
            arrived=datetime.now(UTC),
        )
        return gather(Resolver(servers), EvidenceSettings(servers=servers), question)


def v3(record: str, *, client: str = "192.0.2.1", **more: str) -> tuple[str, str]:
    """Return the SPF result of a record, and what rule V3 makes of it."""
    zone = zone_of({"sender.example": [("TXT", record)]})
    for name, text in more.items():
        zone.add(f"{name}.example", "TXT", text)
    zone.add("host.example", "A", "192.0.2.1").add(
        "host.example", "AAAA", "2001:db8::1"
    )
    zone.add("mx.example", "MX", "10 host.example")
    for name in ("mail", "mx"):
        zone.add(f"{name}.sender.example", "A", "192.0.2.1")
        zone.add(f"{name}.sender.example", "AAAA", "2001:db8::1")
    zone.add("own.sender.example", "MX", "10 mx.sender.example")
    zone.add("both.sender.example", "MX", "10 host.example")
    zone.add("both.sender.example", "MX", "20 mx.sender.example")
    zone.add("hosted.sender.example", "MX", "10 host.example")
    zone.add("hosted.sender.example", "MX", "20 elsewhere.sender.example")
    zone.add("elsewhere.sender.example", "A", "198.51.100.1")
    zone.add("alias.sender.example", "CNAME", "host.example")
    zone.add("moved.sender.example", "CNAME", "good.example")
    zone.add("mx.trusted.example", "A", "192.0.2.1")
    zone.add("1.2.0.192.in-addr.arpa", "PTR", "host.sender.example")
    zone.add("host.sender.example", "A", "192.0.2.1")
    zone.add("helo.example", "A", "192.0.2.1")
    zone.add("bob.users.example", "A", "127.0.0.2")
    for name in ("1.2.0.192", "192.0.2.1"):
        zone.add(f"{name}.list.example", "A", "127.0.0.2")
    zone.add("192.0.2.1.dyn.example", "TXT", "v=spf1 ip4:192.0.2.0/24 -all")
    facts = facts_of(zone, client=client)
    assert facts.spf is not None
    return facts.spf.result, judge(facts, RECIPIENT, TRUST)["V3"].strength.value


@pytest.mark.parametrize(
    ("record", "strength"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", "proven"),
        ("v=spf1 ip4:192.0.2.1 -all", "proven"),
        ("v=spf1 a:mail.sender.example -all", "proven"),
        ("v=spf1 A:Mail.Sender.Example/24 -all", "proven"),
        ("v=spf1 a:mail.%{d} -all", "weak"),
        ("v=spf1 mx:own.sender.example -all", "proven"),
        ("v=spf1 mx:both.sender.example -all", "proven"),
        ("v=spf1 ip4:192.0.0.0/16 -all", "proven"),
        ("v=spf1 include:_spf.sender.example -all", "proven"),
        ("v=spf1 redirect=_spf.sender.example", "proven"),
        ("v=spf1 -ip4:198.51.100.0/24 include:fails.example ip4:192.0.2.1", "proven"),
        ("v=spf1 include:spf.trusted.example -all", "proven"),
        ("v=spf1 a:mx.trusted.example -all", "proven"),
        ("v=spf1 include:good.example -all", "weak"),
        ("v=spf1 include:GOOD.example. -all", "weak"),
        ("v=spf1 redirect=good.example", "weak"),
        ("v=spf1 include:deep.example -all", "weak"),
        ("v=spf1 include:back.example -all", "weak"),
        ("v=spf1 include:_chain.sender.example -all", "weak"),
        ("v=spf1 include:moved.sender.example -all", "weak"),
        ("v=spf1 a:host.example -all", "weak"),
        ("v=spf1 a:alias.sender.example -all", "weak"),
        ("v=spf1 mx:mx.example -all", "weak"),
        ("v=spf1 mx:hosted.sender.example -all", "weak"),
        ("v=spf1 mx:hosted.sender.example/32 ip4:192.0.2.1 -all", "weak"),
        ("v=spf1 exists:%{i}.list.example -all", "weak"),
        ("v=spf1 exists:%{ir}.list.example -all", "weak"),
        ("v=spf1 include:%{i}.dyn.example -all", "weak"),
        ("v=spf1 redirect=%{i}.dyn.example", "weak"),
        ("v=spf1 +all", "not"),
        ("v=spf1 all", "not"),
        ("v=spf1 ip4:198.51.100.1 +all", "not"),
        ("v=spf1 include:open.example -all", "not"),
        ("v=spf1 include:nested.example -all", "not"),
        ("v=spf1 redirect=open.example", "not"),
        ("v=spf1 include:halves.example -all", "not"),
        ("v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all", "not"),
        ("v=spf1 ip4:192.0.0.0/15 -all", "not"),
        ("v=spf1 a:host.example/8 -all", "not"),
        ("v=spf1 mx:mx.example/0 -all", "not"),
        ("v=spf1 ptr -all", "not"),
        ("v=spf1 ptr:sender.example -all", "not"),
        ("v=spf1 exists:host.example -all", "not"),
        ("v=spf1 exists:host.%{o} -all", "not"),
        ("v=spf1 exists:%{l}.users.example -all", "not"),
        ("v=spf1 a:%{h} -all", "not"),
        ("v=spf1 include:%{h} -all", "not"),
        ("v=spf1 a:%{p} -all", "not"),
        ("v=spf1 ip4:0.0.0.0/0 -all", "not"),
    ],
)
def test_what_a_pass_proves(record: str, strength: str) -> None:
    """Each of these records lets the client pass."""
    assert v3(
        record,
        good="v=spf1 ip4:192.0.2.0/24 -all",
        fails="v=spf1 ?ip4:192.0.2.1 -all",
        open="v=spf1 +all",
        nested="v=spf1 include:open.example -all",
        halves="v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all",
        deep="v=spf1 redirect=good.example",
        back="v=spf1 include:_spf.sender.example -all",
        **{
            "_spf.sender": "v=spf1 ip4:192.0.2.0/24 -all",
            "_chain.sender": "v=spf1 redirect=good.example",
            "spf.trusted": "v=spf1 ip4:192.0.2.0/24 -all",
            "helo": "v=spf1 ip4:192.0.2.0/24 -all",
        },
    ) == ("pass", strength)


@pytest.mark.parametrize(
    ("record", "strength"),
    [
        ("v=spf1 ip6:2001:db8::/32 -all", "proven"),
        ("v=spf1 ip6:2001:d00::/24 -all", "not"),
        ("v=spf1 a:mail.sender.example//64 -all", "proven"),
        ("v=spf1 a:mail.sender.example/8 -all", "proven"),
        ("v=spf1 a:host.example -all", "weak"),
        ("v=spf1 a:host.example/32//8 -all", "not"),
        ("v=spf1 ip6:::/1 ip6:8000::/1 -all", "not"),
    ],
)
def test_what_a_pass_of_ipv6_proves(record: str, strength: str) -> None:
    """The length of the prefix is the other one."""
    assert v3(record, client="2001:db8::1") == ("pass", strength)


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 ?ip4:192.0.2.1 -all", "neutral"),
        ("v=spf1 ~all", "softfail"),
        ("v=spf1 -all", "fail"),
        ("v=spf1 ip4:192.0.2.1 bogus:x", "permerror"),
        ("v=spf1 include:loop.example", "permerror"),
        ("no record", "none"),
    ],
)
def test_other_results_prove_nothing(record: str, result: str) -> None:
    """Exactly `pass` counts."""
    assert v3(record, loop="v=spf1 include:loop.example") == (result, "not")


# ---- what pyspf does by itself


def test_a_null_sender_is_no_helo_check() -> None:
    """Pyspf checks HELO silently when MAIL FROM is empty."""
    zone = zone_of({"helo.example": [("TXT", "v=spf1 ip4:192.0.2.1 -all")]})
    facts = facts_of(zone, sender="")
    assert facts.spf is None
    assert judge(facts, RECIPIENT, TRUST).strength is Strength.NOT
    assert zone.asked == []


@pytest.mark.parametrize(
    "client", ["", "unknown", "list", "list6", "fe80::1%eth0", "1.2.3", "192.0.2.1/0"]
)
def test_an_odd_client_address_is_no_client(client: str) -> None:
    """Pyspf raises on some of these, and takes `list` for an order."""
    zone = zone_of({"sender.example": [("TXT", "v=spf1 +all")]})
    facts = facts_of(zone, client=client)
    assert facts.spf is None
    assert "client" in judge(facts, RECIPIENT, TRUST)["V3"].found


def test_the_domain_of_a_quoted_local_part() -> None:
    """Pyspf splits at the first @, which may be the sender's own."""
    zone = zone_of(
        {
            'victim.example"@evil.example': [("TXT", "v=spf1 +all")],
            "victim.example": [("TXT", "v=spf1 ip4:192.0.2.1 -all")],
            "evil.example": [("TXT", "v=spf1 -all")],
        }
    )
    facts = facts_of(zone, sender='"bob@victim.example"@evil.example')
    assert facts.spf is not None
    assert facts.spf.result == "fail"


def test_search_domains_are_never_used() -> None:
    """resolv.conf's would make `none` a `pass` of another domain."""
    zone = zone_of({"sender.example.local.example": [("TXT", "v=spf1 +all")]})
    with serving(zone) as servers:
        asker = Resolver(servers)
        asker._resolver.search = [dns.name.from_text("local.example.")]
        asker._resolver.use_search_by_default = True
        address = parse_address("192.0.2.1")
        assert address is not None
        found = spf.check(asker, address, local="bob", domain="sender.example")
    assert found.result == "none"
    assert {name for name, _ in zone.asked} == {"sender.example"}


def test_dns_trouble_is_decided_later() -> None:
    """SERVFAIL and silence are no `none`."""
    for trouble in (SERVFAIL, TIMEOUT):
        facts = facts_of(zone_of({"sender.example": [(trouble, "")]}))
        assert facts.spf is not None
        assert facts.spf.result == "temperror"
        evidence = judge(facts, RECIPIENT, TRUST)
        assert evidence.strength is Strength.LATER


def test_a_sender_in_another_script() -> None:
    """Its domain is asked for in ASCII."""
    zone = zone_of({"xn--bcher-kva.example": [("TXT", "v=spf1 ip4:192.0.2.1 -all")]})
    facts = facts_of(zone, sender="bob@b\u00fccher.example")
    assert (facts.domain, facts.spf and facts.spf.result) == (
        "xn--bcher-kva.example",
        "pass",
    )
    sharp = facts_of(Zone(), sender="bob@stra\u00dfe.example")
    assert sharp.domain == "xn--strae-oqa.example"
    nameless = facts_of(Zone(), sender="bob@a\ufffd.example")
    assert (nameless.domain, nameless.spf) == ("", None)
