"""What a real Exim is given to make the samples of: its settings and its mail."""

from dataclasses import dataclass
from typing import Final

CONFIGURATION: Final = """\
exim_path = {root}/usr/sbin/exim4
spool_directory = {spool}
log_file_path = {base}/%slog
pid_file_path = {base}/pid
primary_hostname = mx2.backup.example
keep_environment = *
never_users =
tls_advertise_hosts =
chunking_advertise_hosts = *
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
pipelining_connect_advertise_hosts =
trusted_users = root
spool_wireformat = true
split_spool_directory = {split}
queue_only = true
remote_max_parallel = 1
acl_smtp_mail = mail
acl_smtp_rcpt = accept
acl_smtp_data = accept
begin acl
mail:
  warn senders = slow@example.com
       queue = slow
  warn senders = variables@example.com
       set acl_m_text = one\\n<fake@example.com>\\nXX\\n1\\n
       set acl_c_more = \\n\\n
  accept
begin routers
{routers}peer:
  driver = manualroute
  transport = peer
  route_list = * 127.0.0.1::{port}
  self = send
begin transports
peer:
  driver = smtp
  allow_localhost
  max_rcpt = {max_rcpt}
  hosts_try_chunking =
begin retry
* * F,1d,1h
"""
ROUTERS: Final = """\
alias:
  driver = redirect
  domains = alias.example.org
  data = one@example.org, late-child@example.org
list:
  driver = redirect
  domains = list.example.org
  one_time
  errors_to = list-owner@example.com
  data = late-member1@example.org, late-member2@example.org, member3@example.org
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One message; the content has LF and is written with CRLF."""

    name: str
    mail: str = "<s@example.com>"
    rcpt: tuple[str, ...] = ("<r@example.org>",)
    content: bytes = b"Subject: plain\n\nbody\n"
    #: Sent as one chunk, with the line ends that it has.
    bdat: bool = False
    args: tuple[str, ...] = ()


_DSN: Final = (
    "<bob@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Btag+3D@Example.ORG",
    "<never@example.org> NOTIFY=NEVER",
    "<jane@example.org> ORCPT=utf-8;j\\x{E4}ne@example.org",
    "<none@example.org>",
)
_SOME: Final = tuple(f"<r{n}@example.org>" for n in range(30))

USUAL: Final = (
    Case(name="plain"),
    Case(
        name="dots and blanks",
        content=b"Subject: dots\n\n..\n.leading\n trailing \n\n\n",
    ),
    Case(name="no body", content=b"Subject: none\n\n"),
    Case(
        name="8-bit",
        mail="<s@example.com> BODY=8BITMIME",
        content="Subject: acht\n\nGrüße aus Köln\n".encode(),
    ),
    Case(
        name="smtputf8",
        mail="<jörg@example.com> SMTPUTF8",
        rcpt=("<käthe@example.org>",),
        content="Subject: Grüße\n\nKöln\n".encode(),
    ),
    Case(name="null sender", mail="<>"),
    Case(
        name="quoted",
        mail='<"a b"@example.com>',
        rcpt=('<"c d"@example.org>', '<"e\\"f"@example.org>', '<"g@h"@example.org>'),
    ),
    Case(name="dsn", mail="<s@example.com> RET=HDRS ENVID=a+2Bb+3Dc", rcpt=_DSN),
    Case(name="dsn full", mail="<s@example.com> RET=FULL"),
    Case(name="many recipients", rcpt=_SOME),
    Case(name="case", rcpt=("<Good@Example.ORG>", "<late-Case@Example.ORG>")),
    Case(
        name="long headers",
        content=b"Subject: long\nReferences:"
        + b"\n <%s@example.com>" % (b"x" * 60) * 100
        + b"\nX-Long: %s\n\nbody\n" % (b"y" * 990),
    ),
    Case(
        name="removed headers",
        content=b"Return-Path: <x@example.com>\nEnvelope-To: y@example.org\n"
        b"Delivery-Date: Mon, 1 Jan 2024 00:00:00 +0000\nBcc: z@example.org\n"
        b"Subject: kept\n\nbody\n",
    ),
    Case(
        name="bare CR and NUL",
        content=b"Subject: odd\n\na\rb\nc\0d\n\r\n\re\n",
    ),
    Case(
        name="wire format",
        bdat=True,
        content=b"Subject: wire\r\n\r\n.dot\r\nbare\nLF, bare\rCR, no end",
    ),
    Case(
        name="wire format, whole lines",
        bdat=True,
        content=b"Subject: wire\r\n\r\n.dot\r\nend\r\n",
    ),
    Case(name="long", content=b"Subject: long\n\n" + b"z" * 76 * 12 + b"\n" + b"q\n"),
    Case(name="ACL variables", mail="<variables@example.com>"),
    Case(name="named queue", mail="<slow@example.com>"),
    Case(name="login", args=("-oMai", "jane", "-oMaa", "plain")),
    Case(name="never deliver", args=("-N",)),
)
FLAT: Final = Case(name="flat")
FROZEN: Final = Case(name="frozen")
THAWED: Final = Case(name="thawed")
PARTIAL: Final = (
    Case(
        name="partial", rcpt=("<ok@example.org>", "<late@example.org>", "<bad@x.org>")
    ),
    Case(name="alias", rcpt=("<team@alias.example.org>",)),
    Case(name="list", rcpt=("<all@list.example.org>",)),
    Case(
        name="list and other",
        rcpt=("<all@list.example.org>", "<late-other@example.org>"),
    ),
)
KILLED: Final = Case(
    name="killed",
    rcpt=(*(f"<Done{n}@Example.ORG>" for n in range(3)), "<stall@z.example.org>"),
)
