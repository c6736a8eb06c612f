"""What the sample queue contains: a case for each thing a reader can get wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.support.mta import milter

#: Fields that header_checks of the sample server act on.
HEADER_CHECKS: Final = """\
/^X-Do-Redirect: (.*)/ REDIRECT $1
/^X-Do-Filter: (.*)/ FILTER $1
/^X-Do-Prepend: (.*)/ PREPEND X-Prepended: $1
/^X-Do-Replace: (.*)/ REPLACE X-Replaced: $1
/^X-Do-Ignore:/ IGNORE
/^X-Do-Bcc: (.*)/ BCC $1
/^X-Do-Hold:/ HOLD for a person to look at
"""
BODY_CHECKS: Final = """\
/^replace this line/ REPLACE replaced line
/^ignore this line/ IGNORE
"""
#: Mail for the first is tried: see make_postfix_samples.PARTIAL. Mail for the second
#: stalls.
PARTIAL_DOMAIN: Final = "partial.example.net"
STALL_DOMAIN: Final = "stall.example.net"

HEADER: Final = (
    b"From: Alice <alice@example.com>\r\n"
    b"To: Bob <bob@example.org>\r\n"
    b"Date: Mon, 06 Jul 2026 10:00:00 +0200\r\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Smtp:
    """One SMTP transaction; paths may be followed by parameters."""

    name: str
    mail: str = "<alice@example.com>"
    rcpt: Sequence[str] = ("<bob@example.org>",)
    #: Header and body with CRLF, before dot-stuffing.
    content: bytes = b""
    #: XCLIENT attributes: whom the server shall take the client for.
    client: str = "NAME=mail.example.com ADDR=192.0.2.25"
    #: Which listener: the usual one, one with the milter, or one that gives long queue
    #: ids.
    way: str = "usual"
    edits: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """One call of the sendmail command."""

    name: str
    args: Sequence[str] = ("-f", "alice@example.com", "bob@example.org")
    content: bytes


def _subject(text: str, body: bytes = b"Hello.\r\n", more: bytes = b"") -> bytes:
    return HEADER + more + b"Subject: " + text.encode() + b"\r\n\r\n" + body


_LINE: Final = bytes(range(33, 127)) * 100
_EIGHT: Final = "Grüße aus Köln, für 5 €\r\n".encode()

USUAL: Final = (
    Smtp(name="plain", content=_subject("plain")),
    Smtp(
        name="several recipients",
        rcpt=("<bob@example.org>", "<Carol@Example.ORG>", "<dave@example.net>"),
        content=_subject("several recipients"),
    ),
    Smtp(
        name="8bit, declared",
        mail="<alice@example.com> BODY=8BITMIME",
        content=_subject("8bit", _EIGHT, b"Content-Transfer-Encoding: 8bit\r\n"),
    ),
    Smtp(
        name="7bit, declared",
        mail="<alice@example.com> BODY=7BIT",
        content=_subject("7bit"),
    ),
    Smtp(
        name="8bit, not declared",
        content=_subject("latin", "Grüße\r\n".encode("latin-1")),
    ),
    Smtp(
        name="SMTPUTF8",
        mail="<jürgen@bücher.example> BODY=8BITMIME SMTPUTF8",
        rcpt=("<用户@example.org>", "<bob@例え.example.org>", "<ascii@example.org>"),
        content="From: jürgen@bücher.example\r\nSubject: Grüße\r\n\r\n".encode()
        + _EIGHT,
    ),
    Smtp(
        name="UTF-8 address without SMTPUTF8",
        rcpt=("<jörg@example.org>",),
        content=_subject("not asked for"),
    ),
    Smtp(
        name="long lines",
        content=_subject(
            "long", _LINE[:2047] + b"\r\n" + _LINE[:5000] + b"\r\nend\r\n"
        ),
    ),
    Smtp(
        name="lines of exact multiples of the record size",
        content=_subject("exact", _LINE[:2048] + b"\r\n" + _LINE[:4096] + b"\r\n"),
    ),
    Smtp(
        name="long header line",
        content=_subject("x", more=b"X-Long: " + _LINE[:2200] + b"\r\n\tfolded\r\n"),
    ),
    Smtp(
        name="lines that begin with dots",
        content=_subject("d", b".\r\n..\r\n.a\r\n...\r\n\r\n"),
    ),
    Smtp(name="NUL", content=_subject("nul", b"a\0b\r\n\0\r\n")),
    Smtp(
        name="bare LF and CR",
        content=_subject("bare", b"one\ntwo\rthree\r\r\nfour\r\n"),
    ),
    Smtp(
        name="DSN",
        mail="<alice@example.com> RET=HDRS ENVID=QQ+2B1+3Dx+20y",
        rcpt=(
            (
                "<bob@example.org> NOTIFY=SUCCESS,FAILURE"
                " ORCPT=rfc822;Bob+2Btag@Example.ORG"
            ),
            "<carol@example.org> NOTIFY=NEVER",
            "<dave@example.org> NOTIFY=DELAY",
            "<erin@example.org>",
        ),
        content=_subject("dsn"),
    ),
    Smtp(
        name="DSN with a UTF-8 original recipient",
        mail="<alice@example.com> SMTPUTF8 RET=FULL ENVID=e1",
        rcpt=("<jörg@example.org> ORCPT=utf-8;j\\x{F6}rg@example.org",),
        content=_subject("dsn utf-8"),
    ),
    Smtp(name="null sender", mail="<>", content=_subject("null sender")),
    Smtp(
        name="quoted local parts",
        mail='<"al ice"@example.com>',
        rcpt=('<"b ob\\"q"@example.org>', '<"a@b"@example.org>', '<"x>y"@example.org>'),
        content=_subject("quoted"),
    ),
    Smtp(
        name="IPv6 client without a name",
        client="NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::25",
        content=_subject("client"),
    ),
    Smtp(
        name="authenticated",
        client="NAME=laptop.example.com ADDR=198.51.100.7 LOGIN=alice",
        content=_subject("login"),
    ),
    Smtp(name="no content at all", content=b""),
    Smtp(name="no body", content=HEADER),
    Smtp(
        name="body begins with a blank",
        content=HEADER + b"not a header\r\n indented\r\n",
    ),
    Smtp(
        name="From line",
        content=b"From alice Mon Jul  6 10:00:00 2026\r\n" + _subject("mbox"),
    ),
    Smtp(
        name="content imitates postcat",
        content=_subject(
            "imitation",
            b"*** HEADER EXTRACTED x ***\r\nrecipient: mallory@example.net\r\n"
            b"*** MESSAGE FILE END x ***\r\n",
        ),
    ),
    Smtp(
        name="REDIRECT",
        rcpt=("<bob@example.org>", "<carol@example.org>"),
        content=_subject("r", more=b"X-Do-Redirect: elsewhere@example.org\r\n"),
    ),
    Smtp(
        name="FILTER",
        content=_subject("f", more=b"X-Do-Filter: smtp:[192.0.2.99]:10025\r\n"),
    ),
    Smtp(
        name="PREPEND, REPLACE and IGNORE",
        content=_subject(
            "p",
            b"first\r\nreplace this line, which is long\r\nignore this line\r\n"
            b"last\r\n",
            b"X-Do-Prepend: yes\r\nX-Do-Replace: no\r\nX-Do-Ignore: me\r\n",
        ),
    ),
    Smtp(
        name="BCC action",
        content=_subject("b", more=b"X-Do-Bcc: archive@example.org\r\n"),
    ),
    Smtp(name="HOLD action", content=_subject("h", more=b"X-Do-Hold: yes\r\n")),
    Smtp(
        name="VERP",
        mail="<list@example.com> XVERP=+=",
        rcpt=("<bob@example.org>", "<carol@example.net>"),
        content=_subject("verp"),
    ),
    Smtp(name="long queue id", way="long", content=_subject("long id")),
    Smtp(
        name="long queue id, two recipients",
        way="long",
        rcpt=("<bob@example.org>", "<carol@example.org>"),
        content=_subject("long id 2"),
    ),
)

_TWO: Final = ("<bob@example.org>", "<carol@example.org>")

EDITED: Final = (
    Smtp(name="milter: nothing", way="milter", content=_subject("untouched")),
    Smtp(
        name="milter: header added and inserted",
        way="milter",
        content=_subject("header"),
        edits=(
            milter.add_header(b"X-Added", b"at the end"),
            milter.insert_header(0, b"X-Inserted", b"at the top"),
            milter.insert_header(3, b"X-Inserted", b"folded\n\tin the middle"),
        ),
    ),
    Smtp(
        name="milter: header changed and deleted",
        way="milter",
        content=_subject("s", more=b"X-Twice: one\r\nX-Twice: two\r\n\tfolded\r\n"),
        edits=(
            milter.change_header(
                b"Subject", b"a subject that is much longer than before"
            ),
            milter.change_header(
                b"Subject", b"and changed once more, longer than ever before"
            ),
            milter.change_header(b"X-Twice", b"", 2),
            milter.change_header(b"To", b"x"),
        ),
    ),
    Smtp(
        name="milter: sender and recipients",
        way="milter",
        mail="<a@example.com>",
        rcpt=_TWO,
        content=_subject("envelope"),
        edits=(
            milter.change_sender(b"<a-much-longer-sender@example.com>"),
            milter.add_recipient(b"<added@example.org>"),
            milter.delete_recipient(b"<bob@example.org>"),
            milter.add_recipient(b"<added-too@example.org>"),
        ),
    ),
    Smtp(
        name="milter: sender made null",
        way="milter",
        content=_subject("null"),
        edits=(milter.change_sender(b"<>"),),
    ),
    Smtp(
        name="milter: longer body",
        way="milter",
        content=_subject("longer", b"short\r\n"),
        edits=(milter.replace_body(b"a new line of the body\r\n" * 12),),
    ),
    Smtp(
        name="milter: shorter body",
        way="milter",
        content=_subject("shorter", b"an old line of the body\r\n" * 12),
        edits=(milter.replace_body(b"new\r\n"),),
    ),
    Smtp(
        name="milter: everything at once",
        way="milter",
        rcpt=_TWO,
        content=_subject("all", _EIGHT * 5),
        edits=(
            milter.replace_body(b".first\r\n" + _LINE[:2100] + b"\r\n"),
            milter.replace_body(b"second part\r\n" * 20),
            milter.change_header(b"Subject", b"new"),
            milter.insert_header(0, b"Authentication-Results", b"backup.example; none"),
            milter.change_sender(b"<other@example.com>"),
            milter.delete_recipient(b"<carol@example.org>"),
        ),
    ),
    Smtp(
        name="milter: quarantine",
        way="milter",
        content=_subject("quarantine"),
        edits=(milter.quarantine(b"looks odd"),),
    ),
)

LOCAL: Final = (
    Local(name="local: no final newline", content=b"Subject: no newline\n\nlast line"),
    Local(
        name="local: bcc",
        args=("-t", "-f", "alice@example.com"),
        content=b"To: bob@example.org\nCc: carol@example.org\n"
        b"Bcc: secret@example.org, hidden@example.net\nSubject: bcc\n\nHello.\n",
    ),
    Local(
        name="local: VERP",
        args=(
            "-XV",
            "-f",
            "owner-list@example.com",
            "bob@example.org",
            "carol@example.org",
        ),
        content=b"Subject: verp\n\nHello.\n",
    ),
    Local(
        name="local: DSN",
        args=(
            "-f",
            "alice@example.com",
            "-N",
            "success,delay",
            "-V",
            "id=1+2",
            "bob@example.org",
        ),
        content=b"Subject: dsn\n\nHello.\n",
    ),
)

#: Delivered in part: the good are done, the late still to do, the bad bounced.
PARTIAL: Final = (
    Smtp(
        name="partly delivered",
        rcpt=tuple(
            f"<{name}@{PARTIAL_DOMAIN}>" for name in ("late1", "good", "late2", "good2")
        ),
        content=_subject("partly delivered"),
    ),
    Smtp(
        name="partly delivered, partly bounced",
        rcpt=tuple(f"<{name}@{PARTIAL_DOMAIN}>" for name in ("bad", "good", "late1")),
        content=_subject("partly bounced"),
    ),
    Smtp(
        name="partly delivered after milter edits",
        way="milter",
        rcpt=tuple(f"<{name}@{PARTIAL_DOMAIN}>" for name in ("good", "late1")),
        content=_subject("edited and partly delivered"),
        edits=(milter.add_recipient(f"<good2@{PARTIAL_DOMAIN}>".encode()),),
    ),
)

#: Under way when the server dies: one recipient bounced, one delivered, one in
#: mid-transaction.
STALLED: Final = Smtp(
    name="killed during delivery",
    rcpt=tuple(
        f"<{name}@{STALL_DOMAIN}> NOTIFY=SUCCESS,FAILURE"
        for name in ("bad", "good", "stall")
    ),
    content=_subject("killed during delivery"),
)
#: Under way when the server dies: half received.
HALF: Final = Smtp(
    name="killed during reception", content=_subject("half", b"half a line\r\n" * 900)
)
#: Submitted after the server died.
UNSEEN: Final = Local(
    name="local: not yet picked up",
    args=("-t", "-f", "alice@example.com"),
    content=b"To: bob@example.org\nBcc: secret@example.org\n"
    b"Subject: maildrop\n\nHello.\n",
)
#: Cut off on disk, found out by the queue manager.
CORRUPT: Final = Smtp(
    name="truncated", content=_subject("truncated", b"a line\r\n" * 20)
)
#: Put on hold by hand; the second one is also told to expire; the third is sent through
#: again.
HELD: Final = Smtp(name="held", content=_subject("held"))
EXPIRED: Final = Smtp(name="held and forced to expire", content=_subject("expire"))
REQUEUED: Final = Smtp(
    name="requeued, not yet picked up", rcpt=_TWO, content=_subject("requeue")
)
