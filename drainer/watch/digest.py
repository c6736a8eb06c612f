"""The digest by mail: a summary of some time for the postmaster."""

import asyncio
import quopri
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from email.header import Header
from email.utils import format_datetime
from typing import Any

from drainer.bounce.build import hostname_of, make_via
from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.config.build.rules import make_rules
from drainer.errors import PrimaryNotReady
from drainer.ledger.query.digest import digest
from drainer.ledger.reader import LedgerReader
from drainer.mail.dsn.model import host_of
from drainer.mail.reply import Lost, Reply, is_success, printable
from drainer.policy.recipient.state import State
from drainer.policy.watch.windows import Local, parse_time
from drainer.smtp.post import submit

A_DAY = timedelta(days=1)


def digest_facts(config: Config, since: datetime, now: datetime) -> dict[str, Any]:
    """Return the digest of the time between; raise LedgerError without a ledger."""
    with LedgerReader(ledger_url(config)) as report:
        return digest(report, since, now, make_rules(config))


async def mail_digest(
    config: Config, text: str, address: str, now: datetime
) -> Reply | Lost:
    """Send a digest by ``[bounce] via``; PrimaryNotReady if it is not accepted."""
    route = make_via(config)
    subject = f"digest of {now:%Y-%m-%d}"
    content = mail_of(text, address, hostname_of(config), now, subject)
    answer = await submit(route, address, content)
    if is_success(answer):
        return answer
    message = f"{route} did not accept the digest: {answer}"
    raise PrimaryNotReady(message, hint="set [bounce] via to one that accepts mail")


async def mail_daily(config: Config, now: datetime) -> None:
    """Mail the last day's digest to ``[watch] postmaster``; raise like mail_digest."""
    facts = await asyncio.to_thread(digest_facts, config, now - A_DAY, now)
    text = text_of(facts, hostname_of(config))
    await mail_digest(config, text, config.watch.postmaster, now)


def next_digest(config: Config, now: datetime, local: Local) -> datetime | None:
    """Return when the next digest is due in local time; None: never."""
    if not config.watch.digest:
        return None
    minute = parse_time(config.watch.digest)
    wall = local(now)
    due = wall.replace(hour=minute // 60, minute=minute % 60, second=0, microsecond=0)
    if due <= wall:
        due += A_DAY
    return due


MAX_LINE = 200
"""Characters of a line."""


def text_of(facts: Mapping[str, Any], hostname: str) -> str:
    """Return the digest (ledger.query.digest) as text, with lines ending in LF."""
    lines = [printable(line, MAX_LINE) for line in _lines(facts, hostname)]
    return "".join(f"{line}\n" for line in lines)


def _lines(facts: Mapping[str, Any], hostname: str) -> Iterator[str]:
    since, until = _minute(facts["since"]), _minute(facts["until"])
    yield f"drainer on {hostname}, {since} to {until}"
    yield ""
    yield from _state_counts(facts)
    breakers = [each | {"since": _minute(each["since"])} for each in facts["breakers"]]
    facts = {**facts, "breakers": breakers}
    for title, key, row in _SECTIONS:
        if found := facts[key]:
            yield from ("", f"{title}:", *(row.format_map(each) for each in found))
    yield ""
    counts = ", ".join(f"{count} {state}" for state, count in facts["reports"].items())
    yield f"Reports to senders: {counts}"
    if facts["states"][State.QUARANTINED]:
        yield "See `drainer quarantine list`, then `release`, `export` or `purge`."


_SECTIONS = (
    (
        "Not delivered, and why (new in this time)",
        "reasons",
        "{recipients:>7} {state}: {reason} ({new} new)",
    ),
    (
        "Circuit breakers that are not closed",
        "breakers",
        "{scope} {state} since {since}: {reason} {reply}",
    ),
    (
        "Refused permanently in this time, in the primary's words",
        "refusals",
        "{recipients:>7} {words}",
    ),
    (
        "Sender domains of the refused mail",
        "sender_domains",
        "{recipients:>7} {domain}",
    ),
    (
        "Senders without a report, by bounce rule",
        "not_told",
        "{recipients:>7} {rule}: {about}",
    ),
)
"""Of each section: its title, the key of its rows, and how a row is written."""


def _state_counts(facts: Mapping[str, Any]) -> Iterator[str]:
    for state, count in facts["states"].items():
        if count:
            yield f"{count:>7} {state}"
    total = sum(facts["states"].values())
    if facts["balanced"]:
        yield f"{total:>7} recipients, all accounted for"
    else:
        yield (
            f"{facts['spooled']} recipients were recorded, but the states add up to"
            f" {total}: please report this"
        )


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ") + "Z"


def _encode_subject(subject: str) -> str:
    """Return a subject as RFC 2047 writes it, if it is not ASCII."""
    if not subject.isprintable():
        raise ValueError("a subject is one line")
    return subject if subject.isascii() else Header(subject, "utf-8").encode()


def mail_of(text: str, to: str, hostname: str, now: datetime, subject: str) -> bytes:
    """Return the mail that carries a text to a mailbox, with CRLF line ends.

    Raises ValueError for a subject with control characters.
    """
    host = host_of(hostname) or "localhost"
    head = (
        f"From: Mail Delivery System <MAILER-DAEMON@{host}>",
        f"To: <{to}>",
        f"Date: {format_datetime(now)}",
        f"Message-ID: <drainer.{int(now.timestamp() * 1e6)}@{host}>",
        f"Subject: {_encode_subject(f'drainer on {host}: {subject}')}",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
    )
    body = quopri.encodestring(text.encode("utf-8", "backslashreplace"))
    lines = "\n".join(head).encode() + b"\n\n" + body
    return lines.replace(b"\n", b"\r\n")
