"""Checks of a backup as it is seen from here; pure.

A refusal that is meant for this host proves nothing: what is refused to everybody, or
in words about our address, is not taken for the care that the backup ought to have.
"""

from datetime import timedelta

from drainer.doctor.checks.check import (
    NO_RECIPIENT,
    Check,
    CheckResult,
    fail,
    ok,
    skipped,
    unknown,
    warn,
)
from drainer.doctor.checks.facts import BackupFacts, DialogueAnswer
from drainer.mail.reply import Lost, Stage
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.verdict import Verdict

EXPIRY = timedelta(days=21)
"""A certificate that ends sooner is a warning."""

_NO_SESSION = skipped("no session")
_NO_TIME = unknown("there was no time left to ask")
_NAME_IT = "add --send-tests, --recipient, and --backup with its name"
_FOR_NOW = (
    "let it refuse for good (Postfix: `unverified_recipient_reject_code = 550`), or run"
    " it again later if it greylists"
)


def _answers(backup: BackupFacts) -> CheckResult:
    if backup.problem:
        return unknown(backup.problem)
    dead = [f"{at}: {said}" for at, said in backup.reached if not said.is_accepted]
    if not backup.reached:
        return fail("it has no address")
    if not backup.answers:
        return fail("; ".join(dead))
    if dead:
        return warn("; ".join(dead))
    return ok(", ".join(at for at, _ in backup.reached))


def _tls(backup: BackupFacts) -> CheckResult:
    if not backup.answers:
        return _NO_SESSION
    if not backup.offers_tls:
        return fail("EHLO does not list STARTTLS")
    if backup.handshake is None:
        return _NO_TIME
    if not backup.handshake.is_accepted:
        return fail(str(backup.handshake))
    return ok("STARTTLS works")


def _expiry(backup: BackupFacts) -> CheckResult:
    certificate = backup.certificate
    if certificate is None:
        return skipped("no certificate was seen")
    if certificate.not_after is None:
        return unknown(f"its end cannot be read: {certificate.subject}")
    until = f"{certificate.not_after:%Y-%m-%d}"
    if certificate.not_after <= backup.now:
        return fail(f"it has expired on {until}")
    if certificate.not_after <= backup.now + EXPIRY:
        return warn(f"it expires on {until}")
    return ok(f"until {until}")


def _name(backup: BackupFacts) -> CheckResult:
    certificate = backup.certificate
    if certificate is None:
        return skipped("no certificate was seen")
    if not certificate.names:
        return fail(f"it has no subjectAltName: {certificate.subject}")
    words = ", ".join(certificate.names[:5])
    if covers(certificate.names, backup.host):
        return ok(words)
    return fail(f"it is for {words}")


def covers(names: tuple[str, ...], host: str) -> bool:
    """Whether a certificate with these names is one for the host (RFC 6125 6.4.3).

    As for OpenSSL, a star stands for the first label of three or more.
    """
    parent = host.partition(".")[2]
    known = {name.lower().rstrip(".") for name in names}
    return host in known or ("." in parent and f"*.{parent}" in known)


def _chain(backup: BackupFacts) -> CheckResult:
    certificate = backup.certificate
    if certificate is None:
        return skipped("no certificate was seen")
    if backup.distrust is None:
        return _NO_TIME
    words = backup.distrust.lower()
    if not words:
        return ok("this host trusts its issuer")
    # OpenSSL looks at the chain first; these two are found only if that is sound.
    ends = certificate.not_after
    if "mismatch" in words or ("expired" in words and ends and ends <= backup.now):
        return ok("this host trusts its issuer")
    return fail(backup.distrust)


def _recipient(backup: BackupFacts) -> CheckResult:
    if not backup.answers:
        return _NO_SESSION
    if not backup.recipient:
        return NO_RECIPIENT
    if backup.known is None:
        return _NO_TIME
    words = f"{backup.recipient}: {backup.known}"
    if backup.known.is_accepted:
        return ok(words)
    if backup.known.is_deferred:
        return warn(words, "", "run it again later; if it stays so, look at its log")
    return fail(words) if backup.known.is_refused else unknown(words)


def _stranger(backup: BackupFacts) -> CheckResult:
    if not backup.answers:
        return _NO_SESSION
    said = backup.stranger
    if said is None:
        return _NO_TIME
    if said.is_accepted:
        return fail(f"it accepts a random recipient: {said}")
    if said.is_deferred:
        words = f"it refuses a random recipient only for now: {said}"
        return warn(words, "", _FOR_NOW)
    if isinstance(said.answer, Lost):
        return unknown(str(said))
    if backup.known and backup.known.is_refused:
        return unknown(f"it refuses everybody: {said}")
    if classify(said.answer, said.stage).verdict is Verdict.STOP:
        return unknown(f"the refusal is about this host: {said}")
    return ok(str(said))


def _relay(backup: BackupFacts) -> CheckResult:
    if not backup.answers:
        return _NO_SESSION
    if not backup.elsewhere:
        return _NO_TIME
    taken = [said for said in backup.elsewhere if said.is_accepted]
    if taken and backup.is_here:
        words = f"it relays for this host, which is itself: {taken[0]}"
        return unknown(words, "", "ask from a host that the backup does not know")
    if taken:
        return fail(f"it takes mail for elsewhere: {taken[0]}")
    refused = list(filter(_denies, backup.elsewhere))
    if refused:
        return ok(str(refused[0]))
    words = f"no answer to go by: {backup.elsewhere[0]}"
    deferred = any(said.is_deferred for said in backup.elsewhere)
    return warn(words) if deferred else unknown(words)


def _denies(said: DialogueAnswer) -> bool:
    """Whether relaying is refused; a default Postfix does so with 454."""
    if said.stage is not Stage.RCPT or isinstance(said.answer, Lost):
        return False
    rule = classify(said.answer, said.stage).rule
    return said.is_refused or (said.is_deferred and rule == "text-relay-denied")


def _gtube(backup: BackupFacts) -> CheckResult:
    return _tested(backup, backup.gtube)


def _eicar(backup: BackupFacts) -> CheckResult:
    return _tested(backup, backup.eicar)


def _tested(backup: BackupFacts, said: DialogueAnswer | None) -> CheckResult:
    if backup.untested:
        return skipped(backup.untested, remedy=_NAME_IT)
    if not backup.answers:
        return _NO_SESSION
    if said is None:
        return _NO_TIME
    if said.stage not in (Stage.DATA, Stage.BODY, Stage.DOT):
        return unknown(f"the message did not get so far: {said}")
    if said.is_accepted:
        return fail(f"it took the message, for {backup.recipient}: {said}")
    if said.is_deferred:
        return warn(f"it refuses the message only for now: {said}")
    return ok(str(said)) if said.is_refused else unknown(str(said))


CHECKS: tuple[Check[BackupFacts], ...] = (
    Check(
        id="backup-answers",
        about="the backup answers on every address",
        unless="none answers; warns: one does not",
        remedy="start its SMTP server, open port 25 to everybody, or drop the address",
        look=_answers,
    ),
    Check(
        id="backup-tls",
        about="it offers STARTTLS, and the handshake works",
        unless="it does not",
        remedy="give it a certificate and switch TLS on (Postfix: `smtpd_tls_chain_"
        "files`, `smtpd_tls_security_level = may`)",
        look=_tls,
    ),
    Check(
        id="backup-tls-expiry",
        about="its certificate is in date",
        unless="it has expired; warns: it will within 21 days",
        remedy="renew the certificate, and have that done by itself; then reload it",
        look=_expiry,
    ),
    Check(
        id="backup-tls-name",
        about="its certificate is for the name in the MX record",
        unless="it is for others",
        remedy="get a certificate for the name in the MX record: MTA-STS asks for it",
        look=_name,
    ),
    Check(
        id="backup-tls-chain",
        about="its certificate comes from an issuer that this host trusts",
        unless="it is self-signed, or a certificate between is missing",
        remedy="use a public issuer, and serve the certificates between as well",
        look=_chain,
    ),
    Check(
        id="backup-recipient",
        about="it takes mail for a recipient that exists",
        unless="it refuses; warns: it defers",
        remedy="let it know the domain and its users; check that the recipient exists",
        look=_recipient,
    ),
    Check(
        id="backup-validates",
        about="it refuses an unknown recipient at RCPT",
        unless="it accepts a random one; warns: it defers it",
        remedy="give it the primary's users (Postfix: `relay_recipient_maps`; Exim:"
        " `verify = recipient/callout`): what it takes for nobody cannot be delivered",
        look=_stranger,
    ),
    Check(
        id="backup-relay",
        about="it refuses to relay elsewhere",
        unless="it accepts a recipient of example.com; warns: it defers it",
        remedy="close the relay (Postfix: `reject_unauth_destination`; a narrow"
        " `mynetworks`), or ask from a host that it does not know",
        look=_relay,
    ),
    Check(
        id="backup-spam",
        about="it refuses the GTUBE test message at SMTP time",
        unless="it accepts it; warns: it defers it",
        remedy="give it the primary's spam filter, before the queue (a milter): what it"
        " takes and the primary refuses later must be bounced or kept",
        look=_gtube,
    ),
    Check(
        id="backup-virus",
        about="it refuses the EICAR test file at SMTP time",
        unless="it accepts it; warns: it defers it",
        remedy="give it the primary's virus scanner, before the queue (a milter)",
        look=_eicar,
    ),
)
