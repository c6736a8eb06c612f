"""V1 to V6: what proves a sender, what only helps, and what does not."""

import ipaddress
from typing import Any, Final

import pytest
from msgspec.structs import replace

from drainer.mail.envelope import Recipient
from drainer.policy.bounce.evidence import RULES, Evidence, judge
from drainer.policy.bounce.facts import (
    AuthResult,
    DkimSignature,
    DmarcPolicy,
    SenderFacts,
    SpfResult,
    SpfTerm,
    Strength,
    TrustSettings,
    is_private,
    is_public,
    is_within,
    parse_address,
)

RECIPIENT: Final = Recipient(forward_path="Anna@primary.example")
TRUST: Final = TrustSettings(
    relay_domains=frozenset(("primary.example",)),
    trusted_networks=(ipaddress.ip_network("198.51.100.0/24"),),
    trusted_spf_domains=frozenset(("trusted.example",)),
)
NOBODY: Final = SenderFacts(
    reverse_path="bob@sender.example",
    domain="sender.example",
    organisation="sender.example",
    client="192.0.2.1",
)


def term(
    text: str = "ip4:192.0.2.0/24", prefix: int | None = 24, **more: Any
) -> SpfTerm:
    """Return a term of the sender's record."""
    mechanism = text.partition(":")[0].partition("/")[0]
    given = {"domain": "sender.example", "text": text, "mechanism": mechanism}
    return SpfTerm(**(given | {"prefix": prefix} | more))


def passing(*path: SpfTerm) -> SenderFacts:
    """Return facts with an SPF pass by this way."""
    return replace(NOBODY, spf=SpfResult(result="pass", path=path or (term(),)))


def signature(**fields: Any) -> DkimSignature:
    """Return a valid signature of the sender's domain."""
    given: dict[str, Any] = {
        "domain": "sender.example",
        "organisation": "sender.example",
        "state": Strength.PROVEN,
    }
    return DkimSignature(**(given | fields))


def claim(method: str, domain: str = "sender.example", **more: str) -> AuthResult:
    """Return what the backup's own Authentication-Results say."""
    given = {"organisation": domain, "authserv_id": "mx2.example"}
    return AuthResult(method=method, domain=domain, **(given | more))


def signed(*signatures: DkimSignature, facts: SenderFacts = NOBODY) -> SenderFacts:
    """Return facts with these signatures."""
    return replace(facts, signatures=signatures)


OWN: Final = signature(mailbox="bob@sender.example")
NAMED: Final = replace(OWN, addressees=frozenset(("anna@primary.example",)))
PUBLISHED: Final = DmarcPolicy(
    domain="sender.example", organisation="sender.example", published=True
)
SILENT: Final = DmarcPolicy(
    domain="sender.example", organisation="sender.example", later=True
)


def included(name: str) -> SenderFacts:
    """Return facts with an SPF pass by an include of another organisation."""
    return passing(term(f"include:{name}", None), term(domain=name, foreign=(name,)))


WEAK_SPF: Final = included("spf.shared.example")


def look(facts: SenderFacts, recipient: Recipient = RECIPIENT) -> Evidence:
    """Judge with the operator's trust of this module."""
    return judge(facts, recipient, TRUST)


def test_every_rule_has_a_row() -> None:
    """In order, and nothing is proven by nothing."""
    evidence = look(NOBODY)
    assert [row.rule for row in evidence.rows] == list(RULES)
    assert {row.strength for row in evidence.rows} == {Strength.NOT}
    assert (evidence.strength, evidence.by) == (Strength.NOT, "")


BELOW: Final = replace(
    NOBODY, reverse_path="bob@mail.sender.example", domain="mail.sender.example"
)

ROWS: Final = {
    # V1
    "V1: the login is the sender": (
        replace(NOBODY, login="BOB@sender.example"), "V1", Strength.PROVEN),
    "V1: the login is the sender, written otherwise": (
        replace(NOBODY, login="bob@sender.example",
                reverse_path='"bob"@SENDER.example.'), "V1", Strength.PROVEN),
    "V1: the login is another's": (
        replace(NOBODY, login="eve"), "V1", Strength.NOT),
    "V1: a bare login owns an address of ours": (
        replace(NOBODY, login="bob", reverse_path="bob@primary.example"),
        "V1", Strength.PROVEN),
    "V1: a bare login owns no address elsewhere": (
        replace(NOBODY, login="bob"), "V1", Strength.NOT),
    # V2
    "V2: a trusted network": (
        replace(NOBODY, client="198.51.100.9"), "V2", Strength.PROVEN),
    "V2: a mapped address of it": (
        replace(NOBODY, client="::ffff:198.51.100.9"), "V2", Strength.PROVEN),
    "V2: no client": (replace(NOBODY, client=""), "V2", Strength.NOT),
    # V3
    "V3: a network of the sender": (passing(), "V3", Strength.PROVEN),
    "V3: an include of the sender's own organisation": (
        passing(term("include:_spf.sender.example", None),
                term(domain="_spf.sender.example")), "V3", Strength.PROVEN),
    "V3: a redirect to another organisation": (
        passing(term("redirect=x.example", None),
                term(domain="x.example", foreign=("x.example",))),
        "V3", Strength.WEAK),
    "V3: a host of another organisation": (
        passing(term("a:host.x.example", 32, foreign=("host.x.example",))),
        "V3", Strength.WEAK),
    "V3: an organisation that the operator names": (
        included("spf.eu.trusted.example"), "V3", Strength.PROVEN),
    "V3: a lookalike of it": (
        included("spf.untrusted.example"), "V3", Strength.WEAK),
    "V3: it includes one that the operator does not name": (
        passing(term("include:trusted.example", None),
                term("include:x.example", domain="trusted.example",
                     foreign=("trusted.example",)),
                term(domain="x.example", foreign=("x.example",))),
        "V3", Strength.WEAK),
    "V3: +all": (passing(term("+all", None, mechanism="all")), "V3", Strength.NOT),
    "V3: +all in an include": (
        passing(term("include:x.example", None), term("all", None)),
        "V3", Strength.NOT),
    "V3: half of the Internet": (passing(term("ip4:0.0.0.0/1", 1)), "V3", Strength.NOT),
    "V3: a /15": (passing(term("ip4:192.0.0.0/15", 15)), "V3", Strength.NOT),
    "V3: a /16": (passing(term("ip4:192.0.0.0/16", 16)), "V3", Strength.PROVEN),
    "V3: a/8": (passing(term("a/8", 8)), "V3", Strength.NOT),
    "V3: ptr": (passing(term("ptr", None)), "V3", Strength.NOT),
    "V3: exists by a macro": (
        passing(term("exists:%{i}.x", None, macro=True)), "V3", Strength.WEAK),
    "V3: exists for everybody": (passing(term("exists:x", None)), "V3", Strength.NOT),
    "V3: exists by the sender's own name": (
        passing(term("exists:%{d}.ok.x", None, macro=True)), "V3", Strength.NOT),
    "V3: exists by what the client calls itself": (
        passing(term("exists:%{h}.x", None, macro=True)), "V3", Strength.NOT),
    "V3: exists for everybody, in an include for this client": (
        passing(term("include:%{I}.x", None, macro=True), term("exists:x", None)),
        "V3", Strength.WEAK),
    "V3: an include by a macro": (
        passing(term("include:%{i}.x", None, macro=True), term()), "V3", Strength.WEAK),
    "V3: an include of another organisation": (WEAK_SPF, "V3", Strength.WEAK),
    "V3: a host that the client names in HELO": (
        passing(term("a:%{h}", 32, macro=True)), "V3", Strength.NOT),
    "V3: an include that the client's reverse name decides": (
        passing(term("include:%{P}", None, macro=True), term()), "V3", Strength.NOT),
    "V3: a way that nobody knows": (
        replace(NOBODY, spf=SpfResult(result="pass")), "V3", Strength.NOT),
    "V3: a private address": (
        replace(passing(), client="192.168.0.7"), "V3", Strength.NOT),
    "V3: no answer": (
        replace(NOBODY, spf=SpfResult(result="temperror")), "V3", Strength.LATER),
    # V4
    "V4: the signature names both": (signed(NAMED), "V4", Strength.PROVEN),
    "V4: not the recipient, it may be replayed": (signed(OWN), "V4", Strength.WEAK),
    "V4: another mailbox of the domain": (
        signed(replace(NAMED, mailbox="eve@sender.example")), "V4", Strength.WEAK),
    "V4: no mailbox": (signed(replace(NAMED, mailbox="")), "V4", Strength.WEAK),
    "V4: the local part in another case": (
        signed(replace(NAMED, mailbox="Bob@sender.example")), "V4", Strength.WEAK),
    "V4: with a tag": (
        signed(replace(NAMED, mailbox="bob+x@sender.example")), "V4", Strength.WEAK),
    "V4: one signature names the sender, the other the recipient": (
        signed(OWN, replace(NAMED, mailbox="")), "V4", Strength.WEAK),
    "V4: the sender is written otherwise": (
        signed(NAMED, facts=replace(NOBODY, reverse_path='"bo\\b"@Sender.Example.')),
        "V4", Strength.PROVEN),
    "V4: of a subdomain, for the domain above": (
        signed(replace(NAMED, domain="mail.sender.example")), "V4", Strength.WEAK),
    "V4: of a subdomain, which a policy that DNS keeps back may forbid": (
        signed(
            replace(NAMED, domain="mail.sender.example"),
            facts=replace(NOBODY, dmarc=SILENT),
        ),
        "V4", Strength.LATER),
    "V4: of the very domain, whatever the policy": (
        signed(NAMED, facts=replace(NOBODY, dmarc=SILENT)), "V4", Strength.PROVEN),
    "V4: of a subdomain, and another author's policy is kept back": (
        signed(
            replace(NAMED, domain="mail.sender.example"),
            facts=replace(NOBODY, dmarc=replace(SILENT, organisation="a.example")),
        ),
        "V4", Strength.WEAK),
    "V4: of another organisation": (
        signed(signature(domain="x.example", organisation="x.example")),
        "V4", Strength.NOT),
    "V4: of a parent domain": (
        signed(replace(NAMED, mailbox="bob@mail.sender.example"), facts=BELOW),
        "V4", Strength.PROVEN),
    "V4: of a parent domain, for the parent": (
        signed(NAMED, facts=BELOW), "V4", Strength.WEAK),
    "V4: of a parent domain, but strict": (
        signed(NAMED, facts=replace(BELOW, dmarc=replace(
            PUBLISHED, strict_dkim=True))),
        "V4", Strength.NOT),
    "V4: no answer about the key": (
        signed(signature(state=Strength.LATER)), "V4", Strength.LATER),
    "V4: a bad one beside a good one": (
        signed(signature(state=Strength.NOT), NAMED), "V4", Strength.PROVEN),
    "V4: only bad ones": (signed(signature(state=Strength.NOT)), "V4", Strength.NOT),
    # V5
    "V5: by SPF": (replace(passing(), dmarc=PUBLISHED), "V5", Strength.PROVEN),
    "V5: by a signature that may be replayed": (
        signed(signature(), facts=replace(NOBODY, dmarc=PUBLISHED)),
        "V5", Strength.WEAK),
    "V5: no policy": (passing(), "V5", Strength.NOT),
    "V5: another author": (
        replace(passing(), dmarc=replace(PUBLISHED, organisation="x.example")),
        "V5", Strength.NOT),
    "V5: by SPF of a subdomain, but strict": (
        replace(passing(), domain="mail.sender.example",
                dmarc=replace(PUBLISHED, strict_spf=True)), "V5", Strength.NOT),
    "V5: neither": (replace(NOBODY, dmarc=PUBLISHED), "V5", Strength.NOT),
    # V6
    "V6: the backup saw SPF pass": (
        replace(NOBODY, claims=(claim("spf"),)), "V6", Strength.WEAK),
    "V6: about another sender": (
        replace(NOBODY, claims=(claim("spf", "mail.sender.example"),)),
        "V6", Strength.NOT),
    "V6: everybody passes there": (
        replace(passing(term("all", None)), claims=(claim("spf"),)),
        "V6", Strength.NOT),
    "V6: the backup took an open signature for valid": (
        signed(signature(state=Strength.NOT, refused=True),
               facts=replace(NOBODY, claims=(claim("dkim"),))), "V6", Strength.NOT),
    "V6: DKIM and DMARC": (
        replace(NOBODY, claims=(claim("dkim"), claim("dmarc"))), "V6", Strength.WEAK),
}  # fmt: skip


def test_every_rule_is_tested() -> None:
    """And has a row where it proves something."""
    assert {rule for _, rule, _ in ROWS.values()} == set(RULES)
    found = {
        rule for _, rule, strength in ROWS.values() if strength is not Strength.NOT
    }
    assert found == set(RULES)


@pytest.mark.parametrize(("facts", "rule", "strength"), ROWS.values(), ids=ROWS)
def test_a_rule_finds(facts: SenderFacts, rule: str, strength: Strength) -> None:
    """Each row of the table."""
    row = look(facts)[rule]
    assert row.strength is strength, row.found
    assert row.found


@pytest.mark.parametrize(
    "result", ["none", "neutral", "softfail", "fail", "permerror", "policy"]
)
def test_nothing_but_pass_is_a_pass(result: str) -> None:
    """Best guesses neither."""
    assert (
        look(replace(NOBODY, spf=SpfResult(result=result)))["V3"].strength
        is Strength.NOT
    )


SUMS: Final = {
    "one strong rule": (passing(), Strength.PROVEN, "V3"),
    "weak SPF alone": (WEAK_SPF, Strength.WEAK, ""),
    "a weak signature alone": (signed(OWN), Strength.WEAK, ""),
    "both weak": (signed(OWN, facts=WEAK_SPF), Strength.PROVEN, "V3+V4"),
    "weak SPF, and a signature that any user of the domain can get": (
        signed(signature(), facts=WEAK_SPF), Strength.WEAK, ""),
    "weak SPF, and another's mail to the very recipient": (
        signed(replace(NAMED, mailbox="eve@sender.example"), facts=WEAK_SPF),
        Strength.WEAK, ""),
    "both, as the backup saw them": (
        replace(NOBODY, author="bob@sender.example",
                claims=(claim("spf"), claim("dkim"))), Strength.PROVEN, "V3+V4"),
    "both, as the backup saw them, and the signer names another": (
        replace(NOBODY, author="bob@sender.example", claims=(
            claim("spf"), claim("dkim", mailbox="eve@sender.example"))),
        Strength.WEAK, ""),
    "both, as the backup saw them, and the signer names the sender": (
        replace(NOBODY, author="list@sender.example", claims=(
            claim("spf", mailbox="Bob@sender.example"),
            claim("dkim", mailbox="bob@sender.example"))), Strength.PROVEN, "V3+V4"),
    "the backup saw SPF pass for another mailbox": (
        replace(NOBODY, author="bob@sender.example", claims=(
            claim("spf", mailbox="eve@sender.example"), claim("dkim"))),
        Strength.WEAK, ""),
    "the backup saw a signature of a subdomain": (
        replace(NOBODY, author="bob@sender.example", claims=(
            claim("spf"),
            claim("dkim", "eve.sender.example", organisation="sender.example"))),
        Strength.WEAK, ""),
    "both, as the backup saw them, of another author": (
        replace(NOBODY, author="eve@sender.example",
                claims=(claim("spf"), claim("dkim"))), Strength.WEAK, ""),
    "both, as the backup saw them, of authors that nobody can tell": (
        replace(NOBODY, claims=(claim("spf"), claim("dkim"))), Strength.WEAK, ""),
    "SPF seen by the backup, the signature valid now": (
        signed(OWN, facts=replace(NOBODY, claims=(claim("spf"),))),
        Strength.PROVEN, "V3+V4"),
    "DMARC says nothing of its own": (
        replace(NOBODY, claims=(claim("spf"), claim("dmarc"))), Strength.WEAK, ""),
    "what DNS may still prove is waited for": (
        signed(signature(state=Strength.LATER), facts=WEAK_SPF), Strength.LATER, ""),
    "a valid signature beside +all": (
        signed(OWN, facts=replace(
            passing(term("all", None)), claims=(claim("spf"),))), Strength.WEAK, ""),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "strength", "by"), SUMS.values(), ids=SUMS)
def test_the_rules_amount_to(facts: SenderFacts, strength: Strength, by: str) -> None:
    """One strong rule, or weak SPF and a weak signature together."""
    evidence = look(facts)
    assert (evidence.strength, evidence.by) == (strength, by)


@pytest.mark.parametrize("kind", ["rfc822", "RFC822", "utf-8", "x400"])
def test_orcpt_names_no_recipient(kind: str) -> None:
    """It is the client's word: any signed mail would have a recipient that fits."""
    claimed = Recipient(
        forward_path="a1@inner.example", orcpt=f"{kind};Anna@primary.example"
    )
    assert look(signed(NAMED), claimed)["V4"].strength is Strength.WEAK


def test_the_recipient_is_the_one_that_the_backup_took() -> None:
    """Wherever the operator sends it to now."""
    moved = Recipient(
        forward_path="a1@inner.example", original='"Anna"@PRIMARY.example.'
    )
    assert look(signed(NAMED), moved)["V4"].strength is Strength.PROVEN


RETURNS: Final = {
    "a login": (replace(NOBODY, login="bob@sender.example"), True),
    "a trusted network": (replace(NOBODY, client="198.51.100.9"), True),
    "an address in the sender's own record": (passing(), True),
    "an include of its own organisation": (
        passing(term("include:_spf.sender.example", None), term()), False),
    "an organisation that the operator names": (included("trusted.example"), False),
    "a host of an organisation that the operator names": (
        passing(term("mx", 32, foreign=("mx.trusted.example",))), False),
    "a signature": (signed(NAMED), False),
    "weak SPF and a signature": (signed(OWN, facts=WEAK_SPF), False),
    "nothing": (NOBODY, False),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "may"), RETURNS.values(), ids=RETURNS)
def test_what_lets_the_whole_original_return(facts: SenderFacts, may: bool) -> None:  # noqa: FBT001
    """Only proofs that no mail which others signed can give."""
    assert look(facts).may_return is may


def test_a_sender_without_a_domain_is_aligned_with_nothing() -> None:
    """Two empty domains are not the same organisation."""
    facts = replace(NOBODY, domain="", organisation="", reverse_path="")
    other = signature(domain="", organisation="")
    assert look(signed(other, facts=facts)).strength is Strength.NOT
    claims = (claim("spf", ""), claim("dkim", ""))
    assert look(replace(facts, claims=claims)).strength is Strength.NOT


def test_why_something_was_not_looked_at_is_reported() -> None:
    """Instead of "there is none"."""
    facts = replace(NOBODY, skipped={"V4": "larger than 32 MiB"})
    assert look(facts)["V4"].found == "larger than 32 MiB"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("IPv6:2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", None),
        ("unknown", None),
        ("list", None),
        ("list6", None),
        ("", None),
        ("192.0.2.1, 198.51.100.1", None),
        ("192.0.2.010", None),
    ],
)
def test_an_address_as_spools_write_it(text: str, address: str | None) -> None:
    """Pyspf takes `list` for a wish to see every address, and raises on the rest."""
    found = parse_address(text)
    assert (str(found) if found else None) == address


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("10.1.2.3", True), ("127.0.0.1", True), ("172.31.0.1", True), ("::1", True),
        ("fd00::1", True), ("100.64.0.1", True), ("8.8.8.8", False),
        ("192.0.2.1", False), ("2001:db8::1", False), ("172.32.0.1", False),
        ("192.0.1.1", False), ("192.88.100.1", False), ("198.17.9.9", False),
        ("223.255.255.1", False), ("2001:200::1", False), ("2a00::1", False),
        ("0.0.0.0", True), ("100.127.0.1", True), ("169.254.0.1", True),
        ("192.0.0.170", True), ("192.88.99.1", True), ("198.18.0.1", True),
        ("198.19.255.1", True), ("224.0.0.1", True), ("240.0.0.1", True),
        ("255.255.255.255", True),
    ],
)  # fmt: skip
def test_private_addresses(text: str, private: bool) -> None:  # noqa: FBT001
    """Of a relay of ours, so that SPF says nothing about the sender."""
    address = parse_address(text)
    assert address is not None
    assert is_private(address) is private


@pytest.mark.parametrize(
    "text",
    [
        "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::8.8.8.8", "::ffff:0:808:808",
        "64:ff9b::808:808", "64:ff9b:1::808:808", "64:ff9b::7f00:1",
        "2002:808:808::1", "2002:7f00:1::1", "2001::808:808", "2001:0:7f00:1::1",
        "2001:2::1", "2001:10::1", "fec0::1", "fe80::1", "fc00::1", "ff02::1",
        "100::1", "::", "::1", "5f00::1", "10.0.0.1", "198.18.0.25", "nonsense", "",
    ],
)  # fmt: skip
def test_no_mail_server_elsewhere_has_such_an_address(text: str) -> None:
    """Local, for tests, or with an IPv4 address inside, whatever that is."""
    assert not is_public(text)


def test_addresses_of_mail_servers() -> None:
    """Those for documentation stand for real ones in every test."""
    for text in ("8.8.8.8", "192.0.2.1", "2a00:1450::1", "2001:db8::1", "2001:4860::1"):
        assert is_public(text)


def test_a_lookalike_is_not_within() -> None:
    """A domain ends at a dot."""
    assert is_within("a.victim.example", ["victim.example"])
    assert is_within("victim.example", ["victim.example"])
    assert not is_within("evil-victim.example", ["victim.example"])
    assert not is_within("victim.example.evil.example", ["victim.example"])
