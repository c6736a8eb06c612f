"""Checks of a backup as this host sees it; pure.

A refusal that is about this host proves nothing. So a backup that refuses every
address, or names our address in the reply, does not pass a check by refusing.
"""

from datetime import timedelta

from drainer.doctor.checks.check import (
    NO_RECIPIENT,
    Check,
    CheckResult,
    fail,
    ok,
    skip,
    unknown,
    warn,
)
from drainer.doctor.checks.facts import BackupFacts, DialogueAnswer
from drainer.mail.reply import Lost, Stage
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.verdict import Verdict

EXPIRY = timedelta(days=21)
"""A certificate that expires sooner is a warning."""

_NO_SESSION = skip("no session")
_NO_TIME = unknown("there was no time left to check")
_NAME_IT = "add --send-tests, --recipient, and --backup with its name"
_FOR_NOW = (
    "let it refuse permanently (Postfix: `unverified_recipient_reject_code = 550`), or"
    " run it again later if it greylists"
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
        return skip("no certificate was seen")
    if certificate.not_after is None:
        return unknown(f"cannot read when it expires: {certificate.subject}")
    until = f"{certificate.not_after:%Y-%m-%d}"
    if certificate.not_after <= backup.now:
        return fail(f"it expired on {until}")
    if certificate.not_after <= backup.now + EXPIRY:
        return warn(f"it expires on {until}")
    return ok(f"until {until}")


def _name(backup: BackupFacts) -> CheckResult:
    certificate = backup.certificate
    if certificate is None:
        return skip("no certificate was seen")
    if not certificate.names:
        return fail(f"it has no subjectAltName: {certificate.subject}")
    words = ", ".join(certificate.names[:5])
    if covers(certificate.names, backup.host):
        return ok(words)
    return fail(f"it is for {words}")


def covers(names: tuple[str, ...], host: str) -> bool:
    """Return whether a certificate for these names covers the host (RFC 6125 6.4.3).

    As in OpenSSL, a star matches the first label of a name with three or more.
    """
    parent = host.partition(".")[2]
    known = {name.lower().rstrip(".") for name in names}
    return host in known or ("." in parent and f"*.{parent}" in known)


def _chain(backup: BackupFacts) -> CheckResult:
    certificate = backup.certificate
    if certificate is None:
        return skip("no certificate was seen")
    if backup.distrust is None:
        return _NO_TIME
    words = backup.distrust.lower()
    if not words:
        return ok("this host trusts its issuer")
    # OpenSSL checks the chain first; it finds these two problems only if that is valid.
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
        words = f"it refuses a random recipient only temporarily: {said}"
        return warn(words, "", _FOR_NOW)
    if isinstance(said.answer, Lost):
        return unknown(str(said))
    if backup.known and backup.known.is_refused:
        return unknown(f"it refuses every recipient: {said}")
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
        words = f"it relays for this host, which is the backup itself: {taken[0]}"
        return unknown(words, "", "run it on a host that the backup does not know")
    if taken:
        return fail(f"it accepts mail for a foreign domain: {taken[0]}")
    refused = list(filter(_denies, backup.elsewhere))
    if refused:
        return ok(str(refused[0]))
    words = f"the answer proves nothing: {backup.elsewhere[0]}"
    deferred = any(said.is_deferred for said in backup.elsewhere)
    return warn(words) if deferred else unknown(words)


def _denies(said: DialogueAnswer) -> bool:
    """Return whether relaying is refused; a default Postfix does so with 454."""
    if said.stage is not Stage.RCPT or isinstance(said.answer, Lost):
        return False
    rule = classify(said.answer, said.stage).rule
    return said.is_refused or (said.is_deferred and rule == "text-relay-denied")


def _tested(backup: BackupFacts, said: DialogueAnswer | None) -> CheckResult:
    if backup.untested:
        return skip(backup.untested, remedy=_NAME_IT)
    if not backup.answers:
        return _NO_SESSION
    if said is None:
        return _NO_TIME
    if said.stage not in (Stage.DATA, Stage.BODY, Stage.DOT):
        return unknown(f"the session ended before the message: {said}")
    if said.is_accepted:
        return fail(f"it accepted the message, for {backup.recipient}: {said}")
    if said.is_deferred:
        return warn(f"it refuses the message only temporarily: {said}")
    return ok(str(said)) if said.is_refused else unknown(str(said))


CHECKS: tuple[Check[BackupFacts], ...] = (
    Check(
        id="backup-answers",
        about="the backup answers on every address",
        unless="none answers; warns: one does not",
        remedy="start its SMTP server, open port 25 to all hosts, or drop the address",
        look=_answers,
    ),
    Check(
        id="backup-tls",
        about="it offers STARTTLS, and the handshake works",
        unless="it does not offer it, or the handshake fails",
        remedy="give it a certificate and switch TLS on (Postfix: `smtpd_tls_chain_"
        "files`, `smtpd_tls_security_level = may`)",
        look=_tls,
    ),
    Check(
        id="backup-tls-expiry",
        about="its certificate is not expired",
        unless="it has expired; warns: it will within 21 days",
        remedy="renew the certificate, automate the renewal, and reload the server",
        look=_expiry,
    ),
    Check(
        id="backup-tls-name",
        about="its certificate is for the name in the MX record",
        unless="it is for other names",
        remedy="get a certificate for the name in the MX record: MTA-STS asks for it",
        look=_name,
    ),
    Check(
        id="backup-tls-chain",
        about="its certificate comes from an issuer that this host trusts",
        unless="it is self-signed, or an intermediate certificate is missing",
        remedy="use a public CA, and send the intermediate certificates as well",
        look=_chain,
    ),
    Check(
        id="backup-recipient",
        about="it accepts mail for a recipient that exists",
        unless="it refuses; warns: it defers",
        remedy="configure the domain and its users there; check that the recipient"
        " exists",
        look=_recipient,
    ),
    Check(
        id="backup-validates",
        about="it refuses an unknown recipient at RCPT",
        unless="it accepts a random one; warns: it defers it",
        remedy="give it the primary's users (Postfix: `relay_recipient_maps`; Exim:"
        " `verify = recipient/callout`): mail for unknown users cannot be delivered",
        look=_stranger,
    ),
    Check(
        id="backup-relay",
        about="it refuses to relay elsewhere",
        unless="it accepts a recipient of example.com; warns: it defers it",
        remedy="close the relay (Postfix: `reject_unauth_destination`; a narrow"
        " `mynetworks`), or run doctor on a host that it does not know",
        look=_relay,
    ),
    Check(
        id="backup-spam",
        about="it refuses the GTUBE test message at SMTP time",
        unless="it accepts it; warns: it defers it",
        remedy="give it the primary's spam filter, before the queue (a milter): mail"
        " that only the primary refuses must be bounced or quarantined later",
        look=lambda backup: _tested(backup, backup.gtube),
    ),
    Check(
        id="backup-virus",
        about="it refuses the EICAR test file at SMTP time",
        unless="it accepts it; warns: it defers it",
        remedy="give it the primary's virus scanner, before the queue (a milter)",
        look=lambda backup: _tested(backup, backup.eicar),
    ),
)
