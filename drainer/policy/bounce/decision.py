"""Decide whether the sender may get a bounce: rules G1 to G15, the first match decides.

Pure. Backscatter destroys the backup's reputation, so without proof there is no bounce.
What must not be reported is kept and shown, never dropped.
"""

import enum
import re
from collections.abc import Callable, Mapping
from datetime import timedelta

from msgspec import Struct, field

from drainer.mail.dsn.model import DsnAction
from drainer.mail.envelope import (
    NULL_SENDER,
    AddressError,
    Recipient,
    domain_of,
    parse_mailbox,
)
from drainer.mail.list_markers import ListMarkers
from drainer.mail.mailbox import ascii_domain, mailbox_key
from drainer.policy.bounce.evidence import Evidence, judge, proving_signatures
from drainer.policy.bounce.facts import (
    Reachability,
    SenderFacts,
    Strength,
    TrustSettings,
    is_within,
)
from drainer.policy.bounce.limits import ReportHistory, ReportLimits, find_exceeded
from drainer.policy.classify.verdict import Classification, Scope, Verdict


class BounceAnswer(enum.StrEnum):
    """What the bounce rules say."""

    SEND = "send"
    #: Not now, because the failure is not final.
    UNDECIDED = "undecided"
    #: Not now, because DNS did not answer.
    LATER = "later"
    NO = "no"
    #: No, and drainer does not offer the message for release.
    NEVER = "never"


class BounceDecision(Struct, frozen=True, kw_only=True):
    """The answer, the rule that gave it, and its reasons."""

    answer: BounceAnswer
    rule: str
    reason: str
    #: What was found, by rule V1 to V6.
    evidence: Mapping[str, str]
    #: The proof is strong enough to return the whole original.
    may_return: bool = False


class BounceCase(Struct, frozen=True, kw_only=True):
    """The outcome for one recipient, and all that is known about its sender."""

    facts: SenderFacts
    recipient: Recipient
    marks: ListMarkers
    trust: TrustSettings
    #: The name of this host; our reports come from MAILER-DAEMON there.
    hostname: str
    #: Why the primary refused; None for a message that was not classified.
    classification: Classification | None = None
    #: What the report would say: a failure, or that the message was relayed.
    action: DsnAction = DsnAction.FAILED
    #: ``subject.detail`` of the refusal, and its text.
    detail: str = ""
    words: str = ""
    #: The same refusal came again after the confirmation delay (or an operator
    #: approved).
    confirmed: bool = False
    #: A report about this failure was sent already.
    reported: bool = False
    sent: ReportHistory = field(default_factory=ReportHistory)
    limits: ReportLimits = field(default_factory=ReportLimits)
    #: Time since drainer first looked for evidence; after ``patience``, "later" becomes
    #: "no".
    waited: timedelta = timedelta(0)
    patience: timedelta = timedelta(hours=24)

    @property
    def sender(self) -> str:
        """The reverse-path."""
        return self.facts.reverse_path


_Finding = tuple[BounceAnswer, str] | None
_Look = Callable[[BounceCase, Evidence], _Finding]

_NOTIFY = {DsnAction.FAILED: "FAILURE", DsnAction.RELAYED: "SUCCESS"}
_NOWHERE = ("localhost", "localdomain", "local", "invalid", "onion", "internal", "arpa")
"""Top-level names without a public mail server (RFC 6761, RFC 6762)."""
_ROBOTS = ("mailer-daemon", "double-bounce")
_OWN_ROBOTS = (*_ROBOTS, "postmaster", "bounce")
CONTENT_RULES = re.compile(r"text-(content(-policy|-blocklist)?|policy-as-mechanism)")
"""The families of families.toml that refuse a message because of its content."""

_CONTENT_DETAILS = re.compile(r"6\.\d+|7\.2\d")
_EVIL = re.compile(r"\b(virus|malware|phish\w*|trojan)\b", re.IGNORECASE)
_UNREACHABLE = {
    Reachability.NXDOMAIN: "does not exist",
    Reachability.NULL_MX: "accepts no mail (null MX)",
    Reachability.NO_ADDRESS: "has no mail server",
    Reachability.OURS: "has only mail servers at private addresses, or is served by us",
}


def decide(case: BounceCase) -> BounceDecision:
    """Return the decision of the first rule that applies."""
    evidence = judge(case.facts, case.recipient, case.trust)
    rule, (answer, reason) = next(
        (rule, found)
        for rule, (_, look) in RULES.items()
        if (found := look(case, evidence)) is not None
    )
    if answer is BounceAnswer.LATER and case.waited >= case.patience:
        answer, reason = BounceAnswer.NO, f"{reason}, and the wait was too long"
    return BounceDecision(
        answer=answer,
        rule=rule,
        reason=reason,
        evidence=evidence.words,
        may_return=evidence.may_return,
    )


# ---- the rules


def _is_open(case: BounceCase, _: Evidence) -> _Finding:
    if case.action is not DsnAction.FAILED:
        return None
    classification = case.classification
    if classification is None or classification.verdict is not Verdict.BOUNCE:
        return BounceAnswer.UNDECIDED, "the failure is not final"
    if classification.scope not in (Scope.RECIPIENT, Scope.MESSAGE):
        return (
            BounceAnswer.UNDECIDED,
            f"the refusal is about the {classification.scope}",
        )
    if not case.confirmed:
        return BounceAnswer.UNDECIDED, "the refusal is not confirmed"
    return None


def _is_null(case: BounceCase, _: Evidence) -> _Finding:
    if case.sender == NULL_SENDER:
        return BounceAnswer.NEVER, "the sender is <> (RFC 5321 4.5.5)"
    return None


def _is_unwanted(case: BounceCase, _: Evidence) -> _Finding:
    notify = {each.upper() for each in case.recipient.notify}
    if not notify and case.action is DsnAction.FAILED:
        return None  # failures are reported unless the client says otherwise
    if _NOTIFY[case.action] in notify:
        return None
    asked = ",".join(sorted(notify)) or "nothing"
    return BounceAnswer.NEVER, f"the sender asked for NOTIFY={asked} (RFC 3461 4.1)"


def _is_no_address(case: BounceCase, _: Evidence) -> _Finding:
    try:
        parse_mailbox(case.sender)
    except AddressError as error:
        return BounceAnswer.NO, str(error)
    domain = domain_of(case.sender)
    if domain.startswith("["):
        return BounceAnswer.NO, f"{domain} is an address, not a domain"
    if "." not in domain or domain.rpartition(".")[2] in _NOWHERE:
        return BounceAnswer.NO, f"{domain or case.sender} is not an Internet domain"
    if not case.facts.domain:
        return BounceAnswer.NO, f"{domain} is not a DNS name"
    return None


def _is_loop(case: BounceCase, _: Evidence) -> _Finding:
    sender = mailbox_key(case.sender, case.limits.tag_delimiters)
    reporter = f"MAILER-DAEMON@{case.hostname}"
    if sender == mailbox_key(reporter, case.limits.tag_delimiters):
        return BounceAnswer.NEVER, "the sender is the address of our own reports"
    local, _at, domain = sender.rpartition("@")
    at_home = domain == case.hostname.lower().rstrip(".")
    if local in (_OWN_ROBOTS if at_home else _ROBOTS):
        return BounceAnswer.NEVER, f"{local} is a robot"
    return None


def _is_report(case: BounceCase, _: Evidence) -> _Finding:
    if case.marks.report:
        return BounceAnswer.NEVER, f"the message is a report ({case.marks.report})"
    return None


def _is_automatic(case: BounceCase, evidence: Evidence) -> _Finding:
    kind = case.marks.auto_submitted
    if kind in ("", "no"):
        return None
    proven = evidence.strength in (Strength.PROVEN, Strength.LATER)
    if kind == "auto-generated" and proven:
        return None  # shops and cron jobs need reports; G13 decides
    return BounceAnswer.NO, f"Auto-Submitted: {kind} (RFC 3834 5)"


def _is_suppressed(case: BounceCase, _: Evidence) -> _Finding:
    if case.marks.suppressed:
        return BounceAnswer.NO, "X-Auto-Response-Suppress forbids reports"
    return None


def _is_bulk(case: BounceCase, _: Evidence) -> _Finding:
    if case.marks.precedence not in ("bulk", "junk"):
        return None
    if case.marks.is_list or _is_verp(case):
        return None  # list managers need reports; G13 decides
    return BounceAnswer.NO, f"Precedence: {case.marks.precedence}, but not from a list"


def _is_verp(case: BounceCase) -> bool:
    user, _, domain = case.recipient.forward_path.lower().rpartition("@")
    return f"{user}={domain}" in case.sender.lower()


def _is_content(case: BounceCase, _: Evidence) -> _Finding:
    rule = case.classification.rule if case.classification else ""
    refused = CONTENT_RULES.fullmatch(rule) or _CONTENT_DETAILS.fullmatch(case.detail)
    if case.marks.virus or (refused and _EVIL.search(case.words)):
        return BounceAnswer.NEVER, f"a virus or a fraud ({case.marks.virus or rule})"
    if case.marks.spam or refused:
        return BounceAnswer.NO, f"refused for its content ({case.marks.spam or rule})"
    return None


def _is_protected(case: BounceCase, evidence: Evidence) -> _Finding:
    facts, recipient = case.facts, case.recipient
    path = recipient.original or recipient.forward_path
    ours = case.trust.relay_domains | {ascii_domain(domain_of(path))} - {""}
    if not is_within(facts.domain, ours):
        return None
    rows = evidence["V1"], evidence["V2"]
    if any(row.strength is Strength.PROVEN for row in rows):
        return None
    signatures = proving_signatures(facts, recipient)
    if any(each.domain == facts.domain for each in signatures):
        return None
    if evidence["V4"].strength is Strength.LATER:
        return BounceAnswer.LATER, f"{facts.domain} is ours; {evidence['V4'].found}"
    return BounceAnswer.NO, f"{facts.domain} is ours: the most common forgery"


def _is_unreachable(case: BounceCase, _: Evidence) -> _Finding:
    reach = case.facts.reach
    if reach is Reachability.LATER:
        return BounceAnswer.LATER, f"DNS of {case.facts.domain} did not answer in time"
    words = _UNREACHABLE.get(reach)
    return (BounceAnswer.NO, f"{case.facts.domain} {words}") if words else None


def _is_unproven(_: BounceCase, evidence: Evidence) -> _Finding:
    match evidence.strength:
        case Strength.PROVEN:
            return None
        case Strength.LATER:
            return BounceAnswer.LATER, "DNS did not answer what could prove the sender"
        case Strength.WEAK:
            return BounceAnswer.NO, "the evidence for the sender is too weak"
        case Strength.NOT:
            return BounceAnswer.NO, "nothing proves the sender"


def _is_too_much(case: BounceCase, _: Evidence) -> _Finding:
    if case.reported:
        return BounceAnswer.NO, "this failure was already reported"
    words = find_exceeded(case.limits, case.sent)
    return (BounceAnswer.NO, words) if words else None


def _is_due(_: BounceCase, evidence: Evidence) -> _Finding:
    return BounceAnswer.SEND, f"the sender is proven by {evidence.by}"


RULES: Mapping[str, tuple[str, _Look]] = {
    "G1": ("the failure is systemic, in doubt, held or not confirmed", _is_open),
    "G2": ("the null sender", _is_null),
    "G3": ("the sender does not want this report (NOTIFY)", _is_unwanted),
    "G4": ("the sender is not an Internet address", _is_no_address),
    "G5": ("the sender is a robot or drainer itself", _is_loop),
    "G6": ("the message is a report", _is_report),
    "G7": ("the message was sent automatically", _is_automatic),
    "G8": ("the message forbids reports", _is_suppressed),
    "G9": ("bulk mail that is not from a list", _is_bulk),
    "G10": ("spam, virus, or refused for its content", _is_content),
    "G11": ("the backup serves the sender's domain", _is_protected),
    "G12": ("the sender's domain accepts no mail", _is_unreachable),
    "G13": ("the sender is not proven", _is_unproven),
    "G14": ("already reported, or too many reports", _is_too_much),
    "G15": ("the sender is proven", _is_due),
}
"""Rule -> its subject and its function, in order."""
