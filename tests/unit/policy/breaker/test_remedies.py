"""Every failure of a stage comes with what to do next."""

import pytest

from drainer.mail.reply import Lost, Stage, parse_reply
from drainer.policy.breaker.breaker import Cause
from drainer.policy.breaker.detector import is_content
from drainer.policy.breaker.remedies import hint, remedy
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.codes import ENHANCED
from drainer.policy.classify.rules import families
from drainer.policy.classify.verdict import Classification, Scope, Verdict

REFUSED = parse_reply(b"550 5.7.1 no")
WORDS = {
    Stage.BANNER: "does not serve this host",
    Stage.EHLO: "[primary] helo",
    Stage.STARTTLS: "TLS settings",
    Stage.AUTH: "password_file",
    Stage.MAIL: "[health] sender",
    Stage.RCPT: "mynetworks",
}


@pytest.mark.parametrize(("stage", "words"), WORDS.items(), ids=list(WORDS))
def test_a_refusal_has_a_hint_for_its_stage(stage: Stage, words: str) -> None:
    """In the words of the settings, ours or the primary's."""
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
    assert hint(stage, Lost(reason=reason))


def test_a_hint_for_the_login_warns_of_locking_it() -> None:
    """More tries make it worse."""
    assert "may lock the account" in hint(Stage.AUTH, REFUSED)


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
    "[SSL: UNSUPPORTED_PROTOCOL] unsupported protocol": "TLS 1.2",
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
    assert words in found or "alert" in detail


def test_starttls_that_is_not_offered_is_told_from_one_that_is_refused() -> None:
    """A firewall may have removed it."""
    missing = parse_reply(b"502 the primary does not offer STARTTLS")
    assert "removes STARTTLS" in hint(Stage.STARTTLS, missing)
    assert "refused TLS" in hint(Stage.STARTTLS, REFUSED)


# ---- what a person can do about an open breaker

RELAY, DOMAIN, USERS = "to relay for this host", "that domain", "user table"
ADDRESS, LOGIN, SENDERS = "address or name", "a login or TLS", "SPF"
LESS, SICK, CONTENT, SILENT = (
    "less mail at once",
    "it has a fault",
    "content filter",
    "firewall",
)
GENERAL = "at one refused message"

REMEDIES = {
    "550 5.7.1 Unable to relay": RELAY,
    "551 x": RELAY,
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
    "550 5.7.1 Cannot find your reverse hostname": ADDRESS,
    "550 5.7.25 x": ADDRESS,
    "550 5.7.511 x": ADDRESS,
    "550 5.7.606 x": ADDRESS,
    "550 5.7.649 x": ADDRESS,
    "521 x": ADDRESS,
    "530 5.7.0 x": LOGIN,
    "535 x": LOGIN,
    "525 x": LOGIN,
    "550 5.7.8 x": LOGIN,
    "454 4.7.8 x": LOGIN,
    "550 5.7.10 x": LOGIN,
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
    """Return why a breaker opened."""
    classification = classify(parse_reply(text.encode()), stage)
    return Cause(
        trigger=trigger,
        classification=classification,
        reply=text,
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
        ("554 x", Stage.BANNER, ADDRESS),
        ("550 x", Stage.EHLO, ADDRESS),
        ("450 x", Stage.EHLO, SILENT),
        ("354 x", Stage.EHLO, SILENT),
        ("550 5.7.0 x", Stage.FORWARD, "forward_client"),
        ("421 x", Stage.FORWARD, "forward_client"),
        ("454 x", Stage.STARTTLS, LOGIN),
        ("535 x", Stage.AUTH, LOGIN),
    ],
)
def test_before_mail_the_stage_tells_the_remedy(
    text: str, stage: Stage, words: str
) -> None:
    """There is no message to look at."""
    assert words in remedy(cause(text, stage, "early"))


@pytest.mark.parametrize("stage", [s for s in Stage if s.before_mail])
def test_a_session_that_was_lost_has_a_remedy(stage: Stage) -> None:
    """A firewall, or TLS and logins."""
    classification = classify(Lost(reason="closed"), stage)
    found = remedy(Cause(trigger="early", classification=classification, reply="x"))
    assert (LOGIN if stage in (Stage.STARTTLS, Stage.AUTH) else SILENT) in found


CODES = [421, 450, 451, 452, 454, 521, 523, 524, 525, 530, 534, 535, 538, 550, 556]
STOPS = sorted(
    {
        judged.rule
        for code in CODES
        for detail in ("", *ENHANCED)
        for text in (f"{code} {code // 100}.{detail} x" if detail else f"{code} x",)
        for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT)
        for judged in (classify(parse_reply(text.encode()), stage),)
        if judged.verdict is Verdict.STOP
    }
    | {
        f"text-{rule.id}"
        for rule in families()
        if {rule.permanent, rule.temporary} & set("SsD")
    }
)
#: Nothing says what they are about: the operator must look.
UNSAID = ("text-bare-refusal", "mail-421", "rcpt-421", "data-421")


def test_every_rule_that_refuses_us_has_a_remedy_of_its_own() -> None:
    """But for those that say no more than no."""
    general = [
        rule
        for rule in STOPS
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
    assert len(STOPS) > 100
    assert sorted(general) == sorted(UNSAID)
