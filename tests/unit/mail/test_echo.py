"""What a reply quotes of what was sent is masked, however it is quoted."""

from collections.abc import Iterator

import pytest

from drainer.errors import MessageUnreadable
from drainer.mail.content import HeldContent
from drainer.mail.echo import CLIENT, MAX_HEAD, TEXT, SentData, mask, remove_echo
from drainer.mail.envelope import Client, Envelope, Recipient
from drainer.mail.message import Content, Message, SpooledMessage
from drainer.mail.reply import Stage, parse_reply
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.normalize import words_of
from drainer.policy.classify.verdict import Verdict
from drainer.policy.recipient.delivery import ClaimedRecipient, Delivery
from drainer.smtp.transaction import Transaction
from tests.support.scenarios.settlements import NOW

PATH = '"authentication required 1"@example.org'
SENT = SentData(
    addresses=("rbl@evil.example", PATH, '"a \\"b\\" relay denied"@example.org'),
    client=("203.0.113.9", "listed.evil.example"),
    texts=("envelope-throttled",),
)

MASKED = {
    "as it was sent": f"no {PATH} here",
    "without quotes": "no authentication required 1@example.org here",
    "local part": "no authentication required 1 here",
    "in capitals": "no AUTHENTICATION REQUIRED 1@EXAMPLE.ORG here",
    "underscores": "no authentication_required_1 here",
    "question marks": "no authentication?required?1 here",
    "percent": "no authentication%20required%201 here",
    "plus": "no authentication+20required+201@example.org here",
    "quoted printable": "no authentication=20required=201 here",
    "octal": r"no authentication\040required\0401 here",
    "hexadecimal": r"no authentication\x20required\x201 here",
    "braces": r"no authentication\x{20}required\x{20}1 here",
    "unicode": r"no authentication\u0020required\u00201 here",
    "entities": "no &quot;authentication required 1&quot; here",
    "backslashes": r"no authentication\ required\ 1 here",
    "wrapped": "no authenti cation requ ired 1@exam ple.org here",
    "cut": "no authentication requ... here",
    "two of them": "no authentication required 1, rbl here",
    "short word": "no rbl here",
    "escaped quotes": 'no a "b" relay denied here',
    "ENVID": "no envelope-throttled here",
}


@pytest.mark.parametrize("text", MASKED.values(), ids=list(MASKED))
def test_what_was_sent_is_masked_however_it_is_quoted(text: str) -> None:
    """None of its words is left; the server's own words are."""
    found = mask(text, SENT)
    assert found.startswith("no ")
    assert found.endswith(" here")
    assert TEXT in found
    for word in ("auth", "cation", "requ", "rbl", "relay", "throttled"):
        assert word not in found.lower()


@pytest.mark.parametrize(
    "text",
    [
        "Relay access is denied",
        "Client host [192.0.2.7] blocked using zen.spamhaus.org",
        "your IP 203.0.113.25 is listed",  # ours, whatever digits were sent
        "marble table",  # no word of its own
        "x",
        "",
    ],
)
def test_the_servers_own_words_stay(text: str) -> None:
    """Those are what rules look at."""
    sent = SentData(
        addresses=("rbl@evil.example", "20301132@example.org"),
        head=b"Received: from [203.0.113.25] by mx\r\n\r\n",
    )
    assert mask(text, sent) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Client host [203.0.113.9] is listed", f"Client host {CLIENT} is listed"),
        ("203.0.113.9: too fast", f"{CLIENT}: too fast"),
        ("LISTED.evil.example is bad", f"{CLIENT} is bad"),
        ("203.0.113.90 is listed", "203.0.113.90 is listed"),
    ],
)
def test_the_client_that_we_name_is_recognised(text: str, expected: str) -> None:
    """With XCLIENT a list of hosts is about that one, and not about us."""
    sent = SentData(client=("203.0.113.9", "listed.evil.example", "mail"))
    assert mask(text, sent) == expected
    listed = parse_reply(b"554 5.7.1 Client host [203.0.113.9] blocked using bl.test")
    assert classify(listed, Stage.RCPT).verdict is Verdict.STOP
    found = classify(listed, Stage.RCPT, sent=lambda: sent)
    assert (found.verdict, found.rule) == (Verdict.HOLD, "text-client-refused")


HEADS = {
    "Subject": b"Subject: authentication required\r\n\r\n",
    "folded": b"Subject: authentication\r\n required\r\n\r\n",
    "base64": b"Subject: =?utf-8?B?YXV0aGVudGljYXRpb24gcmVxdWlyZWQ=?=\r\n\r\n",
    "quoted printable": b"Subject: =?utf-8?Q?authentication=20required?=\r\n\r\n",
    "From": b"From: authentication required <x@y.example>\r\n\r\n",
    "short": b"Subject: rbl\r\n\r\n",
    "file name": b'X: y\r\n\r\n--b\r\nContent-Type: x; name="authentication required"',
    "RFC 2231": b"X: y\r\n\r\nX; filename*=UTF-8''authentication%20required",
    "no header": b"\r\nauthentication required",
    "broken word": b"X: =?utf-8?B?!!?=\r\nY: =?no?Q?x?=\r\nZ: authentication required",
    "8-bit": "Subject: authentication required ü\r\n\r\n".encode("latin-1"),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=list(HEADS))
def test_a_header_that_is_quoted_is_masked(head: bytes) -> None:
    """Also decoded, and names of attachments in the beginning of the body."""
    words = "rbl" if b"rbl" in head else "authentication required"
    reply = parse_reply(f"554 5.7.1 '{words}' is refused".encode())
    assert remove_echo(reply, SentData(head=head)).text == f"'{TEXT}' is refused"


def test_a_code_that_the_address_forges_is_not_believed() -> None:
    """A server that starts its text with the address gives it no enhanced code."""
    reply = parse_reply(b"550 5.7.8 x@example.org: unknown")
    assert classify(reply, Stage.RCPT).verdict is Verdict.STOP
    sent = SentData(addresses=('"5.7.8 x"@example.org',))
    found = classify(reply, Stage.RCPT, sent=lambda: sent)
    assert found.verdict is Verdict.BOUNCE
    other = SentData(addresses=("15.7.8@example.org",))
    assert classify(reply, Stage.RCPT, sent=lambda: other).verdict is Verdict.STOP


def test_masking_never_makes_it_worse() -> None:
    """What is sent may also hide the words that keep a rule from applying."""
    reply = parse_reply(b"550 5.7.1 SPF: mail is not authenticated, required")
    plain = classify(reply, Stage.RCPT)
    found = classify(
        reply, Stage.RCPT, sent=lambda: SentData(addresses=("spf@x.example",))
    )
    assert plain.verdict is Verdict.HOLD
    assert found.verdict is not Verdict.STOP


def test_a_reply_that_ignores_a_rule_says_so() -> None:
    """An operator reads why the primary's words were not believed."""
    reply = parse_reply(b"550 5.7.1 authentication required 1 is refused")
    found = classify(reply, Stage.RCPT, sent=lambda: SENT)
    assert (found.verdict, found.rule) == (Verdict.BOUNCE, "basic-550")
    assert "quotes what was sent, text-auth-required is ignored" in found.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<authentication required@x.example>: no", "<@>: no"),
        ('<"a> authentication required"@x.example>: no', "<@>: no"),
        ("<a> authentication required@x.example>: no", "<@>: no"),
        ("no <authentication required", "no <@>"),
        ("<a <authentication required>: no", "<@><@>: no"),
        ('"authentication required"@x.example: no', "<@>: no"),
        ("<user@x.example>: relay access denied", "<@>: relay access denied"),
        ("bare <CR> in it", "bare <cr> in it"),
        ("see <https://x.example/a b> there", "see <@> there"),
    ],
)
def test_what_is_between_angles_is_never_looked_at(text: str, words: str) -> None:
    """Also where nobody knows what was sent."""
    assert words_of(text) == words


def test_it_is_quick_whatever_is_sent_and_replied() -> None:
    """Both are capped, and the time is linear: no operation is repeated per word."""
    sent = SentData(
        addresses=tuple(f"user{n}@example.org" for n in range(2000)),
        texts=("a " * 100_000,),
        head=(b"X: " + b"a% " * 300 + b"\r\n") * 1000,
    )
    found = mask("a% " * 100_000, sent)
    assert len(found) <= 4000


# ---- what a transaction has sent


def work(content: Content, *, address: str = "203.0.113.9") -> Transaction:
    """Return the transaction of a message from a client."""
    message = Message(
        identity="0" * 32,
        source="x:y",
        native_id="A",
        queue="",
        locator="A",
        arrived=NOW,
        envelope=Envelope(reverse_path="a@evil.example", envid="env"),
        client=Client(address=address, name="c.evil.example", helo="h.evil.example"),
        login="me",
        message_id="<m@x>",
    )
    to = Recipient(forward_path="b@example.org", orcpt="rfc822;c@example.org")
    claimed = (ClaimedRecipient(n=0, recipient=to),)
    return Transaction(
        delivery=Delivery(message=message, seq=1, claimed=claimed),
        spooled=SpooledMessage(message=message, content=content),
        facts=None,  # type: ignore[arg-type]
    )


class Gone:
    """A content whose file is gone."""

    def chunks(self) -> Iterator[bytes]:
        """Raise what a source raises then."""
        yield b"Subject: x\r\n"
        code, detail = "vanished", "gone"
        raise MessageUnreadable(code, detail)


def test_a_transaction_knows_what_it_sent() -> None:
    """Envelope and client at RCPT; the beginning of the content from DATA on."""
    one = work(HeldContent(b"x" * 2 * MAX_HEAD))
    sent = one.sent(Stage.RCPT)
    assert {"a@evil.example", "b@example.org", "c@example.org"} <= set(sent.addresses)
    assert sent.client == ("203.0.113.9", "c.evil.example", "h.evil.example")
    assert {"env", "me", "<m@x>"} <= set(sent.texts)
    assert sent.head == b""
    assert one.sent(Stage.DOT).head == b"x" * MAX_HEAD
    assert work(Gone()).sent(Stage.DATA).head == b"Subject: x\r\n"


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "", "unknown"])
def test_a_client_of_our_own_network_may_be_us(address: str) -> None:
    """A refusal of its address is one of ours."""
    sent = work(HeldContent(b""), address=address).sent(Stage.RCPT)
    assert sent.client == ()
    assert "h.evil.example" in sent.texts
