"""Our reports at a real Postfix that insists on proper MIME."""

import smtplib
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from drainer.bounce.evidence import dkim_sign
from drainer.mail.dsn.build import build
from drainer.mail.dsn.model import Dsn, DsnAction
from drainer.mail.envelope import Envelope, Recipient
from tests.integration.bounce.evidence.test_dkim import KEY
from tests.support.mta.roles import Primary
from tests.unit.mail.test_dsn import ANNA, HEAD, JOERG, REPORT, full, parsed

STRICT = {
    "strict_mime_encoding_domain": "yes",
    "strict_8bitmime_body": "yes",
    "smtputf8_enable": "yes",
}
MIME = (
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n"
)
UTF8 = Envelope(reverse_path="b\u00e4r@example.org", smtputf8=True)
MANY = tuple(
    replace(ANNA, recipient=Recipient(forward_path=f"user{n}@primary.example"))
    for n in range(100)
)
REPORTS: dict[str, Dsn] = {
    "plain": REPORT,
    "relayed": replace(
        REPORT,
        action=DsnAction.RELAYED,
        statuses=(replace(ANNA, status="2.0.0", reply="250 2.0.0 queued"),),
    ),
    "whole": full(HEAD + b"\r\nHello.\r\n"),
    "8-bit header": replace(REPORT, head=b"Subject: Gr\xfc\xdfe\r\n" + HEAD),
    "8-bit whole": full(HEAD + MIME + b"\r\nGr\xc3\xbc\xc3\x9fe\r\n", eight_bit=True),
    "hundred recipients": replace(REPORT, statuses=MANY),
    "UTF-8 recipient": replace(REPORT, statuses=(JOERG,)),
    "SMTPUTF8": replace(
        REPORT,
        envelope=UTF8,
        statuses=(JOERG,),
        smtputf8=True,
        head="Subject: Gr\u00fc\u00dfe\r\n".encode() + HEAD,
    ),
    "hostile": replace(
        REPORT,
        statuses=(replace(ANNA, reply="550 x\r\n.\r\nMAIL FROM:<>\r\n\u202e\0 y"),),
        helo="x\r\nX: y",
        head=b"Subject: a\0b\rc\r\n" + HEAD,
    ),
}


@pytest.fixture(scope="module")
def strict(primary_postfix: Callable[..., Primary]) -> Primary:
    """Give a Postfix that refuses what is not proper."""
    return primary_postfix(parameters=STRICT)


def test_a_real_postfix_takes_every_kind_of_report(strict: Primary) -> None:
    """From the null sender, and delivers what we built, octet for octet."""
    wanted = {}
    with smtplib.SMTP("127.0.0.1", strict.port) as client:
        client.ehlo("mx2.example")
        for number, report in enumerate(REPORTS.values()):
            data = build(report)
            wanted[f"r{number}@example.org"] = data
            options = [] if data.isascii() else ["BODY=8BITMIME"]
            options += ["SMTPUTF8"] if report.envelope.smtputf8 else []
            assert client.mail("", options)[0] == 250
            assert client.rcpt(f"r{number}@example.org")[0] == 250
            code, words = client.data(data)
            assert code == 250, (number, words)
    found = strict.wait_received(len(wanted))
    for each in found:
        sent = wanted[each.recipient.decode()]
        assert each.content.replace(b"\n", b"\r\n") == sent
        assert each.reverse_path == b""
        assert parsed(sent).is_multipart()


def test_it_takes_a_signed_one(strict: Primary) -> None:
    """With its signature on top."""
    before = len(strict.received())
    data = dkim_sign.sign(build(REPORT), domain="mx2.example", selector="x", key=KEY)
    with smtplib.SMTP("127.0.0.1", strict.port) as client:
        client.sendmail("", ["signed@example.org"], data)
    (found,) = strict.wait_received(before + 1)[before:]
    assert found.content.startswith(b"DKIM-Signature: ")
