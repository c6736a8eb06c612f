"""ARC chains as evidence: whose word counts, and what breaks a chain."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import dkim as dkimpy
import pytest

from drainer.bounce.evidence import arc
from drainer.bounce.evidence.dns import Resolver
from drainer.bounce.evidence.gather import gather
from drainer.bounce.evidence.settings import EvidenceSettings, SenderQuestion
from drainer.mail.envelope import Recipient
from drainer.policy.bounce.evidence import judge
from drainer.policy.bounce.facts import Chain, Strength, TrustSettings
from tests.integration.bounce.evidence.test_dkim import KEY, MESSAGE, NOW, PUBLIC
from tests.support.dns.zones import SERVFAIL, Zone, serving

FIRST, SECOND, SICK = "first.example", "second.example", "sick.example"
BOTH: Final = frozenset((FIRST, SECOND))
SAW: Final = (
    "spf=pass smtp.mailfrom=bob@sender.example; dkim=pass header.d=sender.example"
)


@pytest.fixture(scope="module")
def dns() -> Iterator[Resolver]:
    """Ask a server that has the keys of two forwarders."""
    zone = Zone()
    for domain in (FIRST, SECOND):
        zone.add(f"test._domainkey.{domain}", "TXT", PUBLIC)
    zone.add(f"weak._domainkey.{FIRST}", "TXT", PUBLIC.replace(";", "; t=y;", 1))
    zone.add(f"test._domainkey.{SICK}", SERVFAIL)
    with serving(zone) as servers:
        yield Resolver(servers)


def sealed(
    message: bytes, by: str = FIRST, saw: str = SAW, selector: str = "test"
) -> bytes:
    """Return a message as a forwarder passes it on."""
    message = f"Authentication-Results: {by}; {saw}\r\n".encode() + message
    names = [b"from", b"to", b"subject"]
    fields = dkimpy.arc_sign(
        message, selector.encode(), by.encode(), KEY, by.encode(), names
    )
    return b"".join(fields) + message


def look(dns: Resolver, message: bytes, sealers: frozenset[str] = BOTH) -> Chain:
    """Look at a chain as of now."""
    dns.begin()
    return arc.look(dns, message, sealers=sealers, arrived=NOW + timedelta(minutes=5))


def test_what_the_first_of_the_believed_saw_counts(dns: Resolver) -> None:
    """Through a second one, that saw other things; RFC 8617 5.2."""
    chain = look(dns, sealed(sealed(MESSAGE), SECOND, "arc=pass; spf=fail"))
    assert [(c.method, c.domain) for c in chain.claims] == [
        ("spf", "sender.example"),
        ("dkim", "sender.example"),
    ], chain.detail
    assert {claim.authserv_id for claim in chain.claims} == {FIRST}


TWICE = "arc=pass; spf=pass smtp.mailfrom=bob@sender.example"


@pytest.mark.parametrize(
    ("message", "sealers", "words"),
    [
        (MESSAGE, BOTH, "no ARC chain"),
        (sealed(MESSAGE), frozenset({SECOND}), "first.example of instance 1"),
        (sealed(sealed(MESSAGE), SECOND, TWICE), frozenset({SECOND}), "not believed"),
        (sealed(MESSAGE, "other.example"), BOTH, "other.example of instance 1"),
        (sealed(MESSAGE).replace(b"Hello", b"Hallo"), BOTH, "did not validate"),
        (sealed(MESSAGE).replace(b"spf=pass", b"spf=fail", 1), BOTH, "validate"),
        (sealed(sealed(MESSAGE), SECOND, "arc=fail"), BOTH, "chain is terminated"),
        (sealed(MESSAGE, selector="weak"), BOTH, "for testing"),
        (sealed(MESSAGE, selector="none"), BOTH, "no key at none._domainkey"),
        (sealed(MESSAGE).replace(b"Seal: i=1", b"Seal: i=2"), BOTH, "not complete"),
        (sealed(MESSAGE).replace(b"i=1", b"i=2"), BOTH, "no chain"),
        (sealed(MESSAGE).replace(b"ARC-Seal:", b"X-Seal:"), BOTH, "not complete"),
        (b"ARC-Seal: i=1;;\r\n" + sealed(MESSAGE), BOTH, "cannot be read"),
        (b"ARC-Seal: i=1; a=b\r\n" + sealed(MESSAGE), BOTH, "two of a kind"),
        (b"ARC-Seal: i=99999999; a=b\r\n" + MESSAGE, BOTH, "no chain"),
        (b"ARC-Seal: i=0; a=b\r\n" + sealed(MESSAGE), BOTH, "no chain"),
        (b"ARC-Authentication-Results: x\r\n" + sealed(MESSAGE), BOTH, "no chain"),
        (b"an odd line\r\n" + sealed(MESSAGE), BOTH, "odd line"),
    ],
)
def test_what_is_no_chain_says_nothing(
    dns: Resolver, message: bytes, sealers: frozenset[str], words: str
) -> None:
    """Neither a broken one, nor one of somebody that the operator does not name."""
    chain = look(dns, message, sealers)
    assert not chain.claims
    assert not chain.later
    assert words in chain.detail


def test_an_open_end_of_the_body_breaks_it(dns: Resolver) -> None:
    """As for DKIM: whoever comes later may add what he likes (l=)."""
    message = sealed(MESSAGE).replace(b"ARC-Message-Signature: i=1;",
                                      b"ARC-Message-Signature: i=1; l=2;")  # fmt: skip
    assert "l= leaves the end" in look(dns, message).detail


def test_silent_dns_decides_later(dns: Resolver) -> None:
    """A key that nobody could be asked for is no absent one."""
    chain = look(dns, sealed(MESSAGE, SICK), frozenset({SICK}))
    assert chain.later
    assert not chain.claims


@pytest.mark.parametrize(
    ("sealers", "saw", "strength"),
    [
        ((), SAW, Strength.NOT),
        ((FIRST,), SAW, Strength.WEAK),
        ((FIRST,), SAW.partition(";")[0], Strength.WEAK),
        ((FIRST,), SAW.replace("pass", "fail"), Strength.NOT),
        ((FIRST,), SAW.replace("sender.example", "evil.example"), Strength.NOT),
    ],
)
def test_a_chain_is_off_by_default_and_proves_nobody_by_itself(
    dns: Resolver, sealers: tuple[str, ...], saw: str, strength: Strength
) -> None:
    """Whatever it says: anybody can send a sealed message again, in another's name."""
    question = SenderQuestion(
        reverse_path="bob@sender.example",
        arrived=datetime.now(UTC),
        content=sealed(MESSAGE, saw=saw),
    )
    facts = gather(dns, EvidenceSettings(sealers=frozenset(sealers)), question)
    evidence = judge(
        facts, Recipient(forward_path="x@primary.example"), TrustSettings()
    )
    assert evidence.strength is strength, evidence.words
    if not sealers:
        assert evidence["V7"].found == "[bounce] arc_sealers names nobody"
