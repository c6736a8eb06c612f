"""G1 to G15: who may be told, first match first."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from msgspec.structs import replace

from drainer.mail.dsn.model import DsnAction
from drainer.mail.dsn.text import REASONS
from drainer.mail.envelope import Recipient
from drainer.mail.list_markers import ListMarkers
from drainer.mail.reply import Stage, parse_reply
from drainer.policy.bounce.decision import (
    CONTENT_RULES,
    RULES,
    BounceAnswer,
    BounceCase,
    decide,
)
from drainer.policy.bounce.facts import Reachability, SpfResult, Strength
from drainer.policy.bounce.limits import (
    HOUR,
    ReportedRecipient,
    ReportHistory,
    ReportLimits,
    ReportTally,
    dedupe_key,
    find_exceeded,
    report_id,
)
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.rules import families
from drainer.policy.classify.verdict import Scope, Verdict
from tests.unit.policy.bounce.test_evidence import (
    NAMED,
    NOBODY,
    OWN,
    PUBLISHED,
    TRUST,
    WEAK_SPF,
    passing,
    signature,
    signed,
)

REFUSAL: Final = classify(parse_reply(b"550 5.1.1 User unknown"), Stage.RCPT)
SPAM: Final = classify(parse_reply(b"550 5.7.1 Message is spam"), Stage.DOT)
GOOD: Final = BounceCase(
    facts=passing(),
    recipient=Recipient(forward_path="anna@primary.example"),
    marks=ListMarkers(),
    trust=TRUST,
    hostname="mx2.example",
    classification=REFUSAL,
    detail="1.1",
    words="User unknown",
    confirmed=True,
)


def sender(address: str, **more: Any) -> BounceCase:
    """Return the good case with another envelope sender, proven as well."""
    domain = address.rpartition("@")[2].lower()
    facts = replace(
        GOOD.facts, reverse_path=address, domain=domain, organisation=domain, **more
    )
    return replace(GOOD, facts=facts)


def marked(**marks: Any) -> BounceCase:
    """Return the good case with marks in its header."""
    return replace(GOOD, marks=ListMarkers(**marks))


def unproven(case: BounceCase) -> BounceCase:
    """Return a case without any evidence."""
    return replace(case, facts=replace(case.facts, spf=None, signatures=()))


def told(*notify: str) -> BounceCase:
    """Return the good case with NOTIFY."""
    return replace(GOOD, recipient=replace(GOOD.recipient, notify=notify))


def reach(value: Reachability) -> BounceCase:
    """Return the good case with another answer of DNS about the sender's domain."""
    return replace(GOOD, facts=replace(GOOD.facts, reach=value))


OURS: Final = sender("carl@primary.example")
UNDER: Final = sender("carl@sub.primary.example")
EXACT: Final = signature(
    mailbox="carl@primary.example",
    domain="primary.example",
    organisation="primary.example",
    addressees=frozenset(("anna@primary.example",)),
)
SERVFAIL: Final = replace(
    GOOD, facts=replace(NOBODY, spf=SpfResult(result="temperror", detail="timeout"))
)
NOW: Final = datetime(2026, 11, 24, tzinfo=UTC)
DAY: Final = timedelta(hours=24)
SEND, NO, NEVER = BounceAnswer.SEND, BounceAnswer.NO, BounceAnswer.NEVER
UNDECIDED, LATER = BounceAnswer.UNDECIDED, BounceAnswer.LATER

ROWS: Final = {
    "G1: not judged": (replace(GOOD, classification=None), "G1", UNDECIDED),
    "G1: not confirmed": (replace(GOOD, confirmed=False), "G1", UNDECIDED),
    "G1: held": (
        replace(GOOD, classification=replace(REFUSAL, verdict=Verdict.HOLD)),
        "G1", UNDECIDED),
    "G1: in doubt": (
        replace(GOOD, classification=replace(REFUSAL, verdict=Verdict.UNKNOWN)),
        "G1", UNDECIDED),
    "G1: systemic": (
        replace(GOOD, classification=replace(REFUSAL, scope=Scope.ROUTE)),
        "G1", UNDECIDED),
    "G2: the null sender": (sender(""), "G2", NEVER),
    "G3: NOTIFY=NEVER": (told("NEVER"), "G3", NEVER),
    "G3: without FAILURE": (told("SUCCESS", "DELAY"), "G3", NEVER),
    "G3: with FAILURE": (told("FAILURE", "DELAY"), "G15", SEND),
    "G3: passed on, and nobody asked": (
        replace(GOOD, action=DsnAction.RELAYED), "G3", NEVER),
    "G3: passed on, as was asked for": (
        replace(told("SUCCESS"), action=DsnAction.RELAYED, classification=None),
        "G15", SEND),
    "G3: passed on, and only failures count": (
        replace(told("FAILURE"), action=DsnAction.RELAYED), "G3", NEVER),
    "G4: no domain": (sender("bob"), "G4", NO),
    "G4: postmaster alone": (sender("postmaster"), "G4", NO),
    "G4: bad syntax": (sender("b ob@sender.example"), "G4", NO),
    "G4: an address literal": (sender("bob@[192.0.2.1]"), "G4", NO),
    "G4: one label": (sender("bob@localhost"), "G4", NO),
    "G4: .local": (sender("bob@printer.local"), "G4", NO),
    "G4: .invalid": (sender("bob@x.invalid"), "G4", NO),
    "G4: no DNS name": (
        replace(GOOD, facts=replace(GOOD.facts, domain="")), "G4", NO),
    "G5: mailer-daemon anywhere": (sender("Mailer-Daemon@other.example"), "G5", NEVER),
    "G5: double-bounce anywhere": (sender("double-bounce@other.example"), "G5", NEVER),
    "G5: our own postmaster": (sender("postmaster@mx2.example"), "G5", NEVER),
    "G5: our own bounce": (sender("bounce@MX2.example"), "G5", NEVER),
    "G5: our own bounce with a tag": (sender("bounce+a=b@mx2.example"), "G5", NEVER),
    "G5: a robot in quotes": (sender('"mailer-daemon"@other.example'), "G5", NEVER),
    "G5: another's postmaster": (sender("postmaster@sender.example"), "G15", SEND),
    "G5: whom our reports come from": (
        sender("Mailer-Daemon@MX2.example"), "G5", NEVER),
    "G6: a report": (marked(report="Content-Type: multipart/report"), "G6", NEVER),
    "G7: auto-replied": (marked(auto_submitted="auto-replied"), "G7", NO),
    "G7: auto-notified": (marked(auto_submitted="auto-notified"), "G7", NO),
    "G7: a word of its own": (marked(auto_submitted="robot"), "G7", NO),
    "G7: no": (marked(auto_submitted="no"), "G15", SEND),
    "G7: auto-generated, proven": (
        marked(auto_submitted="auto-generated"), "G15", SEND),
    "G7: auto-generated, unproven": (
        unproven(marked(auto_submitted="auto-generated")), "G7", NO),
    "G7: auto-generated, DNS silent": (
        replace(SERVFAIL, marks=ListMarkers(auto_submitted="auto-generated")),
        "G13", LATER),
    "G8: suppressed": (marked(suppressed=True), "G8", NO),
    "G9: bulk": (marked(precedence="bulk"), "G9", NO),
    "G9: junk": (marked(precedence="junk"), "G9", NO),
    "G9: a list, proven": (marked(precedence="bulk", is_list=True), "G15", SEND),
    "G9: a list, unproven": (
        unproven(marked(precedence="bulk", is_list=True)), "G13", NO),
    "G9: VERP": (
        replace(sender("list+anna=primary.example@sender.example"),
                marks=ListMarkers(precedence="bulk")), "G15", SEND),
    "G9: precedence list": (marked(precedence="list"), "G15", SEND),
    "G10: spam at reception": (marked(spam="x-spam-flag"), "G10", NO),
    "G10: virus at reception": (marked(virus="x-virus-status"), "G10", NEVER),
    "G10: spam at the primary": (
        replace(GOOD, classification=SPAM, detail="7.1", words="Message is spam"),
        "G10", NO),
    "G10: virus at the primary": (
        replace(GOOD, classification=SPAM, detail="7.1", words="Virus found"),
        "G10", NEVER),
    "G10: 5.6.0": (replace(GOOD, detail="6.0"), "G10", NO),
    "G10: 5.7.20": (replace(GOOD, detail="7.20"), "G10", NO),
    "G10: 5.7.29": (replace(GOOD, detail="7.29"), "G10", NO),
    "G10: 5.7.2 is a closed list": (replace(GOOD, detail="7.2"), "G15", SEND),
    "G11: our domain by SPF": (OURS, "G11", NO),
    "G11: a subdomain of ours": (UNDER, "G11", NO),
    "G11: the domain of the recipient": (
        replace(GOOD, recipient=Recipient(forward_path="Anna@SENDER.example.")),
        "G11", NO),
    "G11: the recipient that the backup took": (
        replace(GOOD, recipient=Recipient(
            forward_path="a@inner.example", original="anna@sender.example")),
        "G11", NO),
    "G11: a domain above that of the recipient": (
        replace(GOOD, recipient=Recipient(forward_path="a@mail.sender.example")),
        "G15", SEND),
    "G11: signed by exactly that domain": (
        replace(OURS, facts=signed(EXACT, facts=OURS.facts)), "G15", SEND),
    "G11: signed by the parent": (
        replace(UNDER, facts=signed(
            replace(EXACT, mailbox="carl@sub.primary.example"),
            facts=replace(UNDER.facts, organisation="primary.example"))), "G11", NO),
    "G11: signed for another mailbox": (
        replace(OURS, facts=signed(replace(EXACT, mailbox="eve@primary.example"),
                                   facts=OURS.facts)), "G11", NO),
    "G11: signed, but naming nobody": (
        replace(OURS, facts=signed(replace(EXACT, addressees=frozenset()),
                                   facts=OURS.facts)), "G11", NO),
    "G11: a login": (
        sender("carl@primary.example", login="carl"), "G15", SEND),
    "G11: the key is not known yet": (
        replace(OURS, facts=signed(replace(EXACT, state=Strength.LATER),
                                   facts=OURS.facts)), "G11", LATER),
    "G12: NXDOMAIN": (reach(Reachability.NXDOMAIN), "G12", NO),
    "G12: null MX": (reach(Reachability.NULL_MX), "G12", NO),
    "G12: no address": (reach(Reachability.NO_ADDRESS), "G12", NO),
    "G12: private or ours": (reach(Reachability.OURS), "G12", NO),
    "G12: SERVFAIL": (reach(Reachability.LATER), "G12", LATER),
    "G12: SERVFAIL for a day": (
        replace(reach(Reachability.LATER), waited=DAY), "G12", NO),
    "G13: nothing": (unproven(GOOD), "G13", NO),
    "G13: too weak": (replace(GOOD, facts=WEAK_SPF), "G13", NO),
    "G13: DNS silent": (SERVFAIL, "G13", LATER),
    "G13: DNS silent for a day": (replace(SERVFAIL, waited=DAY), "G13", NO),
    "G14: reported already": (replace(GOOD, reported=True), "G14", NO),
    "G14: too many": (replace(GOOD, sent=ReportHistory(sender_last_hour=3)), "G14", NO),
    "G15: by SPF": (GOOD, "G15", SEND),
    "G15: by a signature": (replace(GOOD, facts=signed(NAMED)), "G15", SEND),
    "G15: weak and weak": (
        replace(GOOD, facts=signed(OWN, facts=WEAK_SPF)), "G15", SEND),
    "G15: DMARC": (
        replace(GOOD, facts=replace(passing(), dmarc=PUBLISHED)), "G15", SEND),
    "G15: SRS": (
        sender("SRS0=HHH=TT=other.example=bob@sender.example"), "G15", SEND),
    "G15: BATV": (sender("prvs=0123456789=bob@sender.example"), "G15", SEND),
}  # fmt: skip


@pytest.mark.parametrize(("case", "rule", "answer"), ROWS.values(), ids=ROWS)
def test_the_bounce_rules(case: BounceCase, rule: str, answer: BounceAnswer) -> None:
    """Each row of the table, with the rule that decided."""
    decision = decide(case)
    assert (decision.rule, decision.answer) == (rule, answer), decision.reason
    assert decision.reason
    assert set(decision.evidence) == {f"V{n}" for n in range(1, 7)}


def test_every_rule_is_tested() -> None:
    """And nothing but the rules decides."""
    assert {rule for _, rule, _ in ROWS.values()} == set(RULES)


def test_an_earlier_rule_outranks_a_later_one() -> None:
    """A message that breaks all of them is decided by the first."""
    case = unproven(
        replace(
            sender("", reach=Reachability.NXDOMAIN),
            marks=ListMarkers(report="x", suppressed=True, spam="x", precedence="bulk"),
            recipient=Recipient(forward_path="a@b.example", notify=("NEVER",)),
        )
    )
    assert decide(case).rule == "G2"
    assert decide(replace(case, confirmed=False)).rule == "G1"


@pytest.mark.parametrize(
    "sent",
    [
        ReportHistory(sender_last_hour=3),
        ReportHistory(sender_last_day=10),
        ReportHistory(domain_last_hour=50),
        ReportHistory(last_hour=200),
        ReportHistory(this_run=1000),
    ],
)
def test_a_limit_that_is_reached(sent: ReportHistory) -> None:
    """The next report would break it; one less would not."""
    assert find_exceeded(ReportLimits(), sent)
    less = {
        name: max(0, getattr(sent, name) - 1)
        for name in ReportHistory.__struct_fields__
    }
    assert find_exceeded(ReportLimits(), ReportHistory(**less)) == ""


def part(n: int, ago: timedelta = timedelta(0), **more: Any) -> ReportedRecipient:
    """Return a recipient of whom bob@a.example was told, in a report of its own."""
    usual = ReportedRecipient(
        at=NOW - ago, sender="bob@a.example", key=f"{n}", report=n, run="r"
    )
    return replace(usual, **more)


TALLIES: Final[dict[str, tuple[list[ReportedRecipient], ReportHistory]]] = {
    "nothing yet": ([], ReportHistory()),
    "each report": (
        [part(1), part(2)],
        ReportHistory(
            sender_last_hour=2, sender_last_day=2, domain_last_hour=2, last_hour=2,
            this_run=2,
        ),
    ),
    "the recipients of one report once": (
        [part(1), part(2, report=1)],
        ReportHistory(
            sender_last_hour=1, sender_last_day=1, domain_last_hour=1, last_hour=1,
            this_run=1,
        ),
    ),
    "an hour ago": ([part(1, HOUR)], ReportHistory(sender_last_day=1, this_run=1)),
    "a day ago": ([part(1, DAY)], ReportHistory(this_run=1)),
    "the sender in any case": (
        [part(1, HOUR, sender="BOB@A.Example", run="s")],
        ReportHistory(sender_last_day=1),
    ),
    "the sender, written otherwise": (
        [part(1, HOUR, sender='"b\\ob"@a.example.', run="s")],
        ReportHistory(sender_last_day=1),
    ),
    "the sender with a tag": (
        [part(1, HOUR, sender="bob+tag+more@a.example", run="s")],
        ReportHistory(sender_last_day=1),
    ),
    "the sender behind another delimiter": (
        [part(1, HOUR, sender="bob-tag@a.example", run="s")], ReportHistory()),
    "another sender of the domain": (
        [part(1, sender="amy@A.example", run="s")],
        ReportHistory(domain_last_hour=1, last_hour=1),
    ),
    "another domain of the organisation": (
        [part(1, sender="amy@b.a.example", organisation="a.example", run="s")],
        ReportHistory(domain_last_hour=1, last_hour=1)),
    "another domain": (
        [part(1, sender="bob@b.a.example", run="s")], ReportHistory(last_hour=1)),
    "nothing against a report that it joins": ([part(0), part(1)], ReportHistory()),
}  # fmt: skip


@pytest.mark.parametrize("name", TALLIES)
def test_what_counts_against_a_report(name: str) -> None:
    """Whoever let it go; for the run, what it let go itself."""
    told, sent = TALLIES[name]
    assert ReportTally(told).before(part(0), "+") == sent


def test_a_failure_is_known_by_its_key() -> None:
    """Also when it was told in the same report, and whoever asks."""
    progress = ReportTally([part(1)])
    progress.add(part(2, report=1))
    assert [progress.knows(part(n, run="other")) for n in range(4)] == [
        False,
        True,
        True,
        False,
    ]


def test_the_key_of_a_failure_tells_everything_apart() -> None:
    """Sender, message, recipient, status; and no part can pose as another."""
    parts = ("a@b.example", "<1@x>", "c@d.example", "5.1.1")
    keys = {dedupe_key(*parts)}
    for n in range(4):
        other = [*parts]
        other[n] += "x"
        keys.add(dedupe_key(*other))
    keys.add(dedupe_key("a@b.example<1@x>", "", "c@d.example", "5.1.1"))
    assert len(keys) == 6
    assert dedupe_key(*parts) in keys
    assert dedupe_key("\udcff@x", "", "", "")  # whatever a spool may hold


def test_a_report_keeps_its_name() -> None:
    """The same failures make the same Message-ID, in any order."""
    one, two = dedupe_key("a", "b", "c", "d"), dedupe_key("a", "b", "c2", "d")
    named = report_id([one, two], "mx2.example")
    assert named == report_id([two, one], "mx2.example")
    assert named != report_id([one], "mx2.example")
    assert named.startswith("<report-")
    assert named.endswith("@mx2.example>")


def test_the_rules_that_the_decision_and_the_words_know_exist() -> None:
    """A family that is renamed must be renamed there too."""
    known = {f"text-{family.id}" for family in families()}
    assert {rule for rule in REASONS if rule.startswith("text-")} <= known
    content = {rule for rule in known if CONTENT_RULES.fullmatch(rule)}
    assert content == {
        "text-content",
        "text-content-policy",
        "text-content-blocklist",
        "text-policy-as-mechanism",
    }
