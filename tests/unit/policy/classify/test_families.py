"""Each text family: a reply that it is for, and one that only looks like it."""

import pytest

from drainer.mail.reply import Stage, parse_reply
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.normalize import MAX_WORDS, mask_reply, words_of
from drainer.policy.classify.rules import families, rules_of
from drainer.policy.classify.verdict import Verdict

#: rule -> (what it is for, what is another's).
EXAMPLES = {
    "too-many-recipients": (
        "550 5.7.1 Too many recipients in this message",
        "550 5.7.1 Too many recipients received this hour",
    ),
    "domain-not-served": (
        "550 No such domain here",
        "550 Sender domain is not known here: no such domain of the sender",
    ),
    "our-host": (
        "550 The connecting network was marked by our staff",
        "550 u@example.org at [192.0.2.7] is not a known user",
    ),
    "unavailable": (
        "554 5.0.0 Service unavailable",
        "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using bl.a.org",
    ),
    "group-closed": (
        "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required for this list",
        "550 5.7.1 Authentication required before you may relay",
    ),
    "organisation-only": (
        "550 5.7.12 Sender was not authenticated by organization",
        "550 5.7.12 A password transition is needed",
    ),
    "user-rate": (
        "450 4.7.1 The user is receiving mail too quickly right now",
        "450 4.7.1 Too many messages from this host, slow down",
    ),
    "recipient-blocks": (
        "550 Your mail was blocked by the recipient",
        "550 Your mail was blocked by a filter list of ours, see rbl.example",
    ),
    "content-blocklist": (
        "554 5.7.1 A link in it is on URIBL, see lookup.example",
        "554 5.7.1 Client host [192.0.2.7] blocked using dbl.lists.example",
    ),
    "unknown-user-behind-gateway": (
        "550 5.4.1 Recipient address rejected: Access denied. [x.prod.example]",
        "550 5.4.1 No answer from host",
    ),
    "policy-as-mechanism": (
        "554 5.7.9 This message violates our policy",
        "554 5.7.9 Mechanism too weak",
    ),
    "client-refused": (
        "554 5.7.1 Client host [<client>] blocked using bl.example",
        "554 5.7.1 Client host [192.0.2.7] blocked using bl.example",
    ),
    "no-such-user": (
        "550 No such user here, authentication required",
        "550 5.7.1 Sender address rejected: no such user",
    ),
    "relay-denied": (
        "554 5.7.1 <user@example.org>: Relay access denied",
        "550 5.1.1 User unknown at relay.example.org",
    ),
    "auth-required": (
        "550 5.7.1 Client was not authenticated to send anonymous mail",
        "550 5.7.1 The sender's DKIM authentication failed, SPF too",
    ),
    "our-name": (
        "550 5.7.1 Client host rejected: cannot find your reverse hostname",
        "550 5.1.1 helocity.example: no such user here",
    ),
    "greylisted": (
        "550 5.7.1 Recipient address rejected: Greylisted, see help.example",
        "550 5.1.1 Grey Liszt: no such user",
    ),
    "our-rate": (
        "550 5.7.1 Connection rate limit exceeded, try again slower",
        "550 5.5.0 Too many hops in this message",
    ),
    "sender-authentication": (
        "550 5.7.1 SPF check of the sender's domain failed",
        "550 5.1.1 No such user: spfeiffer",
    ),
    "our-address": (
        "554 5.7.1 Client host [192.0.2.7] blocked using bl.example",
        "550 5.7.1 The message was recognised as spam, https://h.example/rbl",
    ),
    "bare-refusal": (
        "550 Blocked - see https://lists.example/x",
        "550 Blocked account",
    ),
    "mailbox-full": (
        "552 5.0.0 The mailbox of this user is over quota",
        "452 Insufficient system storage, the spool is full",
    ),
    "mailbox-locked": (
        "550 5.7.1 The account is temporarily locked",
        "550 5.7.1 The account is locked for good",
    ),
    "unknown-user": (
        "550 5.7.1 <user@example.org>: not a valid mailbox here, bad address",
        "550 5.7.1 Sender address rejected: user unknown",
    ),
    "mailbox-closed": (
        "550 5.7.1 This account was deactivated",
        "550 5.7.1 Mail sent from your network was disabled",
    ),
    "too-large": (
        "552 5.0.0 The message is too big for us",
        "452 4.5.3 The number of recipients exceeds our limit",
    ),
    "loop": (
        "554 5.0.0 Too many hops, this mail loops",
        "550 5.1.1 looper: no such user",
    ),
    "our-transmission": (
        "550 5.5.0 Bare LF found, see RFC 5321",
        "550 5.5.0 barefoot: no such user",
    ),
    "malformed-message": (
        "550 5.7.1 It has a duplicate header field and is not RFC 5322 compliant",
        "550 5.7.1 The Received header count is fine, but spam it is",
    ),
    "sender-refused": (
        "550 5.7.1 Sender address rejected by a local rule",
        "550 5.7.1 Recipient address rejected: user unknown",
    ),
    "content": (
        "554 5.7.1 A virus was found in it",
        "554 5.7.1 Client host rejected: too much spam from your network",
    ),
    "content-policy": ("554 Refused by policy", "554 Refused"),
    "disk-full": ("452 No space left on device", "452 4.2.2 The mailbox is full"),
    "filter-down": (
        "451 4.7.1 The milter is unavailable",
        "451 4.7.1 Greylisted by our content filter",
    ),
    "later": (
        "554 5.0.0 Please come back another day",
        "550 5.7.1 No such user. Please try again later",
    ),
}
_STAGES = {"content-policy": Stage.DOT}


def rule_fired(text: str, stage: Stage = Stage.RCPT) -> str:
    """Return the rule that judges a reply."""
    return classify(parse_reply(text.encode()), stage).rule


def test_every_family_has_its_examples() -> None:
    """None is without, and none is for a rule that does not exist."""
    assert set(EXAMPLES) == {rule.id for rule in families()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_family_takes_what_is_meant_and_leaves_what_is_not(name: str) -> None:
    """The near miss shares words with it and belongs elsewhere."""
    meant, near = EXAMPLES[name]
    stage = _STAGES.get(name, Stage.RCPT)
    assert rule_fired(meant, stage) == f"text-{name}"
    assert rule_fired(near, stage) != f"text-{name}"


TEXTS = [text for pair in EXAMPLES.values() for text in pair]


@pytest.mark.parametrize("text", TEXTS)
def test_no_words_make_a_temporary_refusal_permanent(text: str) -> None:
    """Whatever a 4xx says, nothing is bounced for it."""
    words = text.split(" ", 2)[-1]
    for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT):
        judged = classify(parse_reply(f"450 {words}".encode()), stage)
        assert judged.verdict is not Verdict.BOUNCE


@pytest.mark.parametrize("text", TEXTS)
def test_before_mail_no_words_judge_a_message(text: str) -> None:
    """A banner may say what it likes: it is about us."""
    for stage in (Stage.BANNER, Stage.EHLO, Stage.STARTTLS, Stage.AUTH):
        assert classify(parse_reply(text.encode()), stage).verdict is Verdict.STOP


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("550 5.1.1 Your server was refused to relay", "retry-long"),
        ("550 5.1.1 Authentication required to relay", "bounce"),
        ("550 5.2.1 Insufficient system storage", "bounce"),
        ("450 4.1.1 Too many connections from your IP", "retry-long"),
        ("550 5.4.1 Authentication required", "stop"),
        ("550 5.1.1 Greylisted", "retry"),
        ("550 5.4.6 User unknown", "hold"),
        ("550 5.7.8 User unknown", "stop"),
        ("452 4.2.2 Greylisted", "retry"),
        ("452 4.2.2 Over quota, try again later", "retry-long"),
    ],
)
def test_a_specific_code_yields_only_towards_safer(text: str, verdict: str) -> None:
    """The words may save a message; they never condemn one."""
    assert classify(parse_reply(text.encode()), Stage.RCPT).verdict == verdict


def test_the_operators_rules_come_first() -> None:
    """This server says 550 when it means later; no rule makes a 4xx permanent."""
    own = rules_of(
        [
            {
                "id": "their-greylist",
                "when": ["not today"],
                "codes": [550],
                "permanent": "retry",
                "why": "it says 550 for greylisting",
            }
        ]
    )
    reply = parse_reply(b"550 5.1.1 Not Today, please")
    judged = classify(reply, Stage.RCPT, rules=own)
    assert (judged.verdict, judged.rule) == (Verdict.RETRY, "text-their-greylist")
    assert classify(reply, Stage.BANNER, rules=own).verdict is Verdict.STOP
    again = classify(parse_reply(b"450 4.1.1 Not today"), Stage.RCPT, rules=own)
    assert again.rule == "enhanced-4.1.1"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": "x", "when": ["a"]}, "say what it means"),
        ({"id": "x", "when": ["("], "permanent": "hold"}, "not a regular expression"),
        ({"id": "x", "when": [], "permanent": "hold"}, "when is missing"),
        ({"id": "x", "when": "a", "permanent": "hold"}, "a list of texts"),
        ({"id": "X y", "when": ["a"], "permanent": "hold"}, "letters, digits"),
        ({"id": "x", "when": ["a"], "permanent": "drop"}, "legal are retry"),
        ({"id": "x", "when": ["a"], "permanent": ["hold"]}, "legal are retry"),
        ({"id": "x", "when": ["a{5000}"], "permanent": "hold"}, "not a regular"),
        ({"id": "x", "when": ["a"], "temporary": "bounce"}, "never permanent"),
        ({"id": "x", "when": ["a"], "permanent": "hold", "code": [1]}, "unknown key"),
        ({"id": "x", "when": ["a"], "permanent": "hold", "codes": [250]}, "400 to 599"),
        (
            {"id": "x", "when": ["a"], "permanent": "hold", "stages": ["banner"]},
            "legal are mail",
        ),
    ],
)
def test_a_wrong_rule_is_an_error_that_says_what_is_legal(
    row: dict[str, object], words: str
) -> None:
    """It is found when it is read, not when a reply meets it."""
    with pytest.raises(ValueError, match=words):
        rules_of([row])


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|aa)+$", ".*.*.*.*b", "(?:.*,){20}b", "(a*)*b"]
)
def test_no_rule_can_be_made_slow_by_a_reply(pattern: str) -> None:
    """Tried way after way, each of these would take years."""
    (rule,) = rules_of([{"id": "x", "when": [pattern], "permanent": "retry"}])
    hostile = parse_reply(b"550 " + b"a" * MAX_WORDS)
    words = "a" * (MAX_WORDS - 1) + "!"
    assert not rule.matches(words, hostile, Stage.RCPT)


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "a{0,5000}", "\ud800"])
def test_an_expression_that_cannot_be_bounded_is_refused(pattern: str) -> None:
    """When it is read, with the reason."""
    with pytest.raises(ValueError, match=r"not a regular expression: .+"):
        rules_of([{"id": "x", "when": [pattern], "permanent": "retry"}])


def test_half_a_character_in_a_reply_is_no_obstacle() -> None:
    """As JSON may bring it to `classify`."""
    (rule,) = rules_of([{"id": "x", "when": ["later .+ on"], "permanent": "retry"}])
    reply = parse_reply(b"550 x")
    assert rule.matches(words_of("Later \ud800 on"), reply, Stage.RCPT)


def test_two_rules_of_one_name_are_an_error() -> None:
    """Else nobody could tell which one fired."""
    row = {"id": "x", "when": ["a"], "permanent": "hold"}
    with pytest.raises(ValueError, match="two rules"):
        rules_of([row, row])


def test_words_are_lower_case_and_without_names() -> None:
    """A URL becomes its host, because its path may hold any word."""
    text = (
        "Blocked  <User@Example.org> from [192.0.2.1], see https://X.example/spam?a=1"
    )
    assert words_of(text) == "blocked <@> from [ip], see x.example"


def test_the_same_refusal_is_told_alike_to_everybody() -> None:
    """Names, numbers and ids are masked in the fingerprint."""
    one = "<a@example.org>: Relay denied for mx1.example (192.0.2.1) id 3A4F-22"
    two = (
        "<b.c@other.example>: Relay denied for mx2.other.example (2001:db8::1) id 9Z-1"
    )
    assert mask_reply(one) == mask_reply(two)
    assert mask_reply("user unknown") != mask_reply("relay denied")
