"""Decide whether the sender is proven: rules V1 to V6 over gathered facts; pure.

A strong rule is about the envelope sender itself, or about who may send for all of its
domain. One strong rule proves the sender. A weak SPF pass proves it only together with
a signature that names the sender's mailbox, but not the recipient. A signature of
another mailbox of the domain adds nothing: any user of it can get one.

A question that no DNS server answered is decided *later*. A missing record is *not*
evidence, and not a forgery either.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from drainer.mail.envelope import Recipient
from drainer.mail.mailbox import mailbox_key
from drainer.policy.bounce.facts import (
    AuthResult,
    DkimSignature,
    SenderFacts,
    SpfTerm,
    Strength,
    TrustSettings,
    is_private,
    is_within,
    parse_address,
)

WIDEST = {4: 16, 6: 32}
"""Shortest prefix by IP version that still identifies a sender."""
_OF_CLIENT = re.compile(r"%\{i", re.IGNORECASE)
"""The macro that differs from client to client (RFC 7208 7.2)."""
_CHOSEN_BY_CLIENT = re.compile(r"%\{[hp]", re.IGNORECASE)
"""HELO and the reverse name of an address: every client chooses its own."""
_LATE = ("V3", "V4", "V5")
"""Rules that ask DNS now instead of at reception: records change, and keys rotate."""


class EvidenceRow(Struct, frozen=True, kw_only=True):
    """What one rule found."""

    rule: str
    strength: Strength
    found: str
    #: The answer is from now, not from the time of reception.
    late: bool = False


class Evidence(Struct, frozen=True, kw_only=True):
    """Every rule's row, and their result."""

    strength: Strength
    #: The rule that decided, or 'V3+V4'; '' if nothing proves the sender.
    by: str
    rows: tuple[EvidenceRow, ...]
    #: The proof is strong enough to return the whole original.
    may_return: bool = False

    def __getitem__(self, rule: str) -> EvidenceRow:
        return next(row for row in self.rows if row.rule == rule)

    @property
    def words(self) -> dict[str, str]:
        """Return what was found, by rule, for the ledger and the trace."""
        return {row.rule: f"{row.strength}: {row.found}" for row in self.rows}


class _Case(Struct, frozen=True, kw_only=True):
    facts: SenderFacts
    recipient: Recipient
    trust: TrustSettings


_Answer = tuple[Strength, str]


def judge(facts: SenderFacts, recipient: Recipient, trust: TrustSettings) -> Evidence:
    """Apply V1 to V6 for one recipient, which a signature must name (rule V4)."""
    case = _Case(facts=facts, recipient=recipient, trust=trust)
    rows = []
    for rule, (_, look) in RULES.items():
        strength, found = look(case)
        reason = facts.skipped.get(rule)
        if reason and strength is Strength.NOT:
            found = reason
        rows.append(
            EvidenceRow(rule=rule, strength=strength, found=found, late=rule in _LATE)
        )
    strength, by = _sum(rows, case)
    return Evidence(
        strength=strength, by=by, rows=tuple(rows), may_return=_may_return(by, case)
    )


def _sum(rows: Iterable[EvidenceRow], case: _Case) -> tuple[Strength, str]:
    found = {row.rule: row.strength for row in rows}
    for rule, strength in found.items():
        if strength is Strength.PROVEN:
            return strength, rule
    claims = _about_sender(case)
    by_network = found["V3"] is Strength.WEAK or any(c.method == "spf" for c in claims)
    by_signature = _own_signatures(case.facts) or any(
        _vouches(claim, case.facts) for claim in claims
    )
    if by_network and by_signature:
        return Strength.PROVEN, "V3+V4"
    for strength in (Strength.LATER, Strength.WEAK):
        if strength in found.values():
            return strength, ""
    return Strength.NOT, ""


def _vouches(claim: AuthResult, facts: SenderFacts) -> bool:
    """Return whether a claim is of a signature of the sender's mailbox, as for V4."""
    return (
        claim.method == "dkim"
        and is_within(facts.domain, (claim.domain,))
        and (claim.mailbox or facts.author) == facts.sender != ""
    )


def _may_return(by: str, case: _Case) -> bool:
    """Return whether only the sender's own host can have sent it.

    Proof is by SPF, if the record of exactly this domain names an address of its own.
    """
    if by != "V3":
        return by in ("V1", "V2")
    path = case.facts.spf.path if case.facts.spf else ()
    return len(path) == 1 and not path[0].foreign


# ---- the rules


def _login(case: _Case) -> _Answer:
    login = case.facts.login
    if not login:
        return Strength.NOT, "no login in the spool's record"
    sender, owner = mailbox_key(case.facts.reverse_path), mailbox_key(login)
    local, _, domain = sender.rpartition("@")
    ours = is_within(domain, case.trust.relay_domains)
    if local and owner == sender:
        return Strength.PROVEN, f"sent by the login {login}"
    if local and ours and login.casefold() == local:
        return Strength.PROVEN, f"sent by the login {login} of {domain}"
    return Strength.NOT, f"the login {login} is not the sender's"


def _network(case: _Case) -> _Answer:
    address = parse_address(case.facts.client)
    if address is None:
        return Strength.NOT, "no client address in the spool's record"
    for network in case.trust.trusted_networks:
        if address in network:
            return Strength.PROVEN, f"{address} is in the trusted network {network}"
    return Strength.NOT, f"{address} is in no trusted network"


def _spf(case: _Case) -> _Answer:
    facts = case.facts
    if facts.spf is None:
        return Strength.NOT, "not checked"
    if facts.spf.result == "temperror":
        return Strength.LATER, f"DNS did not answer: {facts.spf.detail}"
    if facts.spf.result != "pass":
        return Strength.NOT, f"SPF {facts.spf.result} {facts.spf.detail}".rstrip()
    address = parse_address(facts.client)
    if address is None or is_private(address):
        return Strength.NOT, "SPF pass, but of an address that is not public"
    return _weigh(facts.spf.path, address.version, case.trust)


def _weigh(path: tuple[SpfTerm, ...], version: int, trust: TrustSettings) -> _Answer:
    """Return what an SPF pass proves: some records let every client pass."""
    if not path:
        return Strength.NOT, "SPF pass by an unknown term"
    term = path[-1]
    words = "SPF pass by " + " > ".join(f"{t.domain} {t.text}" for t in path)
    if term.mechanism in ("all", "ptr"):
        return Strength.NOT, f"{words}: {term.mechanism} proves nothing"
    if term.prefix is not None and term.prefix < WIDEST[version]:
        return Strength.NOT, f"{words}: wider than /{WIDEST[version]}"
    if any(_CHOSEN_BY_CLIENT.search(step.text) for step in path):
        return Strength.NOT, f"{words}: every client chooses what is looked up"
    by_client = any(_OF_CLIENT.search(step.text) for step in path)
    if term.mechanism == "exists" and not by_client:
        return Strength.NOT, f"{words}: it is the same for every client"
    if any(step.macro for step in path):
        return Strength.WEAK, f"{words}: by a macro"
    for name in (name for step in path for name in step.foreign):
        if not is_within(name, trust.trusted_spf_domains):
            return Strength.WEAK, f"{words}: {name} is of another organisation"
    return Strength.PROVEN, words


def proving_signatures(facts: SenderFacts, recipient: Recipient) -> list[DkimSignature]:
    """Return the signatures that prove a sender: they name both mailboxes."""
    return [s for s in _own_signatures(facts) if _names(s, recipient)]


def _own_signatures(facts: SenderFacts) -> list[DkimSignature]:
    """Return the valid signatures that vouch for exactly the sender's mailbox.

    Their domain is the sender's own, or one above it: others may sign below a domain.
    """
    return [
        each
        for each in _valid_signatures(facts)
        if _is_sure(each, facts)
        and each.mailbox == facts.sender != ""
        and is_within(facts.domain, (each.domain,))
    ]


def _valid_signatures(facts: SenderFacts) -> list[DkimSignature]:
    aligned = (each for each in facts.signatures if _is_aligned(each, facts))
    return [each for each in aligned if each.state is Strength.PROVEN]


def _dkim(case: _Case) -> _Answer:
    valid = _valid_signatures(case.facts)
    sure = [each for each in valid if _is_sure(each, case.facts)]
    own = _own_signatures(case.facts)
    if proving := proving_signatures(case.facts, case.recipient):
        words = f"signed by {proving[0].domain}, names the sender and the recipient"
        return Strength.PROVEN, words
    if own:
        words = f"signed by {own[0].domain}, but does not name the recipient"
        return Strength.WEAK, words
    if sure:
        words = f"signed by {sure[0].domain}, but not for the sender's mailbox"
        return Strength.WEAK, words
    if valid:
        return Strength.LATER, f"DNS did not say whether {valid[0].domain} may sign"
    aligned = [each for each in case.facts.signatures if _is_aligned(each, case.facts)]
    for state in (Strength.LATER, Strength.NOT):
        for each in aligned:
            if each.state is state:
                return state, f"signature of {each.domain}: {each.detail}"
    others = ", ".join(sorted({s.domain for s in case.facts.signatures})[:5])
    return Strength.NOT, (
        f"signed only by {others}" if others else "no signature of the sender's domain"
    )


def _is_aligned(signature: DkimSignature, facts: SenderFacts) -> bool:
    if not facts.domain:
        return False
    if facts.dmarc.strict_dkim and facts.dmarc.organisation == facts.organisation:
        return signature.domain == facts.domain
    return signature.organisation == facts.organisation


def _is_sure(signature: DkimSignature, facts: SenderFacts) -> bool:
    """Return whether it is aligned even if the unknown policy is strict."""
    unknown = facts.dmarc.later and facts.dmarc.organisation == facts.organisation
    return signature.domain == facts.domain or not unknown


def _names(signature: DkimSignature, recipient: Recipient) -> bool:
    """Return whether it covers the envelope recipient; the client chooses ORCPT."""
    path = recipient.original or recipient.forward_path
    return mailbox_key(path) in signature.addressees


def _dmarc(case: _Case) -> _Answer:
    facts = case.facts
    dmarc = facts.dmarc
    if not dmarc.published:
        return Strength.NOT, dmarc.detail or "no DMARC policy"
    if dmarc.organisation != facts.organisation:
        return Strength.NOT, f"the author is of {dmarc.domain}"
    spf, _ = _spf(case)
    if dmarc.strict_spf and dmarc.domain != facts.domain:
        spf = Strength.NOT
    dkim, _ = _dkim(case)
    for strength in (Strength.PROVEN, Strength.LATER, Strength.WEAK):
        if strength in (spf, dkim):
            how = "SPF" if spf is strength else "DKIM"
            return strength, f"policy of {dmarc.domain}, by {how}"
    return Strength.NOT, f"policy of {dmarc.domain}, but neither SPF nor DKIM"


def _results(case: _Case) -> _Answer:
    claims = _about_sender(case)
    if not claims:
        return Strength.NOT, "no trusted Authentication-Results about the sender"
    words = ", ".join(f"{claim.method}=pass ({claim.domain})" for claim in claims)
    return Strength.WEAK, f"{claims[0].authserv_id} says {words}"


def _about_sender(case: _Case) -> list[AuthResult]:
    """Return the claims about the sender's domain that our own checks do not refute."""
    claims = case.facts.claims if case.facts.domain else ()
    return [claim for claim in claims if _counts(claim, case)]


def _counts(claim: AuthResult, case: _Case) -> bool:
    facts = case.facts
    if claim.method == "spf":
        passes = facts.spf is not None and facts.spf.result == "pass"
        if passes and _spf(case)[0] is Strength.NOT:
            return False  # every client passes there, and did at reception
        mailbox = mailbox_key(claim.mailbox or facts.reverse_path)
        return claim.domain == facts.domain and mailbox == mailbox_key(
            facts.reverse_path
        )
    if claim.method == "dkim" and any(
        s.refused and s.domain == claim.domain for s in facts.signatures
    ):
        return False
    return claim.organisation == facts.organisation


RULES: Mapping[str, tuple[str, Callable[[_Case], _Answer]]] = {
    "V1": ("authenticated submission: the login owns the sender", _login),
    "V2": ("the client is in a network that the operator trusts", _network),
    "V3": ("SPF pass for the sender's domain", _spf),
    "V4": ("a DKIM signature of the sender's domain", _dkim),
    "V5": ("DMARC pass, the author is of the sender's domain", _dmarc),
    "V6": ("Authentication-Results that the backup itself wrote", _results),
}
"""Rule -> its subject and its function."""
