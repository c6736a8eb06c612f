"""Gather the facts about one message's sender; blocks, and asks DNS."""

from drainer.bounce.evidence import dkim, dmarc, spf
from drainer.bounce.evidence.authres import claims_of
from drainer.bounce.evidence.dns import Resolver
from drainer.bounce.evidence.mx import reach_of
from drainer.bounce.evidence.request import (
    MAX_CONTENT_BYTES,
    MAX_HEADER_BYTES,
    EvidenceSettings,
    SenderQuestion,
)
from drainer.mail.addresses import only_author
from drainer.mail.envelope import domain_of
from drainer.mail.header import fields_of
from drainer.mail.mailbox import ascii_domain
from drainer.policy.bounce.facts import (
    DkimSignature,
    Reachability,
    SenderFacts,
    SpfResult,
    parse_address,
)
from drainer.runtime.public_suffixes import organisation_of


def gather(
    dns: Resolver, settings: EvidenceSettings, question: SenderQuestion
) -> SenderFacts:
    """Return the facts; never raises for the content of a message or an answer."""
    dns.begin()
    skipped: dict[str, str] = {}
    domain = ascii_domain(domain_of(question.reverse_path))
    if not domain:  # the null sender, an address literal, or not a name
        return SenderFacts(
            reverse_path=question.reverse_path,
            client=question.client,
            login=question.login,
            reach=Reachability.NXDOMAIN,
            skipped={f"V{n}": "the sender has no domain" for n in (3, 4, 5, 6)},
        )
    head = _head(question.content)
    if len(head) > MAX_HEADER_BYTES:
        head = b""
        skipped |= {f"V{n}": "the header is too large" for n in (4, 5, 6)}
    claims, reason = claims_of(head, authserv_ids=settings.authserv_ids)
    if reason:
        skipped.setdefault("V6", reason)
    return SenderFacts(
        reverse_path=question.reverse_path,
        domain=domain,
        organisation=organisation_of(domain),
        author=_author(head),
        client=question.client,
        login=question.login,
        spf=_spf(dns, question, domain, skipped),
        signatures=_signatures(dns, question, domain, skipped),
        dmarc=dmarc.look(dns, head, organisation_of(domain)),
        claims=claims,
        reach=reach_of(dns, domain, own=settings.names, private=settings.private),
        skipped=skipped,
    )


def _head(content: bytes) -> bytes:
    head, blank, _ = content.partition(b"\r\n\r\n")
    return head + b"\r\n" if blank else content


def _author(head: bytes) -> str:
    """Return the one author, if nothing in the header may hide another one."""
    fields = list(fields_of(head))
    if not fields or fields[-1].end != len(head):
        return ""
    return only_author([each.value for each in fields if each.name == "from"])


def _spf(
    dns: Resolver, question: SenderQuestion, domain: str, skipped: dict[str, str]
) -> SpfResult | None:
    address = parse_address(question.client)
    if address is None:
        skipped["V3"] = "no client address in the spool's record"
        return None
    local = question.reverse_path.rpartition("@")[0]
    return spf.check(
        dns, address, local=local, domain=domain, helo=ascii_domain(question.helo)
    )


def _signatures(
    dns: Resolver, question: SenderQuestion, domain: str, skipped: dict[str, str]
) -> tuple[DkimSignature, ...]:
    if "V4" in skipped:
        return ()
    if question.cut or len(question.content) > MAX_CONTENT_BYTES:
        skipped["V4"] = f"larger than {MAX_CONTENT_BYTES // 1024**2} MiB"
        return ()
    try:
        return dkim.check(
            dns,
            question.content,
            organisation=organisation_of(domain),
            arrived=question.arrived,
        )
    except dkim.NoUsableSignature as error:
        skipped["V4"] = str(error)
        return ()
