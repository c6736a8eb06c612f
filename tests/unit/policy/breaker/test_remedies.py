"""Every failure of a stage comes with what to do next."""

import pytest

from drainer.mail.reply import Lost, Stage, parse_reply
from drainer.policy.breaker.breaker import Cause
from drainer.policy.breaker.detector import is_content
from drainer.policy.breaker.groups import MailGroup
from drainer.policy.breaker.remedies import advice, hint, remedy
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.codes import ENHANCED
from drainer.policy.classify.rules import families
from drainer.policy.classify.verdict import STOPS, Classification, Scope, Verdict

REFUSED = parse_reply(b"550 5.7.1 no")
WORDS = {
    Stage.BANNER: "does not say why: allow this host's address",
    Stage.EHLO: "It may be our name: set [primary] helo",
    Stage.STARTTLS: "TLS settings",
    Stage.AUTH: "password_file",
    Stage.MAIL: "does not say why: look at its log; set [health] sender",
    Stage.RCPT: "does not say why: look at its log. It may deny relay",
}


@pytest.mark.parametrize(("stage", "words"), WORDS.items(), ids=list(WORDS))
def test_a_bare_refusal_has_a_hint_for_its_stage(stage: Stage, words: str) -> None:
    """It says what was seen, and names what it may be."""
    assert words in hint(stage, REFUSED)


@pytest.mark.parametrize(
    "reason",
    [
        "refused",
        "unreachable",
        "unresolved",
        "timeout",
        "closed",
        "reset",
        "tls",
        "protocol",
    ],
)
@pytest.mark.parametrize("stage", list(Stage))
def test_a_loss_has_a_hint_for_its_reason(stage: Stage, reason: str) -> None:
    """Whatever the stage: nothing listens, no route, a firewall, a certificate."""
    lost = Lost(reason=reason, detail="x (y)")
    assert hint(stage, lost)
    if stage.before_mail:
        found = Cause(
            trigger="early",
            classification=classify(lost, stage),
            reply=f"{stage}: {lost}",
        )
        assert remedy(found) == hint(stage, lost)


@pytest.mark.parametrize(
    ("reason", "detail", "words"),
    [
        ("unreachable", "[Errno 99] Cannot assign requested address", "[primary] bind"),
        ("unreachable", "it is of another family than our address ::1", "IPv4 or IPv6"),
        ("unreachable", "[Errno 113] No route to host", "check routing"),
        ("token", "token_command printed no token, exit status 1", "run token_command"),
    ],
)
def test_what_is_wrong_on_our_side_is_named(
    reason: str, detail: str, words: str
) -> None:
    """A key of [primary], not a firewall."""
    lost = Lost(reason=reason, detail=detail)
    assert words in hint(Stage.CONNECT, lost)
    early = Cause(
        trigger="early",
        classification=classify(lost, Stage.CONNECT),
        reply=str(lost),
    )
    assert words in remedy(early)


def test_a_hint_for_the_login_warns_of_locking_it() -> None:
    """More tries make it worse."""
    assert "may lock the account" in hint(Stage.AUTH, REFUSED)


def test_what_does_not_know_ehlo_or_our_password_is_named_so() -> None:
    """Neither is about our name, or about a login that is missing."""
    unknown = parse_reply(b"500 EHLO not understood")
    assert "does not know EHLO" in hint(Stage.EHLO, unknown)
    ftp = parse_reply(b"530 Please login with USER and PASS.")
    assert "an FTP server" in hint(Stage.EHLO, ftp)
    refused = parse_reply(b"535 5.7.8 Error: authentication failed")
    assert "refuses the login or the token" in hint(Stage.AUTH, refused)


HANDSHAKES = {
    "certificate verify failed: certificate has expired (_ssl.c:992)": "renew it",
    "certificate verify failed: certificate is not yet valid": "clocks of both hosts",
    "certificate verify failed: Hostname mismatch, certificate is not valid for 'a'.": (
        "does not name [primary] host"
    ),
    "certificate verify failed: IP address mismatch, certificate is not valid": (
        "does not name [primary] host"
    ),
    "certificate verify failed: self-signed certificate": "is self-signed",
    "certificate verify failed: self-signed certificate in certificate chain": (
        "does not know the primary's CA"
    ),
    "certificate verify failed: unable to get local issuer certificate": (
        "does not know the issuer"
    ),
    "certificate verify failed: unable to verify the first certificate": (
        "intermediate certificates"
    ),
    "certificate verify failed: EE certificate key too weak": "get another",
    "[SSL] legacy sigalg disallowed or unsupported (_ssl.c:992)": "TLS 1.2",
    "[SSL: DH_KEY_TOO_SMALL] dh key too small": "too small",
    "[SSL: UNSUPPORTED_PROTOCOL] unsupported protocol": "tls_minimum",
    "[SSL: WRONG_VERSION_NUMBER] wrong version number": "is not TLS",
    "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] alert": "TLS settings and log",
}


@pytest.mark.parametrize(("detail", "words"), HANDSHAKES.items(), ids=list(HANDSHAKES))
def test_a_failed_handshake_has_a_hint_for_its_cause(detail: str, words: str) -> None:
    """The check says it at once; a drain that was stopped says it at its end."""
    lost = Lost(reason="tls", detail=detail)
    assert words in hint(Stage.STARTTLS, lost)
    classification = classify(lost, Stage.STARTTLS)
    found = remedy(
        Cause(trigger="early", classification=classification, reply=str(lost))
    )
    assert words in found


def test_starttls_that_is_not_offered_is_told_from_one_that_is_refused() -> None:
    """A firewall may have removed it."""
    missing = parse_reply(b"502 the primary does not offer STARTTLS")
    assert "removes STARTTLS" in hint(Stage.STARTTLS, missing)
    assert "refused TLS" in hint(Stage.STARTTLS, REFUSED)


# ---- what a person can do about an open breaker

RELAY, DOMAIN, USERS = "to relay for this host", "no longer serves", "is its user table"
ADDRESS, NAME, LOGIN, TLS = (
    "refuses this host's address",
    "refuses this host's name",
    "a login or TLS",
    "requires TLS",
)
SENDERS, SEND_AS, RESOLVER = "SPF", "send as its own senders", "resolver"
LESS, SICK, CONTENT, SILENT = (
    "less mail at once",
    "it has a fault",
    "content filter",
    "firewall",
)
PART, GREY, ELSEWHERE = "a part of it does not work", "greylists", "served elsewhere"
LMTP, HTTP, EARLY = "that is LMTP", "HTTP", "does not say why"
TRANSMISSION = "how this host transmits"
GENERAL = "at one refused message"

REMEDIES = {
    "550 5.7.1 Unable to relay": RELAY,
    "551 x": ELSEWHERE,
    "550 5.7.54 x": RELAY,
    "550 We do not host that domain": DOMAIN,
    "550 5.1.8 x": RESOLVER,
    "450 4.1.8 Sender address rejected: Domain not found": RESOLVER,
    "550 5.7.60 Client does not have permissions to send as this sender": SEND_AS,
    "550 5.7.1 Sender address rejected: not owned by user x": SEND_AS,
    "450 4.7.1 Greylisted": GREY,
    "504 5.5.2 Helo command rejected: need fully-qualified hostname": NAME,
    "550 5.7.1 Too many messages from your host this hour": LESS,
    "530 5.7.0 Must issue a STARTTLS command first": TLS,
    "554 5.7.1 Encryption required": TLS,
    "523 x": TLS,
    "530 5.7.1 Authentication required": LOGIN,
    "451 4.3.5 Server configuration error": PART,
    "554 5.7.1 The scanner is unavailable": PART,
    "550 5.4.3 Directory server failed": PART,
    "500 Line too long": TRANSMISSION,
    "550 5.7.51 x": RELAY,
    "550 5.7.64 x": RELAY,
    "550 5.1.2 x": DOMAIN,
    "550 5.1.10 x": DOMAIN,
    "550 5.4.4 x": DOMAIN,
    "556 x": DOMAIN,
    "550 5.1.1 x": USERS,
    "550 5.2.1 x": USERS,
    "550 User unknown": USERS,
    "550 5.4.1 Recipient address rejected: Access denied": USERS,
    "550 This account was closed": USERS,
    "554 5.7.1 Client host [192.0.2.7] blocked using bl.example": ADDRESS,
    "550 5.7.1 Cannot find your reverse hostname": NAME,
    "550 5.7.25 x": NAME,
    "550 5.7.511 x": ADDRESS,
    "550 5.7.606 x": ADDRESS,
    "550 5.7.649 x": ADDRESS,
    "521 x": ADDRESS,
    "530 5.7.0 x": LOGIN,
    "535 x": "refuses the login or the token",
    "525 x": LOGIN,
    "550 5.7.8 x": LOGIN,
    "454 4.7.8 x": LOGIN,
    "550 5.7.10 x": TLS,
    "550 5.7.57 x": LOGIN,
    "550 5.5.6 x": LOGIN,
    "550 5.7.1 Authentication required": LOGIN,
    "550 5.7.23 x": SENDERS,
    "550 5.7.26 x": SENDERS,
    "550 5.7.509 x": SENDERS,
    "550 5.7.1 SPF check failed": SENDERS,
    "450 4.7.28 x": LESS,
    "550 5.7.28 x": LESS,
    "450 4.4.5 x": LESS,
    "450 4.7.500 x": LESS,
    "450 4.7.850 x": LESS,
    "550 5.7.1 Too many connections": LESS,
    "550 5.3.1 x": SICK,
    "452 4.3.1 x": SICK,
    "550 5.4.3 x": SICK,
    "451 x": SICK,
    "451 The milter is unavailable": SICK,
    "452 No space left on device": SICK,
    "554 5.7.1 Spam": CONTENT,
    "550 5.6.0 x": CONTENT,
    "550 Refused": GENERAL,
    "550 5.7.17 x": GENERAL,
}


def cause(text: str, stage: Stage, trigger: str = "stop") -> Cause:
    """Return why a breaker opened; one from before MAIL names its stage as well."""
    classification = classify(parse_reply(text.encode()), stage)
    return Cause(
        trigger=trigger,
        classification=classification,
        reply=f"{stage}: {text}" if trigger == "early" else text,
        content=is_content(classification.rule),
    )


@pytest.mark.parametrize(("text", "words"), REMEDIES.items())
def test_a_refusal_has_the_remedy_that_fits_it(text: str, words: str) -> None:
    """Whichever way the breaker came to open."""
    assert words in remedy(cause(text, Stage.RCPT))


@pytest.mark.parametrize(
    ("text", "stage", "words"),
    [
        ("554 x", Stage.CONNECT, "does not serve this host"),
        ("421 x", Stage.BANNER, SILENT),
        ("421 Too many connections from your address", Stage.BANNER, LESS),
        ("421 bye", Stage.MAIL, GENERAL),
        ("421 Too many connections from your address", Stage.MAIL, LESS),
        ("554 x", Stage.BANNER, EARLY),
        ("521 5.7.1 client [192.0.2.7] blocked using bl.a.org", Stage.BANNER, ADDRESS),
        ("550 5.7.25 no", Stage.BANNER, NAME),
        ("550 x", Stage.EHLO, EARLY),
        ("504 5.5.2 <mx2>: need fully-qualified hostname", Stage.EHLO, NAME),
        ("500 5.5.2 Unknown command", Stage.EHLO, LMTP[-4:]),
        ("500 5.5.1 This is an LMTP server, use LHLO", Stage.EHLO, LMTP),
        ("530 5.7.0 Must issue a STARTTLS command first", Stage.AUTH, TLS),
        ("450 x", Stage.EHLO, SILENT),
        ("354 x", Stage.EHLO, SILENT),
        ("550 5.7.0 x", Stage.FORWARD, "forward_client"),
        ("421 x", Stage.FORWARD, "forward_client"),
        ("454 x", Stage.STARTTLS, "TLS settings"),
        ("535 x", Stage.AUTH, LOGIN),
    ],
)
def test_before_mail_the_stage_tells_the_remedy(
    text: str, stage: Stage, words: str
) -> None:
    """There is no message to look at."""
    assert words in remedy(cause(text, stage, "early"))


def test_a_demand_for_tls_names_the_settings() -> None:
    """In a drain too, where nobody has seen why the session has none."""
    said = remedy(cause("530 5.7.0 Must issue a STARTTLS command first", Stage.MAIL))
    for setting in ('tls = "required"', '"implicit"', 'tls_minimum = "1.0"'):
        assert setting in said


@pytest.mark.parametrize(
    ("kind", "words"),
    [("sender", "xclient"), ("attachment", "limits"), ("size", "limits"),
     ("smtputf8", "limits")],
)  # fmt: skip
def test_mail_that_is_held_as_a_group_has_a_remedy(kind: str, words: str) -> None:
    """Whatever the primary says; the words of a reply that are known say more."""
    rule = MailGroup(kind=kind).rule
    assert words in advice(rule, "550 5.7.1 no thanks")
    assert "SPF and DMARC" in advice(rule, "550 5.7.1 DMARC says no")


@pytest.mark.parametrize("stage", [s for s in Stage if s.before_mail])
def test_a_session_that_was_lost_has_a_remedy(stage: Stage) -> None:
    """A firewall, or TLS and logins."""
    classification = classify(Lost(reason="closed"), stage)
    found = remedy(Cause(trigger="early", classification=classification, reply="x"))
    words = {Stage.STARTTLS: "TLS settings", Stage.AUTH: LOGIN}
    assert words.get(stage, SILENT) in found


GARBAGE = {
    "not an SMTP reply: b'HTTP/1.1 400 Bad Request'": "web server",
    "b'* OK [CAPABILITY IMAP4rev1] ready'": "IMAP",
    "b'+OK Dovecot ready.'": "POP3",
    "b'SSH-2.0-OpenSSH_9.2'": "SSH",
    r"b'\x15\x03\x01\x00\x02'": "TLS from the start",
    "b'hello'": "not an SMTP server",
}


@pytest.mark.parametrize(("detail", "words"), GARBAGE.items())
def test_what_is_not_smtp_is_named(detail: str, words: str) -> None:
    """By what it says; the check and the end of a drain say the same."""
    lost = Lost(reason="protocol", detail=detail)
    assert words in hint(Stage.BANNER, lost)
    found = remedy(
        Cause(
            trigger="early",
            classification=classify(lost, Stage.BANNER),
            reply=str(lost),
        )
    )
    assert words in found


@pytest.mark.parametrize(("text", "words"), REMEDIES.items())
def test_the_check_says_the_same_as_the_breaker(text: str, words: str) -> None:
    """Both follow from the rule, so neither guesses by the stage."""
    if words != GENERAL:
        assert words in hint(Stage.RCPT, parse_reply(text.encode()))


CODES = [421, 450, 451, 452, 454, 521, 523, 524, 525, 530, 534, 535, 538, 550, 556]
#: Nothing says what they are about: the operator must look.
UNSAID = ("text-bare-refusal", "mail-421", "rcpt-421", "data-421")


def stops() -> set[str]:
    """Return every rule that can stop a route."""
    by_code = {
        judged.rule
        for code in CODES
        for detail in ("", *ENHANCED)
        for text in (f"{code} {code // 100}.{detail} x" if detail else f"{code} x",)
        for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT)
        for judged in (classify(parse_reply(text.encode()), stage),)
        if judged.verdict is Verdict.STOP
    }
    return by_code | {
        f"text-{rule.id}"
        for rule in families()
        if {rule.permanent, rule.temporary} & STOPS
    }


def test_every_rule_that_refuses_us_has_a_remedy_of_its_own() -> None:
    """But for those that say no more than no."""
    found = stops()
    general = [
        rule
        for rule in found
        if GENERAL
        in remedy(
            Cause(
                trigger="stop",
                classification=Classification(
                    verdict=Verdict.STOP, scope=Scope.ROUTE, rule=rule, reason="x"
                ),
                reply="x",
            )
        )
    ]
    assert len(found) > 100
    assert sorted(general) == sorted(UNSAID)
