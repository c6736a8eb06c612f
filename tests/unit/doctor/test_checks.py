"""The doctor's checks of backup, primary and host: each row, and its near miss."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from drainer.bounce.evidence.dns import DnsOutcome
from drainer.doctor.checks import HERE, examine, has_failure, rows
from drainer.doctor.checks.backup import covers
from drainer.doctor.checks.check import DoctorFinding, Grade
from drainer.doctor.checks.facts import (
    BackupFacts,
    Certificate,
    DialogueAnswer,
    DoctorFacts,
    DomainFacts,
    HostFacts,
    PrimaryFacts,
    Space,
    Trial,
)
from drainer.mail.reply import Lost, Stage, parse_reply
from drainer.smtp.health_check import HealthFinding

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
DOMAIN = DomainFacts(name="example.org", outcome=DnsOutcome.FAILED)


def said(text: str, stage: Stage = Stage.RCPT) -> DialogueAnswer:
    """Return a reply at a stage."""
    return DialogueAnswer(stage=stage, answer=parse_reply(text.encode()))


def lost(stage: Stage = Stage.RCPT, reason: str = "timeout") -> DialogueAnswer:
    """Return that no reply came."""
    return DialogueAnswer(stage=stage, answer=Lost(reason=reason))


UP = said("250 mx2 ready", Stage.EHLO)
DOWN = lost(Stage.CONNECT, "refused")
RELAY_DENIED = said("554 5.7.1 Relay access denied")
SOUND = Certificate(
    subject="CN=mx2.example.net",
    names=("mx2.example.net",),
    not_after=NOW + 60 * DAY,
)
BACKUP = BackupFacts(
    host="mx2.example.net",
    now=NOW,
    reached=(("198.51.100.1", UP),),
    offers_tls=True,
    handshake=said("250 mx2 ready", Stage.EHLO),
    certificate=SOUND,
    distrust="",
    recipient="anna@example.org",
    known=said("250 2.1.5 ok"),
    stranger=said("550 5.1.1 User unknown"),
    elsewhere=(RELAY_DENIED, RELAY_DENIED),
    gtube=said("554 5.7.1 spam", Stage.DOT),
    eicar=said("554 5.7.1 virus", Stage.DOT),
)


def stage(name: str, grade: str, reply: str = "", hint: str = "") -> HealthFinding:
    """Return a line of the health check."""
    return HealthFinding(stage=name, verdict=grade, reply=reply, seconds=0.0, hint=hint)


PRIMARY = PrimaryFacts(
    route="mx1.example.org:25",
    stages=(stage("connect", "ok", "220 connected"),),
    recipient="anna@example.org",
    strict_sender="x@example.com",
    strict=said("250 2.1.5 ok"),
    is_strict=True,
)
THERE = HostFacts(
    synchronised=True,
    spaces=(Space(what="ledger", path="/l", free_bytes=10**11, free_inodes=10**6),),
    files_allowed=1024,
    files_needed=110,
    ledger=Trial(name="sqlite:////l", found="written"),
    sources=(Trial(name="backup", found="readable"),),
)


def found(
    facts: BackupFacts | PrimaryFacts | HostFacts,
) -> dict[str, list[DoctorFinding]]:
    """Return the findings by check, the others being healthy."""
    whole = DoctorFacts(domain=DOMAIN, backups=(BACKUP,), primary=PRIMARY, here=THERE)
    match facts:
        case BackupFacts():
            whole = replace(whole, backups=(facts,))
        case PrimaryFacts():
            whole = replace(whole, primary=facts)
        case HostFacts():
            whole = replace(whole, here=facts)
    by_check: dict[str, list[DoctorFinding]] = {}
    for each in examine(whole):
        if not each.check.startswith("mx-"):
            by_check.setdefault(each.check, []).append(each)
    return by_check


def backup(**changes: object) -> BackupFacts:
    """Return the healthy backup, changed."""
    return replace(BACKUP, **changes)


def primary(**changes: object) -> PrimaryFacts:
    """Return the healthy primary, changed."""
    return replace(PRIMARY, **changes)


def here(**changes: object) -> HostFacts:
    """Return the healthy host, changed."""
    return replace(THERE, **changes)


def certified(**changes: object) -> BackupFacts:
    """Return the backup with another certificate."""
    distrust = str(changes.pop("distrust", ""))
    certificate = replace(SOUND, **changes)
    return backup(certificate=certificate, distrust=distrust)


def space(**changes: object) -> HostFacts:
    """Return the host with another amount of room."""
    return here(spaces=(replace(THERE.spaces[0], **changes),))


DEAD = backup(reached=(("198.51.100.1", DOWN),))
SELF_SIGNED = "certificate verify failed: self-signed certificate"
EXPIRED = "certificate verify failed: certificate has expired"
MISMATCH = "certificate verify failed: Hostname mismatch, certificate is not valid for"


def test_where_all_is_well_there_is_nothing_to_mend() -> None:
    """Every check is ok, says about whom, and has no remedy."""
    findings = [each for several in found(BACKUP).values() for each in several]
    assert {each.grade for each in findings} == {Grade.OK}
    assert {each.remedy for each in findings} == {""}
    subjects = {each.check: each.subject for each in findings}
    assert subjects["backup-relay"] == "mx2.example.net"
    assert subjects["primary-ready"] == "mx1.example.org:25"
    assert subjects["host-clock"] == HERE
    assert subjects["host-disk"] == "ledger /l"
    assert subjects["host-sources"] == "backup"


BACKUPS: dict[str, tuple[str, BackupFacts, Grade, str]] = {
    "nobody listens": ("backup-answers", DEAD, Grade.FAIL, "refused"),
    "one of two addresses is dead": (
        "backup-answers",
        backup(reached=(("198.51.100.1", UP), ("2001:db8::1", DOWN))),
        Grade.WARN, "2001:db8::1: connect: refused",
    ),
    "no address": ("backup-answers", backup(reached=()), Grade.FAIL, "no address"),
    "no time": (
        "backup-answers", backup(reached=(), problem="no answer within 17 s"),
        Grade.UNKNOWN, "17 s",
    ),
    "no STARTTLS": (
        "backup-tls", backup(offers_tls=False, handshake=None), Grade.FAIL, "STARTTLS",
    ),
    "a handshake that fails": (
        "backup-tls", backup(handshake=lost(Stage.STARTTLS, "tls")), Grade.FAIL, "tls",
    ),
    "a handshake that was not tried": (
        "backup-tls", backup(handshake=None), Grade.UNKNOWN, "no time",
    ),
    "expired": (
        "backup-tls-expiry", certified(not_after=NOW),
        Grade.FAIL, "expired on 2026",
    ),
    "21 days left": (
        "backup-tls-expiry", certified(not_after=NOW + 21 * DAY),
        Grade.WARN, "expires on 2026-12-16",
    ),
    "22 days left": (
        "backup-tls-expiry", certified(not_after=NOW + 22 * DAY),
        Grade.OK, "until 2026-12-17",
    ),
    "an end that cannot be read": (
        "backup-tls-expiry", certified(not_after=None),
        Grade.UNKNOWN, "cannot read when",
    ),
    "for another name": (
        "backup-tls-name", certified(names=("mx1.example.net",)), Grade.FAIL, "mx1",
    ),
    "for no name": (
        "backup-tls-name", certified(names=()), Grade.FAIL, "CN=mx2.example.net",
    ),
    "for all names below": (
        "backup-tls-name", certified(names=("*.example.net",)), Grade.OK, "*.example",
    ),
    "self-signed": (
        "backup-tls-chain", certified(distrust=SELF_SIGNED), Grade.FAIL, "self-signed",
    ),
    "expired, by a sound chain": (
        "backup-tls-chain", certified(distrust=EXPIRED, not_after=NOW - DAY),
        Grade.OK, "trusts",
    ),
    "no time to verify it": (
        "backup-tls-chain", backup(distrust=None), Grade.UNKNOWN, "no time",
    ),
    "a certificate between has expired": (
        "backup-tls-chain", certified(distrust=EXPIRED), Grade.FAIL, "expired",
    ),
    "for another name, by a sound chain": (
        "backup-tls-chain", certified(distrust=MISMATCH), Grade.OK, "trusts",
    ),
    "the known recipient is refused": (
        "backup-recipient", backup(known=RELAY_DENIED), Grade.FAIL, "anna@example.org",
    ),
    "the known recipient is deferred": (
        "backup-recipient", backup(known=said("450 4.2.0 greylisted")),
        Grade.WARN, "greylisted",
    ),
    "no word about the known recipient": (
        "backup-recipient", backup(known=lost()), Grade.UNKNOWN, "timeout",
    ),
    "no time for the known recipient": (
        "backup-recipient", backup(known=None), Grade.UNKNOWN, "no time",
    ),
    "no recipient is known": (
        "backup-recipient", backup(known=None, recipient=""),
        Grade.SKIPPED, "no existing recipient",
    ),
    "a random recipient is accepted": (
        "backup-validates", backup(stranger=said("250 ok")), Grade.FAIL, "accepts",
    ),
    "a random recipient is deferred": (
        "backup-validates", backup(stranger=said("450 4.1.1 unverified")),
        Grade.WARN, "only temporarily",
    ),
    "no word about a random recipient": (
        "backup-validates", backup(stranger=lost()), Grade.UNKNOWN, "timeout",
    ),
    "no time for a random recipient": (
        "backup-validates", backup(stranger=None), Grade.UNKNOWN, "no time",
    ),
    "everybody is refused": (
        "backup-validates", backup(known=said("550 5.1.1 unknown")),
        Grade.UNKNOWN, "refuses every recipient",
    ),
    "the refusal is about this host": (
        "backup-validates",
        backup(known=None, stranger=said("554 5.7.1 blocked using a blocklist, see")),
        Grade.UNKNOWN, "about this host",
    ),
    "without a known recipient a refusal counts": (
        "backup-validates", backup(known=None, recipient=""), Grade.OK, "5.1.1",
    ),
    "an open relay": (
        "backup-relay", backup(elsewhere=(said("250 ok"), RELAY_DENIED)),
        Grade.FAIL, "for a foreign domain",
    ),
    "a relay for who says that he is of the domain": (
        "backup-relay", backup(elsewhere=(RELAY_DENIED, said("250 ok"))),
        Grade.FAIL, "for a foreign domain",
    ),
    "a relay for itself": (
        "backup-relay", backup(elsewhere=(said("250 ok"),), is_here=True),
        Grade.UNKNOWN, "is the backup itself",
    ),
    "itself, and no relay even so": (
        "backup-relay", backup(is_here=True), Grade.OK, "denied",
    ),
    "relaying is deferred": (
        "backup-relay", backup(elsewhere=(said("450 4.3.2 later"), lost())),
        Grade.WARN, "later",
    ),
    "relaying is denied with 454, as by a default Postfix": (
        "backup-relay", backup(elsewhere=(said("454 4.7.1 Relay access denied"),)),
        Grade.OK, "454",
    ),
    "a sender refused says nothing about relaying": (
        "backup-relay", backup(elsewhere=(said("550 5.7.1 no", Stage.MAIL), lost())),
        Grade.UNKNOWN, "proves nothing",
    ),
    "no time for relaying": (
        "backup-relay", backup(elsewhere=()), Grade.UNKNOWN, "no time",
    ),
    "spam is taken": (
        "backup-spam", backup(gtube=said("250 ok", Stage.DOT)), Grade.FAIL, "accepted",
    ),
    "spam is deferred": (
        "backup-spam", backup(gtube=said("451 4.7.1 later", Stage.DOT)),
        Grade.WARN, "only temporarily",
    ),
    "spam is refused at DATA": (
        "backup-spam", backup(gtube=said("554 5.7.1 no", Stage.DATA)), Grade.OK, "data",
    ),
    "spam did not get so far": (
        "backup-spam", backup(gtube=said("550 5.1.1 unknown")),
        Grade.UNKNOWN, "ended before the message",
    ),
    "the reply to spam was lost": (
        "backup-spam", backup(gtube=lost(Stage.DOT)), Grade.UNKNOWN, "timeout",
    ),
    "no time for spam": ("backup-spam", backup(gtube=None), Grade.UNKNOWN, "no time"),
    "no test was asked for": (
        "backup-spam", backup(gtube=None, untested="not asked for"),
        Grade.SKIPPED, "not asked for",
    ),
    "a virus is taken": (
        "backup-virus", backup(eicar=said("250 ok", Stage.DOT)), Grade.FAIL, "accepted",
    ),
}  # fmt: skip

FOLLOWING = (
    "backup-tls", "backup-recipient", "backup-validates", "backup-relay", "backup-spam",
    "backup-virus", "backup-tls-expiry", "backup-tls-name", "backup-tls-chain",
)  # fmt: skip


@pytest.mark.parametrize("check", FOLLOWING)
def test_nothing_is_said_of_a_dead_backup_but_that(check: str) -> None:
    """One failure, not ten."""
    dead = replace(DEAD, certificate=None)
    assert [each.grade for each in found(dead)[check]] == [Grade.SKIPPED]


PRIMARIES: dict[str, tuple[str, PrimaryFacts, Grade, str]] = {
    "a stage fails": (
        "primary-ready",
        primary(stages=(stage("rcpt random", "warn"), stage("mail", "fail", "550 no"))),
        Grade.FAIL, "mail: 550 no",
    ),
    "a stage warns": (
        "primary-ready", primary(stages=(stage("rcpt known-good", "warn"),)),
        Grade.WARN, "rcpt known-good",
    ),
    "a loop": ("primary-ready", primary(is_loop=True), Grade.FAIL, "our own name"),
    "it was not done": (
        "primary-ready", primary(problem="no time", stages=()),
        Grade.UNKNOWN, "no time",
    ),
    "no primary": ("primary-ready", PrimaryFacts(), Grade.SKIPPED, "no primary"),
    "greylisted": (
        "primary-greylist", primary(strict=said("450 4.2.0 You are greylisted")),
        Grade.FAIL, "greylisted",
    ),
    "deferred in other words": (
        "primary-greylist", primary(strict=said("451 4.3.5 try again")),
        Grade.WARN, "defers",
    ),
    "refused is not greylisted": (
        "primary-greylist", primary(strict=said("550 5.7.23 SPF fail")),
        Grade.OK, "SPF",
    ),
    "no word about greylisting": (
        "primary-greylist", primary(strict=lost()), Grade.UNKNOWN, "timeout",
    ),
    "no session for greylisting": (
        "primary-greylist", primary(strict=None), Grade.UNKNOWN, "no session",
    ),
    "no primary to greylist": (
        "primary-greylist", PrimaryFacts(), Grade.SKIPPED, "no primary",
    ),
    "no recipient for greylisting": (
        "primary-greylist", primary(recipient=""),
        Grade.SKIPPED, "no existing recipient",
    ),
    "a strict sender is refused": (
        "primary-spf", primary(strict=said("550 5.7.23 SPF fail")), Grade.FAIL, "SPF",
    ),
    "a sender whose domain takes no mail": (
        "primary-spf", primary(strict=said("550 5.7.27 null MX", Stage.MAIL)),
        Grade.UNKNOWN, "another reason",
    ),
    "a strict sender is deferred": (
        "primary-spf", primary(strict=said("450 4.2.0 later")), Grade.UNKNOWN, "later",
    ),
    "a sender that is not strict": (
        "primary-spf", primary(is_strict=False), Grade.UNKNOWN, "no SPF with -all",
    ),
    "a sender of whom DNS does not tell": (
        "primary-spf", primary(is_strict=None), Grade.UNKNOWN, "DNS does not say",
    ),
    "no recipient for a strict sender": (
        "primary-spf", primary(recipient=""), Grade.SKIPPED, "no existing recipient",
    ),
}  # fmt: skip

HERES: dict[str, tuple[str, HostFacts, Grade, str]] = {
    "nobody keeps the clock": (
        "host-clock", here(synchronised=False), Grade.WARN, "no time service",
    ),
    "nobody tells about the clock": (
        "host-clock", here(synchronised=None), Grade.UNKNOWN, "does not say",
    ),
    "nobody keeps it, and a banner agrees": (
        "host-clock", here(synchronised=False, ahead={"mx1": -300.0}), Grade.OK, "mx1",
    ),
    "a banner disagrees": (
        "host-clock", here(synchronised=None, ahead={"mx1": -301.0}),
        Grade.FAIL, "301 s behind mx1",
    ),
    "a banner disagrees with a clock that is kept": (
        "host-clock", here(ahead={"mx1": 301.0}), Grade.WARN, "301 s ahead of mx1",
    ),
    "no room": ("host-disk", space(free_bytes=255 * 10**6), Grade.FAIL, "0.3 GB"),
    "little room": ("host-disk", space(free_bytes=256 * 10**6), Grade.WARN, "0.3 GB"),
    "room enough": ("host-disk", space(free_bytes=2 * 10**9), Grade.OK, "2.0 GB"),
    "room that cannot be told": (
        "host-disk", space(problem="denied"), Grade.UNKNOWN, "denied",
    ),
    "no inodes": ("host-inodes", space(free_inodes=999), Grade.FAIL, "999 inodes"),
    "few inodes": ("host-inodes", space(free_inodes=1000), Grade.WARN, "1000 inodes"),
    "inodes enough": ("host-inodes", space(free_inodes=20_000), Grade.OK, "20000"),
    "no number of inodes": ("host-inodes", space(free_inodes=None), Grade.OK, "fixed"),
    "one file too few": ("host-files", here(files_allowed=109), Grade.FAIL, "109"),
    "just enough files": ("host-files", here(files_allowed=110), Grade.OK, "110"),
    "the ledger cannot be written": (
        "host-ledger", here(ledger=Trial(name="l", problem="read-only")),
        Grade.FAIL, "read-only",
    ),
    "the ledger is in use": (
        "host-ledger", here(ledger=Trial(name="l", unsure="it is locked")),
        Grade.UNKNOWN, "locked",
    ),
    "no source is configured": ("host-sources", here(sources=()), Grade.SKIPPED, "no "),
    "a source cannot be read": (
        "host-sources", here(sources=(*THERE.sources, Trial(name="b", problem="gone"))),
        Grade.FAIL, "gone",
    ),
}  # fmt: skip

ROWS: dict[str, tuple[str, BackupFacts | PrimaryFacts | HostFacts, Grade, str]] = {
    **BACKUPS,
    **PRIMARIES,
    **HERES,
}


@pytest.mark.parametrize(
    ("check", "facts", "grade", "words"), ROWS.values(), ids=list(ROWS)
)
def test_a_row(
    check: str, facts: BackupFacts | PrimaryFacts | HostFacts, grade: Grade, words: str
) -> None:
    """The verdict, the words, and a remedy exactly where there is something to mend."""
    findings = found(facts)[check]
    finding = next((f for f in findings if f.grade is not Grade.OK), findings[0])
    assert (finding.grade, words in finding.found) == (grade, True), finding
    if grade is not Grade.SKIPPED:
        assert bool(finding.remedy) is (grade is not Grade.OK)


def test_every_check_has_a_row_that_goes_wrong() -> None:
    """None of them can only be ok."""
    bad = {c for c, _, g, _ in ROWS.values() if g in (Grade.FAIL, Grade.WARN)}
    assert bad == {name for name, *_ in rows() if not name.startswith("mx-")}


def test_checks_have_names_of_their_own_and_one_line_each() -> None:
    """A script finds them by their names, a person reads them in a table."""
    names = [name for name, *_ in rows()]
    assert len(set(names)) == len(names)
    assert [row for row in rows() if "\n" in "".join(row) or not all(row)] == []


def test_the_remedy_of_the_health_check_is_its_own_hint() -> None:
    """It knows better what to do."""
    stages = (stage("mail", "fail", "550 no", "set [health] sender"),)
    (finding,) = found(primary(stages=stages))["primary-ready"]
    assert finding.remedy == "set [health] sender"
    assert has_failure([finding])
    assert not has_failure(found(BACKUP)["backup-tls"])


@pytest.mark.parametrize(
    ("names", "host", "is_one"),
    [
        (("mx.example.org",), "mx.example.org", True),
        (("MX.Example.Org.",), "mx.example.org", True),
        (("*.example.org",), "mx.example.org", True),
        (("*.example.org",), "example.org", False),
        (("*.example.org",), "a.mx.example.org", False),
        (("m*.example.org",), "mx.example.org", False),
        (("*",), "mx", False),
        (("*.",), "mx", False),
        ((), "mx.example.org", False),
    ],
)
def test_a_certificate_is_for_its_names_alone(
    names: tuple[str, ...], host: str, *, is_one: bool
) -> None:
    """A star stands for one whole label."""
    assert covers(names, host) is is_one
