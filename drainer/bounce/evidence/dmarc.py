"""The author's domain, and whether it publishes a DMARC policy (RFC 7489)."""

import re

from msgspec.structs import replace

from drainer.bounce.evidence.dns import DnsOutcome, Resolver
from drainer.mail.addresses import mailboxes_of
from drainer.mail.envelope import domain_of
from drainer.mail.header import fields_of, unfold
from drainer.mail.mailbox import ascii_domain
from drainer.policy.bounce.facts import DmarcPolicy
from drainer.runtime.public_suffixes import organisation_of

_MAX_FROM_LENGTH = 2000
_RECORD = re.compile(rb"v[ \t]*=[ \t]*DMARC1[ \t]*;", re.IGNORECASE)
_TAG = re.compile(r"[ \t]*([A-Za-z]+)[ \t]*=[ \t]*([^;]*?)[ \t]*(?:;|$)")


def look(dns: Resolver, head: bytes, sender: str = "") -> DmarcPolicy:
    """Return the policy of the one author of a message; its detail says why not.

    ``sender`` is the organisation of the envelope sender, which alone matters: DNS is
    not asked about another author, so that a forged From makes no sender wait.
    """
    domain = author_domain(head)
    if not domain:
        return DmarcPolicy(detail="not exactly one author (From)")
    policy = DmarcPolicy(domain=domain, organisation=organisation_of(domain))
    if sender and policy.organisation != sender:
        return replace(policy, detail=f"the author is of {domain}")
    for name in dict.fromkeys((domain, policy.organisation)):
        answer = dns.ask(f"_dmarc.{name}", "TXT")
        if answer.outcome is DnsOutcome.FAILED:
            detail = f"DNS did not answer: {answer.detail}"
            return replace(policy, later=True, detail=detail)
        records = [record for record in answer.records if _RECORD.match(record)]
        if len(records) > 1:
            return replace(policy, detail=f"several policies at _dmarc.{name}")
        if records:
            tags = dict(_TAG.findall(records[0].decode("ascii", "replace").lower()))
            return replace(
                policy,
                published=tags.get("p") in ("none", "quarantine", "reject"),
                strict_dkim=tags.get("adkim") == "s",
                strict_spf=tags.get("aspf") == "s",
            )
    return replace(policy, detail=f"{domain} publishes no policy")


def author_domain(head: bytes) -> str:
    """Return the domain of the only address of the only From field; otherwise ''."""
    values = [unfold(each.value) for each in fields_of(head) if each.name == "from"]
    if len(values) != 1 or len(values[0]) > _MAX_FROM_LENGTH:
        return ""
    found = mailboxes_of(values[0])
    return ascii_domain(domain_of(found[0])) if len(found) == 1 else ""
