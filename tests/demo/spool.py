"""The sample spool: queue files that a real Postfix made, and a small Maildir.

The Maildir is what Postfix's local(8) leaves of mail for a catch-all account on
the backup: each delivery puts Return-Path, X-Original-To and Delivered-To on top.
"""

from pathlib import Path
from typing import Final, NamedTuple

from tests.support.spools.samples import lay_out_postfix

BACKUP: Final = "mx2.example.net"
ACCOUNT: Final = f"catchall@{BACKUP}"

_CONTENT: Final = """\
Return-Path: <{sender}>
X-Original-To: {recipient}
Delivered-To: {account}
Received: from mail.example.com (mail.example.com [192.0.2.25])
\tby {backup} (Postfix) with ESMTP id 4k2JmR6Qz{n}zHj{n}
\tfor <{recipient}>; Mon,  6 Jul 2026 10:0{n}:00 +0200 (CEST)
From: Alice <alice@example.com>
To: {recipient}
Date: Mon, 06 Jul 2026 10:0{n}:00 +0200
Message-ID: <maildir-{n}@mail.example.com>
Subject: {subject}

{body}
"""


class Letter(NamedTuple):
    """One message of the Maildir."""

    sender: str
    recipient: str
    subject: str
    body: str


LETTERS: Final = (
    Letter("alice@example.com", "erika@example.org", "Minutes", "See below.\n.\nBye"),
    Letter("alice@example.com", "heidi@example.org", "Grüße", "Schöne Grüße aus Köln"),
    Letter("", "erika@example.org", "Out of office", "I am away."),
    Letter("bounces+7@lists.example.com", "erika@example.org", "Digest", "Issue 7"),
    Letter("alice@example.com", "moved-away@example.org", "Hello?", "Are you there?"),
)


def lay_out(folder: Path) -> None:
    """Make ``spool`` (Postfix) and ``Maildir`` in the folder."""
    lay_out_postfix(folder / "spool")
    maildir = folder / "Maildir"
    for name in ("new", "cur", "tmp"):
        (maildir / name).mkdir(parents=True)
    for n, letter in enumerate(LETTERS, 1):
        text = _CONTENT.format(n=n, account=ACCOUNT, backup=BACKUP, **letter._asdict())
        name = f"178332480{n}.V801I{n}M4711{n}.{BACKUP}"
        (maildir / "new" / name).write_text(text, "utf-8")
