"""One database spool, drainers with a ledger each: everybody is sent to once."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from drainer.sources.database.importer import SpoolDatabase, create_spool
from drainer.sources.maildir.source import Maildir
from tests.support.command.installed import Drainer, drain_arguments, write_maildir
from tests.support.databases.servers import Server
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Script

COUNT = 400
KILLS = 4


def filled(url: str, folder: Path, count: int) -> list[str]:
    """Make a spool with this many messages; return their forward-paths."""
    expected = write_maildir(folder / "maildir", count, size=100)
    create_spool(url)
    spool = SpoolDatabase(url)
    for spooled in Maildir(folder / "maildir").scan():
        assert spool.add(spooled) is True
    spool.close()
    return expected


def states(url: str) -> Counter[str]:
    """Return how many rows of the spool are in each state."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        query = "SELECT state, count(*) FROM drainer_spool GROUP BY state"
        return Counter(dict(map(tuple, connection.exec_driver_sql(query))))


def drainers(folder: Path) -> list[Drainer]:
    """Return two commands as on two machines: nothing but the spool is shared."""
    made = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        drainer = Drainer(folder / name / "ledger.db")
        drainer.environment["DRAINER_RETRY__UNKNOWN"] = "1h"
        made.append(drainer)
    return made


def in_doubt(drainer: Drainer) -> set[str]:
    """Return whom a drainer names as possibly sent to."""
    rows = drainer.recipients("--state", "unknown")
    rows += drainer.recipients("--state", "in-flight")
    rows += [r for r in drainer.recipients("--state", "held") if "doubt" in r["rule"]]
    return {row["forward_path"] for row in rows}


def test_two_drainers_are_killed_over_and_over(
    tmp_path: Path, database_servers: Callable[[str], Server]
) -> None:
    """Hundreds of rows on PostgreSQL: each is delivered once, or named as in doubt."""
    seed = random.randrange(1 << 30)  # noqa: S311 - printed, to repeat a failure
    print(f"seed {seed}")
    dice = random.Random(seed)  # noqa: S311
    url = database_servers("postgresql").fresh()
    expected = filled(url, tmp_path, COUNT)
    pair = drainers(tmp_path)
    named: set[str] = set()
    with PeerThread(Script(dot=Delay(0.01, "250 2.0.0 ok"))) as primary:
        arguments = drain_arguments(url, primary.port, "--no-check")
        running = {n: pair[n].start(*arguments) for n in (0, 1)}
        for _ in range(KILLS):
            # At most half of the rows are gone by the last kill: each finds work.
            enough = len(primary.accepted) + dice.randrange(1, COUNT // 8)
            primary.wait(
                lambda enough=enough: len(primary.accepted) >= enough,  # type: ignore[misc]
                timeout=60,
            )
            victim = dice.randrange(2)
            running[victim].send_signal(signal.SIGKILL)
            running[victim].communicate()
            running[victim] = pair[victim].start(*arguments)
        for process in running.values():
            _, stderr = process.communicate(timeout=120)
            assert process.returncode in (0, 5, 6), stderr
        for drainer in pair:
            named |= in_doubt(drainer)
        copies = Counter(p for m in primary.accepted for p in m.forward_paths)
    assert set(expected) - set(copies) <= named
    assert {path: n for path, n in copies.items() if n > 1} == {}
    assert len(named) <= KILLS * 5, "at most one message per session and kill"
    left = states(url)
    assert left["done"] >= COUNT - len(named)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_dead_drainers_rows_go_to_another(
    tmp_path: Path, database_servers: Callable[[str], Server], kind: str
) -> None:
    """When its lease has run out; what it had begun is held, and named."""
    url = database_servers(kind).fresh()
    expected = filled(url, tmp_path, 40)
    one, two = drainers(tmp_path)
    with PeerThread(Script(dot=Delay(0.3, "250 2.0.0 ok"))) as primary:
        arguments = drain_arguments(f"{url}?lease=3s", primary.port, "--no-check")
        process = one.start(*arguments, "--connections", "1")
        primary.wait(lambda: len(primary.accepted) >= 5, timeout=30)
        busy = two.run(*arguments)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert busy.code == 6, busy
        time.sleep(3.2)
        result = two.run(*arguments)
        held = {row["forward_path"] for row in two.recipients("--state", "held")}
        assert result.code == (5 if held else 0), result.stderr
        assert len(held) <= 10, "what was in flight, or not yet acknowledged"
        copies = Counter(p for m in primary.accepted for p in m.forward_paths)
        assert set(copies) | held == set(expected)
        assert set(copies.values()) == {1}
        again = one.run(*arguments)  # what it had not begun is the other's by now
        assert again.code == 5, again
        copies = Counter(p for m in primary.accepted for p in m.forward_paths)
        assert set(copies.values()) == {1}
        assert set(expected) - set(copies) <= in_doubt(one), "named where it was begun"


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_the_database_restarts_in_the_middle(
    tmp_path: Path, database_servers: Callable[[str], Server], kind: str
) -> None:
    """A reconnect, not a message: the drain goes on, and everything is marked."""
    server = database_servers(kind)
    url = server.fresh()
    expected = filled(url, tmp_path, 150)
    drainer, _ = drainers(tmp_path)
    with PeerThread(Script(dot=Delay(0.01, "250 2.0.0 ok"))) as primary:
        process = drainer.start(*drain_arguments(url, primary.port, "--no-check"))
        primary.wait(lambda: len(primary.accepted) > 30, timeout=30)
        server.restart(signal_number=signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        copies = Counter(p for m in primary.accepted for p in m.forward_paths)
    assert copies == Counter(expected)
    assert states(url) == {"done": 150}


def test_what_was_discarded_is_marked_as_failed(
    tmp_path: Path, database_servers: Callable[[str], Server]
) -> None:
    """The row says whether its mail arrived."""
    url = database_servers("postgresql").fresh()
    filled(url, tmp_path, 3)
    drainer, _ = drainers(tmp_path)
    with PeerThread(Script(rcpt="450 4.2.0 later")) as primary:
        arguments = drain_arguments(url, primary.port, "--no-check")
        drainer.run(*arguments)
        drainer.run("discard", "--recipient", "user1@", "--reason", "spam")
        drainer.run("requeue", "--state", "deferred", "--reason", "now")
        primary.script = Script()
        drainer.environment["DRAINER_BREAKER__GIVE_UP_AFTER"] = "5s"
        assert drainer.run(*arguments).code == 0
    assert states(url) == {"done": 2, "failed": 1}
