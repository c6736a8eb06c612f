"""The mail that the samples of several servers are made of, and how they get it.

Each server receives every case, tries to deliver once to a primary that takes only
``done@`` and refuses the others for now, and is stopped. Its queue is copied as it
lies. Then the same server delivers the rest to a primary that takes everything: what
that primary received is kept as the oracle beside the queue.
"""

import re
import smtplib
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tests.support.smtp_peer.script import Message, Script, per_recipient

EXTENSIONS: Final = ("PIPELINING", "8BITMIME", "SIZE", "DSN")
PENDING: Final = ("a", "b", "bob", "carol", '"b ob"', "b.ob", "long", "null", "eight")


class Case(NamedTuple):
    """One transaction, and the subject that names it."""

    subject: str
    mail: str
    rcpt: Sequence[str]
    body: bytes
    header: bytes = b""

    @property
    def content(self) -> bytes:
        """The content with CRLF line ends, not dot-stuffed."""
        fields = b"From: s@example.com\nDate: Mon, 23 Nov 2026 12:00:00 +0000\n"
        fields += b"Message-Id: <%s@example.com>\n" % self.subject.encode()
        text = b"Subject: %s\n%s" % (self.subject.encode(), self.header)
        return (fields + text + b"\n" + self.body).replace(b"\n", b"\r\n")


def cases(*, dsn: bool, quoted: bool = True) -> list[Case]:
    """Return the cases; without what a server does not understand."""
    local_part = '"b ob"' if quoted else "b.ob"
    ret = " RET=HDRS ENVID=QQ+2B1+3Dx" if dsn else ""
    notify = " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Btag@example.net" if dsn else ""
    # OpenSMTPD 6.8 adds up what the recipients of a transaction ask for.
    never = " NOTIFY=NEVER" if dsn and quoted else ""
    return [
        Case("plain", "<s@example.com>", ["<a@example.net>"], b"body\n"),
        Case(
            "several",
            f"<s@example.com>{ret}",
            [
                "<done@example.net>",
                f"<bob@example.net>{notify}",
                f"<{local_part}@example.net>{never}",
                "<carol@example.net>",
            ],
            b"two\n\nlines\n",
        ),
        Case("null", "<>", ["<null@example.net>"], b"report\n"),
        Case(
            "dots",
            "<s@example.com>",
            ["<b@example.net>"],
            b".\n..\n.dot\n...\nFrom here\n\n\n",
            b"X-Folded: one\n\ttwo\n  three\nBcc: someone@example.com\n",
        ),
        Case(
            "eight",
            "<s@example.com> BODY=8BITMIME",
            ["<eight@example.net>"],
            "Grüße, Šárka, ÀÿĀ\n".encode(),
            b'MIME-Version: 1.0\nContent-Type: text/plain; charset="utf-8"\n'
            b"Content-Transfer-Encoding: 8bit\n",
        ),
        Case("empty", "<s@example.com>", ["<long@example.net>"], b""),
    ]


def submit(port: int, case: Case) -> None:
    """Send one case; RuntimeError when the server does not take it."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="mail.example.com") as client:
        client.ehlo()
        commands = [(f"MAIL FROM:{case.mail}", 250)]
        commands += [(f"RCPT TO:{each}", 250) for each in case.rcpt]
        for command, expected in [*commands, ("DATA", 354)]:
            code, text = client.docmd(command)
            if code != expected:
                msg = f"{case.subject}: {command}: {code} {text!r}"
                raise RuntimeError(msg)
        client.send(re.sub(rb"(?m)^\.", b"..", case.content) + b".\r\n")
        code, text = client.getreply()
        if code != 250:
            msg = f"{case.subject}: {code} {text!r}"
            raise RuntimeError(msg)


def refusing() -> Script:
    """Take ``done@`` alone."""
    busy = {f"{each}@example.net": "450 4.2.1 busy" for each in PENDING}
    return Script(extensions=EXTENSIONS, rcpt=per_recipient(busy))


def accepting() -> Script:
    """Take everything."""
    return Script(extensions=EXTENSIONS)


def oracle(messages: Sequence[Message]) -> list[dict[str, object]]:
    """Return what a primary received, in an order of its own."""
    found: list[dict[str, object]] = [
        {
            "mail": message.reverse_path,
            "parameters": {
                name: value
                for name, value in sorted(message.parameters.items())
                if name != "SIZE"
            },
            "recipients": {
                each.forward_path: dict(sorted(each.parameters.items()))
                for each in message.recipients
            },
            "content": (message.content or b"").decode("latin-1"),
        }
        for message in messages
    ]
    return sorted(found, key=str)


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Poll for what a server does in its own time; TimeoutError."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.1)


def wait_for_port(port: int) -> None:
    """Wait until something listens; TimeoutError."""

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, f"port {port}")
