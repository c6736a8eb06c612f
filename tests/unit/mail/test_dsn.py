"""Reports: what they say, that everybody can read them, and that nothing gets in."""

import email
import email.policy
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage, Message
from random import Random
from typing import Any, Final

import pytest
from flufl.bounce import all_failures
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from drainer.mail.dsn.build import MAX_CONTENT_BYTES, MAX_HEADER_BYTES, build
from drainer.mail.dsn.model import CannotReport, Dsn, DsnAction, RecipientStatus, mta_of
from drainer.mail.dsn.text import reason_of
from drainer.mail.envelope import AddressError, Envelope, Recipient
from drainer.mail.list_markers import marks_of

AT: Final = datetime(2026, 11, 24, 10, 30, tzinfo=UTC)
HEAD: Final = (
    b"From: Bob <bob@sender.example>\r\n"
    b"To: anna@primary.example\r\n"
    b"Subject: hello\r\n"
    b"Message-ID: <1@sender.example>\r\n"
)
CONTENT: Final = HEAD + b"\r\nHello Anna.\r\n"
REPLY: Final = "550 5.1.1 <anna@primary.example>: User unknown"
ANNA: Final = RecipientStatus(
    recipient=Recipient(forward_path="anna@primary.example"),
    status="5.1.1",
    reply=REPLY,
    last_attempt=AT,
)
REPORT: Final = Dsn(
    envelope=Envelope(reverse_path="Bob+x@sender.example"),
    statuses=(ANNA,),
    hostname="mx2.example",
    primary="mx1.primary.example",
    message_id="<report-0123@mx2.example>",
    date=AT,
    arrived=AT,
    helo="client.example",
    log_id="4f2a",
    head=HEAD,
)
TOP: Final = [
    "From", "To", "Date", "Message-ID", "Subject", "In-Reply-To", "References",
    "Auto-Submitted", "X-Drainer-Report", "MIME-Version", "Content-Type",
]  # fmt: skip
OF_MESSAGE: Final = {
    "Original-Envelope-Id", "Reporting-MTA", "Received-From-MTA", "Arrival-Date",
}  # fmt: skip
OF_RECIPIENT: Final = {
    "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA",
    "Diagnostic-Code", "Last-Attempt-Date", "Final-Log-Id", "Will-Retry-Until",
}  # fmt: skip


def parsed(data: bytes) -> EmailMessage:
    """Parse strictly with Python's own package; every part must be without defect."""
    assert b"\n" not in data.replace(b"\r\n", b"")
    assert b"\r" not in data.replace(b"\r\n", b"")
    assert max(map(len, data.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(data, policy=email.policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert [part.defects for part in message.walk() if part.defects] == []
    return message


def parts(data: bytes) -> list[Message]:
    """Return the three parts."""
    message = parsed(data)
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    found = list(message.iter_parts())
    assert len(found) == 3
    return list(found)


def text_of(data: bytes) -> str:
    """Return what a person reads."""
    first = parts(data)[0]
    assert isinstance(first, EmailMessage)
    assert first.get_content_type() == "text/plain"
    return str(first.get_content())


def groups_of(data: bytes) -> list[dict[str, str]]:
    """Return the fields for programs, a mapping per group.

    Read by hand: Python's package knows no message/global-delivery-status.
    """
    boundary = parsed(data)["Content-Type"].params["boundary"]
    body = data.split(f"--{boundary}\r\n".encode())[2].partition(b"\r\n\r\n")[2]
    text = body.decode().rstrip("\r\n").replace("\r\n ", " ")
    return [
        dict(line.split(": ", 1) for line in group.replace(":  ", ": ").split("\r\n"))
        for group in text.split("\r\n\r\n")
    ]


def original_of(data: bytes) -> bytes:
    """Return the bytes of the third part, decoded."""
    third = parts(data)[2]
    if third.get_content_type() == "message/rfc822":
        raw = data.split(b"\r\n\r\n", 3)
        return raw[-1]
    body = third.get_payload(decode=True)
    assert isinstance(body, bytes)
    return body


# ---- what it says


def test_the_header() -> None:
    """Every field once, in order, for people, programs and other robots."""
    message = parsed(build(REPORT))
    assert message.keys() == TOP
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@mx2.example>"
    assert message["To"].addresses[0].addr_spec == "Bob+x@sender.example"
    assert message["Message-ID"] == "<report-0123@mx2.example>"
    assert message["In-Reply-To"] == message["References"] == "<1@sender.example>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Date"].datetime == AT


def test_the_words() -> None:
    """Plain words first, then the primary's, then what to do."""
    text = text_of(build(REPORT))
    assert text.splitlines()[:2] == [
        "Your message to <anna@primary.example> could not be delivered, because",
        "the mailbox does not exist.",
    ]
    assert "The reply of mx1.primary.example:" in text
    assert f"    {REPLY}" in text
    assert "check the address" in text
    assert "written by mx2.example" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 72


def test_the_fields() -> None:
    """RFC 3464 2.2 and 2.3."""
    report = replace(
        REPORT,
        envelope=replace(REPORT.envelope, envid="QQ314159"),
        statuses=(
            replace(
                ANNA,
                recipient=replace(ANNA.recipient, orcpt="rfc822;Anna@list.example"),
            ),
        ),
    )
    message, recipient = groups_of(build(report))
    assert message == {
        "Original-Envelope-Id": "QQ314159",
        "Reporting-MTA": "dns; mx2.example",
        "Received-From-MTA": "dns; client.example",
        "Arrival-Date": "Tue, 24 Nov 2026 10:30:00 +0000",
    }
    assert recipient == {
        "Original-Recipient": "rfc822; Anna@list.example",
        "Final-Recipient": "rfc822; anna@primary.example",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx1.primary.example",
        "Diagnostic-Code": f"smtp; {REPLY}",
        "Last-Attempt-Date": "Tue, 24 Nov 2026 10:30:00 +0000",
        "Final-Log-Id": "4f2a",
    }


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("mx1.primary.example", "mx1.primary.example"),
        ("192.0.2.1", "[192.0.2.1]"),
        ("2001:DB8::1", "[IPv6:2001:db8::1]"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("two words", ""),
    ],
)
def test_an_mta_without_a_name_is_a_literal(host: str, name: str) -> None:
    """RFC 3464 2.1.2: what a route has in place of a name may be an address."""
    assert mta_of(host) == name


def test_without_a_reply_there_is_no_remote_mta() -> None:
    """Both or neither; expired is class 4."""
    fate = replace(ANNA, reply="", status="4.4.7")
    data = build(replace(REPORT, statuses=(fate,)))
    recipient = groups_of(data)[1]
    assert recipient["Status"] == "4.4.7"
    assert not {"Remote-MTA", "Diagnostic-Code"} & recipient.keys()
    assert "could not deliver it in time" in " ".join(text_of(data).split())


@pytest.mark.parametrize(
    ("action", "given", "status"),
    [
        (DsnAction.FAILED, "", "5.0.0"),
        (DsnAction.FAILED, "2.1.5", "5.0.0"),
        (DsnAction.FAILED, "5.1.1\r\nX: y", "5.0.0"),
        (DsnAction.FAILED, "4.4.7", "4.4.7"),
        (DsnAction.RELAYED, "2.1.5", "2.1.5"),
        (DsnAction.RELAYED, "5.2.2", "2.0.0"),
        (DsnAction.RELAYED, "", "2.0.0"),
    ],
)
def test_the_class_of_the_status_fits_the_action(
    action: DsnAction, given: str, status: str
) -> None:
    """RFC 3464 2.3.4."""
    fate = replace(ANNA, status=given)
    data = build(replace(REPORT, action=action, statuses=(fate,)))
    assert groups_of(data)[1]["Status"] == status


@pytest.mark.parametrize(
    ("action", "subject", "words"),
    [
        (DsnAction.FAILED, "could not be delivered", "could not be delivered, because"),
        (DsnAction.RELAYED, "was passed on", "does not confirm deliveries."),
    ],
)
def test_two_kinds_of_report(action: DsnAction, subject: str, words: str) -> None:
    """From the same builder."""
    data = build(replace(REPORT, action=action))
    assert subject in parsed(data)["Subject"]
    assert words in " ".join(text_of(data).split())
    recipient = groups_of(data)[1]
    assert recipient["Action"] == action


@pytest.mark.parametrize(
    ("status", "rule", "reason"),
    [
        ("5.1.1", "", "the mailbox does not exist"),
        ("5.2.2", "", "the mailbox is full"),
        ("5.0.0", "text-unknown-user", "the mailbox does not exist"),
        ("", "text-mailbox-full", "the mailbox is full"),
        ("5.7.1", "text-too-large", "the message is too large"),
        ("5.7.1", "", "the recipient does not accept mail from you"),
        ("5.1.1", "text-too-large", "the mailbox does not exist"),
        ("5.7.99", "", "it is not allowed there"),
        ("", "", "the mail server refused it"),
        ("nonsense", "nonsense", "the mail server refused it"),
    ],
)
def test_reasons(status: str, rule: str, reason: str) -> None:
    """A specific code first, then the rule that read the words, then the subject."""
    assert reason_of(status, rule)[0] == reason


def test_another_mta_takes_our_report_for_one() -> None:
    """So that no two of us ever answer one another."""
    head = build(REPORT).partition(b"\r\n\r\n")[0] + b"\r\n"
    assert marks_of(head).report
    assert marks_of(head).auto_submitted == "auto-replied"


# ---- who reads it


def bounces(data: bytes) -> tuple[set[bytes], set[bytes]]:
    """Return what a mailing list manager finds: temporary and permanent failures."""
    temporary, permanent = all_failures(email.message_from_bytes(data))
    return set(temporary), set(permanent)


def test_a_list_manager_finds_the_recipients() -> None:
    """flufl.bounce is Mailman's."""
    assert bounces(build(REPORT)) == (set(), {b"anna@primary.example"})


def test_a_hundred_recipients_are_one_report() -> None:
    """Each with its own fields; those with the same fate are told together."""
    statuses = tuple(
        replace(ANNA, recipient=Recipient(forward_path=f"user{n}@primary.example"))
        for n in range(100)
    )
    full = replace(ANNA, status="5.2.2", reply="552 5.2.2 Mailbox full")
    data = build(replace(REPORT, statuses=(*statuses, full)))
    assert len(groups_of(data)) == 102
    assert len(bounces(data)[1]) == 101
    text = text_of(data)
    assert "user99@primary.example" in text
    assert text.count("could not be delivered") == 2
    assert text.count("User unknown") == 1


def test_notify_never_is_not_listed() -> None:
    """Not even beside others (RFC 3461 4.1)."""
    silent = replace(
        ANNA, recipient=Recipient(forward_path="hidden@x.example", notify=("NEVER",))
    )
    assert b"hidden" not in build(replace(REPORT, statuses=(ANNA, silent)))
    with pytest.raises(CannotReport):
        build(replace(REPORT, statuses=(silent,)))


@pytest.mark.parametrize("sender", ["", "bob", "bob@x\r\nBcc: eve@x", "a b@x.example"])
def test_nobody_is_told_at_a_bad_address(sender: str) -> None:
    """The null sender least of all."""
    with pytest.raises(AddressError):
        build(replace(REPORT, envelope=Envelope(reverse_path=sender)))


# ---- the original


def full(content: bytes, **fields: Any) -> Dsn:
    """Return a report of a message that was sent with RET=FULL."""
    envelope = replace(REPORT.envelope, ret="FULL")
    return replace(REPORT, envelope=envelope, head=content, content=content, **fields)


def kind_of(data: bytes) -> str:
    """Return the type of the third part."""
    return parts(data)[2].get_content_type()


def test_the_header_alone_comes_back_by_default() -> None:
    """Whatever the size."""
    for ret in ("", "HDRS"):
        envelope = replace(REPORT.envelope, ret=ret)
        data = build(replace(REPORT, envelope=envelope, content=CONTENT))
        assert kind_of(data) == "text/rfc822-headers"
        assert original_of(data) == HEAD
        assert b"Hello Anna" not in data


def test_the_whole_comes_back_on_request() -> None:
    """RET=FULL, octet for octet."""
    data = build(full(CONTENT))
    assert kind_of(data) == "message/rfc822"
    assert b"\r\n\r\n" + CONTENT + b"\r\n--" in data


def test_only_failures_bring_the_whole_back() -> None:
    """RFC 3461 4.3."""
    relayed = build(full(CONTENT, action=DsnAction.RELAYED))
    assert kind_of(relayed) == "text/rfc822-headers"


@pytest.mark.parametrize(
    "content",
    [
        HEAD + b"\r\n" + b"x" * 1200 + b"\r\n",
        HEAD + b"\r\n" + b"line\r\n" * (MAX_CONTENT_BYTES // 6 + 1),
        HEAD + b"\r\nbare\nnewline\r\n",
        HEAD + b"\r\nbare\rreturn\r\n",
        HEAD + b"\r\nnul\0\r\n",
        HEAD + b"\r\n8-bit \xff\r\n",
    ],
)
def test_what_would_not_survive_is_left_out_as_a_whole(content: bytes) -> None:
    """Never cut in the middle: then the header alone."""
    data = build(full(content))
    assert kind_of(data) == "text/rfc822-headers"
    assert original_of(data) == HEAD


def test_fifty_megabytes_come_back_as_their_header() -> None:
    """The report stays small."""
    content = HEAD + b"\r\n" + b"0123456789abcdef\r\n" * (50_000_000 // 18)
    data = build(full(content))
    assert len(data) < 5000
    assert original_of(data) == HEAD


def test_8_bit_content_comes_back_where_the_next_hop_takes_it() -> None:
    """Labelled as what it is."""
    content = HEAD + "\r\nGr\u00fc\u00dfe\r\n".encode("latin-1")
    data = build(full(content, eight_bit=True))
    assert kind_of(data) == "message/rfc822"
    assert parsed(data)["Content-Transfer-Encoding"] == "8bit"
    assert parts(data)[2]["Content-Transfer-Encoding"] == "8bit"
    assert content in data


@pytest.mark.parametrize(
    "head",
    [
        b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n",
        b"Subject: Gr\xfc\xdfe\r\n",
        b"X-Long: " + b"x" * 2000 + b"\r\n",
        b"X-Bare: a\rb\r\n",
        b"X-Nul: a\0b\r\n",
    ],
)
def test_a_header_that_is_not_plain_is_encoded(head: bytes) -> None:
    """It comes back as it was, and the report stays 7-bit."""
    data = build(replace(REPORT, head=head + HEAD))
    assert data.isascii()
    assert original_of(data) == head + HEAD


def test_an_immense_header_comes_back_in_whole_fields() -> None:
    """From the top, and no field is cut."""
    head = HEAD + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 500) for n in range(200))
    back = original_of(build(replace(REPORT, head=head)))
    assert len(back) <= MAX_HEADER_BYTES
    assert len(back) > MAX_HEADER_BYTES - 600
    assert head.startswith(back)
    assert back.endswith(b"y\r\n")


@pytest.mark.parametrize("head", [b"", b"no colon\r\n", b"\r\n", b"\r\nbody\r\n"])
def test_a_message_without_a_header_is_reported_too(head: bytes) -> None:
    """With an empty third part."""
    data = build(replace(REPORT, head=head))
    assert original_of(data) == b""
    assert "In-Reply-To" not in parsed(data)


@pytest.mark.parametrize(
    "value",
    [b"none", b"<a b@c>", b"<1@x> <2@x>", b"<1@x>\r\n\tBcc: eve@x", b"<\xc3\xa4@x>"],
)
def test_only_a_sound_message_id_is_answered(value: bytes) -> None:
    """In-Reply-To never carries anything else."""
    data = build(replace(REPORT, head=b"Message-ID: " + value + b"\r\n"))
    assert "In-Reply-To" not in parsed(data)


def test_no_original_can_end_its_part() -> None:
    """The boundary is one that stands nowhere, though it could be foreseen."""
    foreseen = parsed(build(REPORT))["Content-Type"].params["boundary"].encode()
    content = HEAD + b"\r\n--" + foreseen + b"--\r\nevil\r\n"
    data = build(full(content))
    assert parsed(data)["Content-Type"].params["boundary"].encode() != foreseen
    assert kind_of(data) == "message/rfc822"
    assert content in data


def test_without_the_time_of_an_attempt() -> None:
    """The field is left out."""
    data = build(
        replace(REPORT, statuses=(replace(ANNA, last_attempt=None),), log_id="")
    )
    assert not {"Last-Attempt-Date", "Final-Log-Id"} & groups_of(data)[1].keys()


# ---- addresses in UTF-8

JOERG: Final = replace(
    ANNA,
    recipient=Recipient(
        forward_path="j\u00f6rg@b\u00fccher.example", orcpt="utf-8;j\u00f6rg@x.example"
    ),
)


def test_utf8_addresses_are_escaped_for_others() -> None:
    """RFC 6533 3: the sender is ASCII, the report stays so."""
    data = build(replace(REPORT, statuses=(JOERG,)))
    assert data.isascii()
    recipient = groups_of(data)[1]
    assert recipient["Final-Recipient"] == "utf-8; j\\x{F6}rg@b\\x{FC}cher.example"
    assert recipient["Original-Recipient"] == "utf-8; j\\x{F6}rg@x.example"
    assert "j\u00f6rg@b\u00fccher.example" in text_of(data)


def test_the_internationalised_form() -> None:
    """For a sender that needs it, and a next hop that has SMTPUTF8."""
    envelope = Envelope(reverse_path="b\u00e4r@sender.example", smtputf8=True)
    head = "Subject: Gr\u00fc\u00dfe\r\n".encode() + HEAD
    report = replace(
        REPORT, envelope=envelope, statuses=(JOERG,), head=head, smtputf8=True
    )
    data = build(report)
    raw = data.decode()
    assert "To: <b\u00e4r@sender.example>" in raw
    assert "Final-Recipient: utf-8; j\u00f6rg@b\u00fccher.example" in raw
    kinds = [part.get_content_type() for part in parts(data)]
    assert kinds[1:] == ["message/global-delivery-status", "message/global-headers"]
    latin = build(replace(report, head=b"Subject: Gr\xfc\xdfe\r\n"))
    assert kind_of(latin) == "text/rfc822-headers"
    whole = replace(
        report, envelope=replace(envelope, ret="FULL"), content=head + b"\r\nx\r\n"
    )
    assert kind_of(build(whole)) == "message/global"


def test_a_sender_in_utf8_cannot_be_told_without_smtputf8() -> None:
    """RFC 6533: it goes to the quarantine."""
    envelope = Envelope(reverse_path="b\u00e4r@sender.example", smtputf8=True)
    with pytest.raises(CannotReport, match="SMTPUTF8"):
        build(replace(REPORT, envelope=envelope))


def test_ascii_mail_stays_ascii_where_smtputf8_is_offered() -> None:
    """Whoever forwards the report may lack it."""
    data = build(replace(REPORT, smtputf8=True))
    assert data.isascii()
    assert b"message/delivery-status" in data


# ---- nothing gets in

HOSTILE: Final = (
    "x\r\nBcc: eve@evil.example\r\n\r\nbody",
    "x\nX-Evil: 1",
    "x\r X-Evil: 1",
    "\r\n\r\n--boundary--\r\n",
    "x\u2028X-Evil: 1",
    "x\u202eevil\x1b[2J\0",
    "a" * 5000,
    "\u4e2d" * 1500,
    "\udcff ; ; ",
    "",
)


def places(text: str) -> Iterator[Dsn]:
    """Yield the report with a text in each place that is copied."""
    yield replace(REPORT, hostname=text)
    yield replace(REPORT, primary=text)
    yield replace(REPORT, helo=text)
    yield replace(REPORT, log_id=text)
    yield replace(REPORT, message_id=text)
    yield replace(REPORT, envelope=replace(REPORT.envelope, envid=text))
    for changed in (
        replace(ANNA, reply=text),
        replace(ANNA, status=text),
        replace(ANNA, rule=text),
        replace(ANNA, recipient=Recipient(forward_path=text)),
        replace(ANNA, recipient=replace(ANNA.recipient, orcpt=text)),
        replace(ANNA, recipient=replace(ANNA.recipient, orcpt=f"utf-8;{text}")),
        replace(ANNA, recipient=replace(ANNA.recipient, orcpt=f"{text};x")),
    ):
        yield replace(REPORT, statuses=(changed,))
    raw = text.encode("utf-8", "surrogateescape")
    yield replace(REPORT, head=raw)
    yield replace(REPORT, head=b"Message-ID: " + raw + b"\r\n" + HEAD)
    yield full(HEAD + b"\r\n" + raw + b"\r\n")


def check(report: Dsn) -> None:
    """Header, parts and fields must be those that we write, whatever is copied."""
    data = build(report)
    message = parsed(data)
    assert set(message.keys()) <= {*TOP, "Content-Transfer-Encoding"}
    assert len(set(message.keys())) == len(message.keys())
    (to,) = message["To"].addresses
    assert to.addr_spec == "Bob+x@sender.example"
    first, *rest = groups_of(data)
    assert set(first) <= OF_MESSAGE
    assert len(rest) == 1
    assert set(rest[0]) <= OF_RECIPIENT
    assert not set("\x1b\u202e\u2028\0") & set(text_of(data))


@pytest.mark.parametrize("smtputf8", [False, True])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_field_lets_anything_in(text: str, smtputf8: bool) -> None:  # noqa: FBT001
    """Tried in every place that is copied."""
    for report in places(text):
        check(replace(report, smtputf8=smtputf8))


@settings(max_examples=60)
@given(st.text(max_size=80), st.randoms(use_true_random=False))
def test_no_text_gets_in(text: str, random: Random) -> None:
    """Whatever it is, wherever it stands."""
    check(replace(random.choice(list(places(text))), smtputf8=random.random() < 0.5))


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_any_original_is_carried(head: bytes) -> None:
    """As far as it is a header at all."""
    for report in (replace(REPORT, head=head), full(head), full(head, eight_bit=True)):
        assert set(parsed(build(report)).keys()) <= {*TOP, "Content-Transfer-Encoding"}
