"""Whom a reply means: its subject or object decides, in whatever words and order."""

import itertools

import pytest

from drainer.mail.reply import Stage, parse_reply
from drainer.policy.breaker.detector import is_vote
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.verdict import Classification, Scope, Verdict
from tests.support.rows import every_row

#: What connects: a host, client, server, network, connection or address.
HOSTS = [
    "your server", "your IP address", "your IP 192.0.2.7", "your mail server",
    "the sending host", "the client host", "your network", "your host",
    "the connecting server", "the IP address 192.0.2.7", "this client",
    "the sender's IP", "your ISP", "the remote host 192.0.2.7",
]  # fmt: skip
#: What is said of it. `{}` is the host.
REFUSALS = [
    "{} is blocked", "{} was rejected", "{} has been banned", "{} isn't allowed here",
    "{} is not permitted to connect", "{} is on our black list", "{} is prohibited",
    "{} is denied", "{} is listed at bl.example", "mail from {} is refused",
    "Access denied for {}", "We have blocked {}", "Refused: {}",
    "blocked because of {}", "{} was blocked because of spam",
    "{} is blocked by the recipient's gateway", "{} has a poor reputation",
    "{} can't send to this server", "We won't accept mail from {}",
]  # fmt: skip
RATES = [
    "Too many messages from {}", "Too many connections from {}", "{} exceeds its limit",
    "{} sends too fast", "Hourly limit of {} reached", "Rate limit for {} exceeded",
]  # fmt: skip
OTHERS = [
    "Relaying denied", "We don't relay", "relay access is prohibited", "login required",
    "you must log in first", "Please authenticate", "TLS required",
    "encryption is mandatory", "client certificate is not trusted",
    "certificate of your host is unknown", "need fully-qualified HELO",
]  # fmt: skip
RECIPIENTS = ["user", "mailbox", "recipient", "account", "the user <u@example.org>"]
CLOSED = [
    "{} unknown", "{} doesn't exist", "{} not found", "{} is disabled",
    "{} unknown at mx1.example.org", "{} doesn't exist on this server",
    "{} not found by server mx1.example.org", "{} is disabled on host mx2.example.org",
    "{} refused: no such user", "{} is not known on this network",
    "no {} of that name at this host", "{} unknown [192.0.2.1]",
    "{} rejected by server policy of host mx1.example.org",
    "{} does not accept mail from outside", "this host doesn't know that {}",
    "{} has blocked your address", "{} blocked this sender",
]  # fmt: skip
WAITS = ["{} is over quota", "{} has too many messages", "{} is full"]


def judged(text: str, stage: Stage) -> Classification:
    """Return what a reply means."""
    return classify(parse_reply(text.encode()), stage)


def cross(patterns: list[str], subjects: list[str]) -> list[str]:
    """Return every pattern about every subject."""
    return [p.format(s) for p, s in itertools.product(patterns, subjects)]


@every_row(itertools.product(("550", "554 5.7.1"), (*cross(REFUSALS, HOSTS), *OTHERS)))
def test_what_is_said_of_a_host_is_about_us(code: str, words: str) -> None:
    """At any stage, also where the words speak of a recipient or of spam."""
    for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT):
        assert judged(f"{code} {words}", stage).verdict is Verdict.STOP, stage


@every_row(cross(RATES, HOSTS))
def test_a_rate_of_a_host_is_ours(words: str) -> None:
    """The primary wants less for a while."""
    found = judged(f"550 {words}", Stage.RCPT)
    assert (found.verdict, found.short) == (Verdict.STOP, True)


@every_row(
    itertools.product(
        ("550 5.2.1", "550 5.1.1"), cross(REFUSALS, HOSTS) + cross(RATES, HOSTS)
    )
)
def test_behind_a_code_about_the_mailbox_it_is_a_vote(code: str, words: str) -> None:
    """The recipient waits for hours; the words never stop delivery by themselves."""
    found = judged(f"{code} {words}", Stage.RCPT)
    assert found.verdict is Verdict.RETRY_LONG
    assert is_vote(found)


@every_row(
    itertools.product(
        ("550", "550 5.7.1"),
        ("", "<u@example.org>: ", "Sorry, ", "[mx3] "),
        cross(CLOSED, RECIPIENTS),
    )
)
def test_what_is_said_of_a_recipient_is_about_that_one(
    code: str, prefix: str, words: str
) -> None:
    """Whatever stands before it."""
    found = judged(f"{code} {prefix}{words}", Stage.RCPT)
    assert (found.verdict, found.scope) == (Verdict.BOUNCE, Scope.RECIPIENT)


@pytest.mark.parametrize("words", cross(WAITS, RECIPIENTS))
def test_a_mailbox_that_is_full_waits(words: str) -> None:
    """Its messages are not ours, however many they are."""
    assert judged(f"550 {words}", Stage.RCPT).verdict is Verdict.RETRY_LONG


REASONS = {
    "User unknown in virtual mailbox table": "bounce",
    "Access denied": "bounce",
    "": "bounce",
    "Greylisted": "retry",
    "Mailbox full": "retry-long",
    "Client host blocked by our list": "stop",
    "your server is on a block list": "stop",
    "SPF check failed": "hold",
    "LDAP server is unavailable": "stop",
    "Relaying denied": "stop",
    "Too many recipients": "retry",
}


@pytest.mark.parametrize(("reason", "verdict"), REASONS.items())
def test_behind_recipient_address_rejected_the_reason_decides(
    reason: str, verdict: str
) -> None:
    """Postfix says it before every reason; alone it means an unknown user."""
    text = f"550 <u@example.org>: Recipient address rejected: {reason}"
    assert judged(text.rstrip(": "), Stage.RCPT).verdict == verdict


CONTENTS = [
    "Message contains a link to a blocked host",
    "An IP address in the body is blacklisted",
    "URL with a listed IP 192.0.2.9 found in the message",
    "This mail was rejected by the mail server's spam filter",
    "Spam detected by server mx1 [192.0.2.1]",
    "Message rejected by server 192.0.2.1: spam",
    "virus found, blocked by the server",
]


@pytest.mark.parametrize("words", CONTENTS)
def test_the_content_that_a_server_refuses_is_not_the_server(words: str) -> None:
    """The host is named as the one that refuses, or stands in the content."""
    found = judged(f"550 5.7.1 {words}", Stage.DOT)
    assert (found.verdict, found.scope) == (Verdict.BOUNCE, Scope.MESSAGE)


@pytest.mark.parametrize("word", ["blocked", "banned", "prohibited"])
@pytest.mark.parametrize("stage", [Stage.DATA, Stage.BODY, Stage.DOT])
def test_from_data_on_these_words_mean_the_content(stage: Stage, word: str) -> None:
    """Unless a host or an address is named."""
    for words in (word.capitalize(), f"Message {word}", f"Attachment is {word}"):
        found = judged(f"550 {words}", stage)
        assert (found.verdict, found.scope) == (Verdict.BOUNCE, Scope.MESSAGE)
    for host in HOSTS:
        assert judged(f"550 {host} {word}", stage).verdict is Verdict.STOP


PARTS = ["scanner", "virus scan", "content filter", "clamd", "milter", "LDAP server",
         "user database", "policy service", "DNS"]  # fmt: skip
FAILURES = ["failed", "timed out", "is unavailable", "returned an error",
            "isn't responding", "is temporarily down"]  # fmt: skip


@every_row(itertools.product(PARTS, FAILURES))
def test_a_part_that_failed_found_nothing(part: str, failure: str) -> None:
    """The primary is unhealthy; the message is tried again, and never bounced."""
    for text in (
        f"554 5.7.1 {part} {failure}",
        f"550 Message refused: {part} {failure}",
    ):
        for stage in (Stage.RCPT, Stage.DOT):
            found = judged(text, stage)
            assert found.verdict in (Verdict.STOP, Verdict.RETRY, Verdict.HOLD), text
    assert judged(f"451 {part} {failure}", Stage.DOT).verdict is Verdict.RETRY
