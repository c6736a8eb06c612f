"""A cheap look for new mail: folders first, then what the ledger does not know."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from drainer.config import load as config_file
from drainer.config.build.paths import ledger_url
from drainer.ledger.records import ScanRow
from drainer.ledger.watch_log import WatchLog
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.routes import single_route
from drainer.sources.registry import open_source
from drainer.watch.new_mail import NewMailCheck, trace_of
from tests.support.command.installed import maildir_message, write_maildir
from tests.support.command.runner import Bench, call
from tests.support.smtp_peer.peer import PeerThread

StartPeer = Callable[..., PeerThread]
RULES = Admission(routes=single_route("", ("example.org",)))


class Clerk:
    """Says whether it is news, and counts how often it is asked."""

    def __init__(self, *, news: bool) -> None:
        """Give always the same answer."""
        self.news = news
        self.asked = 0

    def __call__(self, listings: Sequence[ScanRow], *, takes: bool) -> bool:
        """Answer."""
        assert not takes
        self.asked += len(listings)
        return self.news


def deliver(root: Path, name: str) -> None:
    """Deliver a message to a Maildir."""
    (root / "tmp" / name).write_bytes(maildir_message(99, "late@example.org"))
    (root / "tmp" / name).rename(root / "new" / name)


def test_a_folder_that_did_not_change_is_not_listed_again(tmp_path: Path) -> None:
    """Until something comes."""
    root = tmp_path / "mail"
    write_maildir(root, 3)
    looking, clerk = (
        NewMailCheck([open_source(f"maildir:{root}", options={})], RULES),
        Clerk(news=False),
    )

    async def look() -> bool:
        return await looking.sees_news(clerk)

    assert [asyncio.run(look()), clerk.asked] == [False, 3]
    assert [asyncio.run(look()), clerk.asked] == [False, 3]
    deliver(root, "1795453786.M1P1.backup")
    assert [asyncio.run(look()), clerk.asked] == [False, 7]


def test_news_stays_news_until_a_drain_has_recorded_it(tmp_path: Path) -> None:
    """A look writes nothing down, neither here nor there."""
    root = tmp_path / "mail"
    write_maildir(root, 2)
    looking, clerk = (
        NewMailCheck([open_source(f"maildir:{root}", options={})], RULES),
        Clerk(news=True),
    )

    async def look() -> bool:
        return await looking.sees_news(clerk)

    assert asyncio.run(look())
    assert asyncio.run(look())


def test_a_single_file_and_a_database_are_told_apart(tmp_path: Path) -> None:
    """One has a time of its own, the other is listed each time."""
    mbox = tmp_path / "mbox"
    mbox.write_bytes(b"")
    before = trace_of(open_source(f"mbox:{mbox}", options={}))
    mbox.write_bytes(b"From x\n\nhello\n")
    assert before != trace_of(open_source(f"mbox:{mbox}", options={}))
    assert trace_of(open_source(f"mbox:{mbox}", options={})) is not None
    spool = f"sqlite:///{tmp_path}/spool.db"
    assert call("spool", "create", spool).code == 0
    assert trace_of(open_source(spool, options={})) is None


def test_what_the_ledger_knows_is_no_news_and_what_is_new_is(
    tmp_path: Path, peer: StartPeer
) -> None:
    """By the ids of what is listed."""
    bench = Bench(tmp_path, peer().port)
    bench.add("a@example.org")
    assert bench.drain().code == 0
    config = config_file.load(bench.config, {"ledger": {"url": str(bench.ledger)}})
    watch_log = WatchLog(ledger_url(config), "127.0.0.1:1", "0" * 32)
    source = open_source(f"postfix:{bench.spool}", options={})

    async def look() -> bool:
        return await NewMailCheck([source], RULES).sees_news(watch_log.is_news)

    assert not asyncio.run(look())
    assert watch_log.next_due([source.url], [], braked=False) is None
    bench.add("b@example.org")
    assert asyncio.run(look())
    watch_log.close()
