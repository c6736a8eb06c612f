"""The ledger in a database of each kind: a whole drain, its list, its operators."""

import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from drainer.ledger import engine, schema
from drainer.ledger.reader import LedgerReader
from drainer.ledger.schema import meta
from drainer.ledger.write_probe import try_writing
from tests.support.command.installed import (
    Drainer,
    Result,
    drain_arguments,
    write_maildir,
)
from tests.support.databases.cutter import Cut, cutting
from tests.support.databases.servers import Server
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Script
from tests.support.web.collector import spans_of_file

COUNT = 40


@pytest.fixture
def drainer(tmp_path: Path, database_url: str) -> Drainer:
    """Give the command with an empty ledger."""
    return Drainer(tmp_path / "ledger.db", url=database_url)


def test_a_drain_is_remembered_listed_and_explained(
    tmp_path: Path, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Every recipient is delivered once; a second run finds nothing to do."""
    expected = write_maildir(tmp_path / "spool", COUNT)
    primary = peer()
    result = drainer.drain(tmp_path / "spool", primary.port, "--no-check")
    assert result.code == 0, result.stderr
    assert "s3cret" not in result.stderr + result.stdout
    assert drainer.states() == dict.fromkeys(expected, "delivered")
    status = drainer.status()
    assert status["balanced"]
    assert status["spooled"] == COUNT
    again = drainer.drain(tmp_path / "spool", primary.port, "--no-check")
    assert again.code == 0, again.stderr
    assert len(primary.accepted) == COUNT
    one = drainer.recipients("--recipient", "user7@")[0]
    why = drainer.run("why", one["id"], "--json").objects[0]
    assert [d["kind"] for d in why["decisions"]] == ["verdict", "acknowledged"]
    (report,) = drainer.run("report", "--format", "json").objects
    assert report["states"]["delivered"] == COUNT
    assert sum(report["throughput"]["counts"]) == COUNT
    assert sum(each["recipients"] for each in report["ages"]) == COUNT
    assert " message " in drainer.run("why", one["id"], "--trace").stdout
    metrics = drainer.run("status", "--prometheus").stdout
    assert f'state="delivered"}} {COUNT}.0' in metrics


def test_the_sums_of_a_snapshot_agree_while_another_changes_the_ledger(
    tmp_path: Path, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """What is committed meanwhile counts only afterwards."""
    write_maildir(tmp_path / "spool", 3)
    primary = peer(rcpt="450 4.2.2 full")
    drained = drainer.drain(tmp_path / "spool", primary.port, "--no-check")
    assert drained.code in {4, 5}, drained.stderr
    with LedgerReader(make_url(drainer.url)) as report:
        with report.snapshot():
            before = report.states()
            drainer.run("hold", "--state", "deferred", "--reason", "x", "--yes")
            assert report.states() == before
            assert (
                sum(before.values()) == report.sums().spooled == before["deferred"] == 3
            )
        assert report.states()["held"] == 3


def test_every_decision_is_exported_and_told_from_a_database(
    tmp_path: Path, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Traces, log lines and notifications read any of them; then it is replayed."""
    write_maildir(tmp_path / "spool", 3)
    traces, heard = tmp_path / "traces.jsonl", tmp_path / "heard"
    drainer.environment |= {
        "DRAINER_TELEMETRY__TRACES": f"file:{traces}",
        "DRAINER_TELEMETRY__LOGS": "json",
        "DRAINER_NOTIFY__COMMAND": f'["cp", "/dev/stdin", "{heard}"]',
        "DRAINER_PRIMARY__KEEP": "1d",
    }
    arguments = drain_arguments(tmp_path / "spool", peer().port, "--no-check")
    result = drainer.execute(*arguments)
    assert result.code == 0, result.stderr
    names = Counter(span.name for span in spans_of_file(traces))
    assert names["message"] == names["attempt"] == 3
    assert result.stderr.count('"state":"delivered"') == 3
    assert "every recipient is final" in heard.read_text()
    window = ("requeue", "--delivered-since", "1h", "--reason", "x", "--yes", "--json")
    (replay,) = drainer.run(*window).objects
    assert replay == {"recipients": 3, "missing": 0, "done": "requeued"}


def test_what_is_refused_is_tried_again_and_operators_have_their_say(
    tmp_path: Path, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Deferred with any reply, held, released, discarded: in every database."""
    write_maildir(tmp_path / "spool", 3)
    reply = "450 4.2.0 later \U0001f4ec %s %(x)s 'quoted'"
    primary = peer(rcpt=reply)
    result = drainer.drain(tmp_path / "spool", primary.port, "--no-check")
    assert result.code in (4, 5), result.stderr
    rows = drainer.recipients("--reply", "later")
    assert Counter(row["state"] for row in rows) == {"deferred": 3}
    for verb, state in (("hold", "held"), ("release", "pending")):
        done = drainer.run(verb, "--recipient", "user1@", "--reason", "try")
        assert done.code == 0, done.stderr
        assert drainer.states()["user1@example.org"] == state
    done = drainer.run("discard", "--recipient", "user2@", "--reason", "try")
    assert done.code == 0, done.stderr
    friendly = peer()
    drainer.run("requeue", "--state", "deferred", "--reason", "now")
    drainer.environment["DRAINER_BREAKER__GIVE_UP_AFTER"] = "5s"
    primary.script = friendly.script
    result = drainer.drain(tmp_path / "spool", primary.port, "--no-check")
    assert result.code == 0, result.stderr
    assert Counter(drainer.states().values()) == {"delivered": 2, "discarded": 1}


def test_two_drains_share_one_ledger(tmp_path: Path, drainer: Drainer) -> None:
    """At the same time, on the same spool: everybody is sent to once."""
    expected = write_maildir(tmp_path / "spool", 200)
    with PeerThread(Script(dot=Delay(0.01, "250 2.0.0 ok"))) as primary:
        arguments = drain_arguments(tmp_path / "spool", primary.port, "--no-check")
        processes = [drainer.start(*arguments) for _ in range(2)]
        results = []
        for process in processes:
            stdout, stderr = process.communicate(timeout=60)
            results.append(Result(process.returncode, stdout, stderr))
        assert {result.code for result in results} <= {0, 5, 6}, results
        copies = Counter(p for m in primary.accepted for p in m.forward_paths)
        assert copies == Counter(expected)
        assert drainer.states() == dict.fromkeys(expected, "delivered")


def test_the_doctor_tries_a_ledger_and_leaves_nothing_behind(
    tmp_path: Path, database_url: str
) -> None:
    """Neither before there is one nor after, and says when that proves nothing."""
    url = engine.parse_url(database_url)
    before = sorted(tmp_path.rglob("*"))
    assert ("the first drain makes" in try_writing(url)) is not engine.is_file(url)
    assert sorted(tmp_path.rglob("*")) == before
    database = engine.connect(url, create=True)
    with database.connect() as connection:
        rows = connection.execute(sa.select(meta)).all()
        assert try_writing(url) == ""
        assert connection.execute(sa.select(meta)).all() == rows
    database.dispose()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_ledger_that_restarts_in_the_middle_costs_no_message(
    tmp_path: Path, database_servers: Callable[[str], Server], kind: str
) -> None:
    """The server ends and comes back: a reconnect, and the drain goes on."""
    server = database_servers(kind)
    drainer = Drainer(tmp_path / "ledger.db", url=server.fresh())
    expected = write_maildir(tmp_path / "spool", 100)
    with PeerThread(Script(dot=Delay(0.02, "250 2.0.0 ok"))) as primary:
        arguments = drain_arguments(tmp_path / "spool", primary.port, "--no-check")
        process = drainer.start(*arguments, "--connections", "2")
        primary.wait(lambda: len(primary.accepted) > 10, timeout=30)
        server.restart(signal_number=signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        copies = Counter(p for m in primary.accepted for p in m.forward_paths)
        assert copies == Counter(expected)
        assert drainer.states() == dict.fromkeys(expected, "delivered")


@pytest.mark.parametrize("cut", Cut, ids=lambda cut: cut.name.lower())
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_connection_lost_around_a_commit_costs_nothing(
    tmp_path: Path,
    database_servers: Callable[[str], Server],
    kind: str,
    cut: Cut,
) -> None:
    """What is committed is not repeated, what is not is: everything stands there once.

    A third of the commits is cut off: the run's first ones and its last included.
    """
    url = database_servers(kind).fresh()
    drainer = Drainer(tmp_path / "ledger.db", url=url)
    expected = write_maildir(tmp_path / "spool", 5)
    with PeerThread(Script()) as primary, cutting(url, cut) as (through, proxy):
        write_maildir(tmp_path / "empty", 0)
        drainer.drain(tmp_path / "empty", primary.port, "--no-check")  # makes it
        arguments = drain_arguments(tmp_path / "spool", primary.port, "--no-check")
        broken = Drainer(tmp_path / "ledger.db", url=through)
        result = broken.run(*arguments, "--connections", "1")
        assert result.code == 0, result.stderr
        assert proxy.cuts > 5
        copies = Counter(p for m in primary.accepted for p in m.forward_paths)
    assert copies == Counter(expected)
    status = drainer.status()
    assert (status["balanced"], status["states"]["delivered"]) == (True, 5)
    assert status["run"]["exit"] == 0
    count = sa.func.count().label("count")
    kinds = sa.select(schema.decisions.c.kind, count).group_by(schema.decisions.c.kind)
    with LedgerReader(make_url(url)) as report:
        found = {row["kind"]: row["count"] for row in report.rows(kinds)}
    of_runs = {"run-started": 2, "run-ended": 2, "connection": 1}
    assert found == {"verdict": 5, "acknowledged": 5, **of_runs}


def test_many_drainers_make_one_ledger(tmp_path: Path, drainer: Drainer) -> None:
    """Created by several at once, it is one ledger of our version."""
    (tmp_path / "spool" / "new").mkdir(parents=True)
    results: list[Result] = []

    def run() -> None:
        results.append(drainer.drain(tmp_path / "spool", 9, "--no-check"))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.code for result in results] == [0, 0, 0], results


def test_a_ledger_that_fails_is_an_error_in_words(
    tmp_path: Path, database_servers: Callable[[str], Server]
) -> None:
    """A person who reads or writes it sees what the database said."""
    url = database_servers("postgresql").fresh()
    drainer = Drainer(tmp_path / "ledger.db", url=url)
    write_maildir(tmp_path / "spool", 1)
    with PeerThread(Script(rcpt="450 4.2.1 later")) as primary:
        arguments = drain_arguments(tmp_path / "spool", primary.port, "--no-check")
        assert drainer.run(*arguments, "--give-up-after", "0s").code == 5
    _drop(url, schema.decisions)
    held = drainer.run("hold", "--recipient", "@", "--reason", "why not")
    _drop(url, schema.owners)
    drained = drainer.run(*arguments)
    assert (held.code, drained.code) == (1, 2)
    assert 'relation "decisions" does not exist' in held.stderr
    assert "cannot open the ledger" in drained.stderr
    assert "Traceback" not in held.stderr + drained.stderr


def _drop(url: str, table: sa.Table) -> None:
    database = engine.connect(engine.parse_url(url), create=False)
    with database.begin() as connection:
        table.drop(connection)
    database.dispose()


def test_texts_are_kept_whole_and_compared_exactly(database_url: str) -> None:
    """Longer than MariaDB's usual text, and in the case that they were written in."""
    database = engine.connect(engine.parse_url(database_url), create=True)
    long = "\N{WAVE DASH}" * 100_000
    rows = [{"name": "a", "value": "1"}, {"name": "A", "value": long}]
    with database.connect() as connection:
        connection.execute(sa.insert(meta), rows)
        named = sa.select(meta.c.value).where(meta.c.name == "A")
        assert connection.scalars(named).all() == [long]
    database.dispose()


def test_a_start_loads_the_dialect_of_no_other_database() -> None:
    """Each takes longer to load than a command should take to begin."""
    code = "import sys, drainer.ledger.repository; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True)
    found = set(re.findall(r"sqlalchemy\.dialects\.([a-z]+)", loaded.stdout))
    assert found == {"sqlite"}
