"""The digest by mail: sum up some time for the postmaster, and send it."""

import asyncio
from datetime import datetime, timedelta

from drainer.bounce.build import make_own, make_via
from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.config.build.rules import make_rules
from drainer.errors import PrimaryNotReady
from drainer.ledger.query.digest import digest
from drainer.ledger.reader import LedgerReader
from drainer.mail.reply import Lost, Reply
from drainer.policy.watch.windows import Local, parse_time
from drainer.smtp.submit import submit
from drainer.watch.digest_text import mail_of, text_of

A_DAY = timedelta(days=1)


def digest_text(config: Config, since: datetime, now: datetime) -> str:
    """Return the digest of the time between; LedgerError without a ledger."""
    with LedgerReader(ledger_url(config)) as report:
        facts = digest(report, since, now, make_rules(config))
    return text_of(facts, make_own(config).hostname)


async def mail_digest(
    config: Config, text: str, address: str, now: datetime
) -> Reply | Lost:
    """Send a digest by ``[bounce] via``; PrimaryNotReady when that does not take it."""
    route = make_via(config)
    content = mail_of(text, address, make_own(config).hostname, now)
    answer = await submit(route, address, content)
    if isinstance(answer, Reply) and answer.category == 2:  # noqa: PLR2004
        return answer
    message = f"{route} did not take the digest: {answer}"
    raise PrimaryNotReady(message, hint="set [bounce] via to a server that takes mail")


async def mail_daily(config: Config, now: datetime) -> None:
    """Mail the last day's digest to ``[watch] postmaster``; raises as the above."""
    text = await asyncio.to_thread(digest_text, config, now - A_DAY, now)
    await mail_digest(config, text, config.watch.postmaster, now)


def next_digest(config: Config, now: datetime, local: Local) -> datetime | None:
    """Return when the next digest is due by the clock on the wall; None = never."""
    if not config.watch.digest:
        return None
    minute = parse_time(config.watch.digest)
    wall = local(now)
    due = wall.replace(hour=minute // 60, minute=minute % 60, second=0, microsecond=0)
    if due <= wall:
        due += A_DAY
    return due
