"""MAIL and RCPT as bytes, with what the primary offers and nothing else."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from drainer.mail.envelope import Envelope, Recipient
from drainer.mail.message import ContentFacts, Message
from drainer.smtp.commands import (
    mail_command,
    misfit,
    rcpt_command,
    recipient_limit,
    size_limit,
)

ALL = {"size": "", "8bitmime": "", "smtputf8": "", "dsn": "", "pipelining": ""}
BOB = Recipient(forward_path="bob@example.org")
CAROL = Recipient(forward_path="carol@example.org")


def message(**envelope: Any) -> Message:
    """Return a message with this envelope."""
    fields = {"reverse_path": "s@example.com", "recipients": (BOB,)} | envelope
    return Message(
        identity="0" * 32,
        source="postfix:/spool",
        native_id="1",
        queue="deferred",
        locator="1",
        arrived=datetime(2026, 11, 23, tzinfo=UTC),
        envelope=Envelope(**fields),
    )


def facts(**known: Any) -> ContentFacts:
    """Return the facts of a content."""
    usual: dict[str, Any] = {
        "size_bytes": 100,
        "has_8bit": False,
        "header_8bit": False,
        "bare_newlines": 0,
        "hops": 1,
    }
    return ContentFacts(**(usual | known))


def mail(
    peer: Mapping[str, str], known: ContentFacts | None = None, **envelope: Any
) -> str:
    """Return the MAIL command for a message."""
    made = message(**envelope)
    return mail_command(made, known or facts(), made.envelope.recipients, peer).decode()


def offered(*words: str) -> dict[str, str]:
    """Return these extensions."""
    return dict.fromkeys(words, "")


EIGHT = facts(has_8bit=True)
HEADER = facts(has_8bit=True, header_8bit=True)
MAIL: dict[str, tuple[str, str]] = {
    "nothing offered": (mail({}), "MAIL FROM:<s@example.com>"),
    "nothing offered, everything recorded": (
        mail({}, body="8bit", ret="FULL", envid="x", smtputf8=True),
        "MAIL FROM:<s@example.com>",
    ),
    "the null sender": (mail({}, reverse_path=""), "MAIL FROM:<>"),
    "SIZE": (mail(offered("size")), "MAIL FROM:<s@example.com> SIZE=100"),
    "8-bit content": (
        mail(offered("8bitmime"), EIGHT),
        "MAIL FROM:<s@example.com> BODY=8BITMIME",
    ),
    "8-bit content recorded as 7bit": (
        mail(offered("8bitmime"), EIGHT, body="7bit"),
        "MAIL FROM:<s@example.com> BODY=8BITMIME",
    ),
    "7-bit content recorded as 8bit": (
        mail(offered("8bitmime"), body="8bit"),
        "MAIL FROM:<s@example.com> BODY=8BITMIME",
    ),
    "7-bit content recorded as 7bit": (
        mail(offered("8bitmime"), body="7bit"),
        "MAIL FROM:<s@example.com> BODY=7BIT",
    ),
    "7-bit content, nothing recorded": (
        mail(offered("8bitmime")),
        "MAIL FROM:<s@example.com>",
    ),
    "a UTF-8 sender": (
        mail(offered("smtputf8"), reverse_path="jürgen@example.com"),
        "MAIL FROM:<jürgen@example.com> SMTPUTF8",
    ),
    "a UTF-8 recipient": (
        mail(
            offered("smtputf8"), recipients=(Recipient(forward_path="ü@example.org"),)
        ),
        "MAIL FROM:<s@example.com> SMTPUTF8",
    ),
    "SMTPUTF8 recorded": (
        mail(offered("smtputf8"), smtputf8=True),
        "MAIL FROM:<s@example.com> SMTPUTF8",
    ),
    "an 8-bit header without SMTPUTF8": (
        mail(ALL, HEADER),
        "MAIL FROM:<s@example.com> SIZE=100 BODY=8BITMIME",
    ),
    "RET": (
        mail(offered("dsn"), ret="HDRS"),
        "MAIL FROM:<s@example.com> RET=HDRS",
    ),
    "ENVID as xtext": (
        mail(offered("dsn"), envid="a+b=c d"),
        "MAIL FROM:<s@example.com> ENVID=a+2Bb+3Dc+20d",
    ),
    "everything": (
        mail(ALL, EIGHT, ret="FULL", envid="x", smtputf8=True, body="8bit"),
        "MAIL FROM:<s@example.com> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=x",
    ),
    "VERP": (
        mail({}, reverse_path="list@example.com", verp="+="),
        "MAIL FROM:<list+bob=example.org@example.com>",
    ),
    "VERP with other delimiters": (
        mail({}, reverse_path="list@example.com", verp="-#"),
        "MAIL FROM:<list-bob#example.org@example.com>",
    ),
    "VERP with several recipients expands nothing": (
        mail({}, verp="+=", recipients=(BOB, CAROL)),
        "MAIL FROM:<s@example.com>",
    ),
    "VERP with the null sender": (
        mail({}, reverse_path="", verp="+="),
        "MAIL FROM:<>",
    ),
    "a quoted local part": (
        mail({}, reverse_path='"a b"@example.com'),
        'MAIL FROM:<"a b"@example.com>',
    ),
}


@pytest.mark.parametrize(("written", "command"), MAIL.values(), ids=list(MAIL))
def test_mail_carries_what_is_recorded_and_offered(written: str, command: str) -> None:
    """RFC 1870, 6152, 6531, 3461; nothing is invented."""
    assert written == command


NOTIFY = Recipient(
    forward_path="bob@example.org",
    notify=("SUCCESS", "FAILURE"),
    orcpt="rfc822;Bob+x@example.net",
)
RCPT: dict[str, tuple[Recipient, dict[str, str], str]] = {
    "plain": (BOB, ALL, "RCPT TO:<bob@example.org>"),
    "DSN offered": (
        NOTIFY,
        ALL,
        (
            "RCPT TO:<bob@example.org> NOTIFY=SUCCESS,FAILURE"
            " ORCPT=rfc822;Bob+2Bx@example.net"
        ),
    ),
    "DSN not offered": (NOTIFY, offered("size"), "RCPT TO:<bob@example.org>"),
    "NEVER": (
        Recipient(forward_path="b@example.org", notify=("NEVER",)),
        ALL,
        "RCPT TO:<b@example.org> NOTIFY=NEVER",
    ),
    "an ORCPT without a type is dropped": (
        Recipient(forward_path="b@example.org", orcpt="bob@example.org"),
        ALL,
        "RCPT TO:<b@example.org>",
    ),
    "a UTF-8 ORCPT": (
        Recipient(forward_path="b@example.org", orcpt="utf-8;bü@example.org"),
        ALL,
        r"RCPT TO:<b@example.org> ORCPT=utf-8;b\x{FC}@example.org",
    ),
    "postmaster": (
        Recipient(forward_path="postmaster"),
        ALL,
        "RCPT TO:<postmaster>",
    ),
}


@pytest.mark.parametrize(
    ("recipient", "peer", "command"), RCPT.values(), ids=list(RCPT)
)
def test_rcpt_carries_what_is_recorded_and_offered(
    recipient: Recipient, peer: dict[str, str], command: str
) -> None:
    """RFC 3461 4.5: dropped where it is not offered, unchanged where it is."""
    assert rcpt_command(recipient, peer).decode() == command


# ---- what the primary cannot take


def problem(
    peer: Mapping[str, str], known: ContentFacts, **envelope: Any
) -> str | None:
    """Return the code of the misfit."""
    made = message(**envelope)
    found = misfit(made, known, made.envelope.recipients, peer)
    return found.code if found else None


UTF8_RECIPIENT = {"recipients": (Recipient(forward_path="ü@example.org"),)}
MISFITS: dict[str, tuple[str | None, str | None]] = {
    "as large as the limit": (problem({"size": "100"}, facts()), None),
    "larger": (problem({"size": "99"}, facts()), "too-large"),
    "no limit stated": (problem({"size": ""}, facts(size_bytes=10**9)), None),
    "a limit of zero": (problem({"size": "0"}, facts(size_bytes=10**9)), None),
    "no SIZE at all": (problem({}, facts(size_bytes=10**9)), None),
    "8-bit": (problem({}, EIGHT), "needs-8bitmime"),
    "8-bit offered": (problem(offered("8bitmime"), EIGHT), None),
    "marked 8bit, but is 7-bit": (problem({}, facts(), body="8bit"), None),
    "a UTF-8 sender": (problem({}, facts(), reverse_path="ü@x.org"), "needs-smtputf8"),
    "a UTF-8 recipient": (problem({}, facts(), **UTF8_RECIPIENT), "needs-smtputf8"),
    "a UTF-8 header": (
        problem(offered("8bitmime"), HEADER, smtputf8=True),
        "needs-smtputf8",
    ),
    "a UTF-8 body is no reason": (
        problem(offered("8bitmime"), EIGHT, smtputf8=True),
        None,
    ),
    "SMTPUTF8 asked for in vain": (problem({}, facts(), smtputf8=True), None),
    "a raw 8-bit header": (problem(offered("8bitmime"), HEADER), None),
    "everything offered": (problem(ALL, HEADER, smtputf8=True), None),
}


@pytest.mark.parametrize(("found", "code"), MISFITS.values(), ids=list(MISFITS))
def test_what_this_primary_cannot_take(found: str | None, code: str | None) -> None:
    """Found before MAIL: nothing is sent that must be altered or refused."""
    assert found == code


@pytest.mark.parametrize(
    ("text", "limit"),
    [("1000", 1000), ("", 0), ("0", 0), ("x", 0), ("-1", 0), ("１", 0), (" 5 ", 5)],  # noqa: RUF001
)
def test_a_size_limit_is_a_number(text: str, limit: int) -> None:
    """RFC 1870 3: anything else states none."""
    assert size_limit({"size": text}) == limit


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("RCPTMAX=10", 10),
        ("MAILMAX=5 RCPTMAX=10 RCPTDOMAINMAX=1", 10),
        ("rcptmax=10", 10),
        ("RCPTMAX=0", 0),
        ("RCPTMAX=x", 0),
        ("RCPTMAX", 0),
        ("", 0),
    ],
)
def test_a_recipient_limit_is_a_number(text: str, limit: int) -> None:
    """RFC 9422 3."""
    assert recipient_limit({"limits": text}) == limit


def test_no_limits_no_limit() -> None:
    """A primary that does not know LIMITS."""
    assert recipient_limit({}) == 0
    assert size_limit({}) == 0


def test_a_number_without_end_is_no_limit() -> None:
    """Python refuses to read one of more than 4300 digits."""
    assert size_limit({"size": "9" * 5000}) == 0
    assert recipient_limit({"limits": f"RCPTMAX={'9' * 5000}"}) == 0


@pytest.mark.parametrize("kind", ["rfc822 X=Y", "rfc822\r\nDATA", "", "é", "a" * 41])
def test_the_type_of_an_orcpt_is_an_atom(kind: str) -> None:
    """Some spools let anything stand there; a parameter like that is left out."""
    recipient = Recipient(forward_path="bob@example.org", orcpt=f"{kind};bob")
    assert rcpt_command(recipient, ALL) == b"RCPT TO:<bob@example.org>"


@pytest.mark.parametrize("verp", ["\r\n", "+="])
def test_a_sender_that_verp_spoils_is_a_misfit(verp: str) -> None:
    """A control, or an address that grows too long: held, not a defect."""
    bob = Recipient(forward_path=f"{'b' * 300}@example.org")
    sender = f"{'s' * 300}@example.com"
    known = message(verp=verp, recipients=(bob,), reverse_path=sender)
    problem = misfit(known, facts(), (bob,), ALL)
    assert problem is not None
    assert problem.code == "bad-address"
