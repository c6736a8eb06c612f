"""`ledger check`, `backup` and `prune`, on ledgers that drains have written."""

import contextlib
import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drainer.errors import SourceError
from drainer.ledger import engine
from drainer.ledger.backup import dump_command
from drainer.ledger.engine import parse_url
from drainer.sources.common.marker_index import marked_sources, path_of
from tests.support.command.runner import Bench, call
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import per_recipient

BOB, CAROL, DAN = "bob@example.org", "carol@example.org", "dan@example.org"
StartPeer = Callable[..., PeerThread]
DAY_MICROSECONDS = 24 * 3600 * 1_000_000


@contextlib.contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a ledger's file; commit at the end."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def count(path: Path, table: str) -> int:
    """Return the number of rows of a table."""
    with database(path) as connection:
        (rows,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    return int(rows)


def age(ledger: Path | str, days: int) -> None:
    """Let time pass: everything in a ledger happened so many days earlier."""
    columns = {
        "messages": ("arrived", "scanned", "acknowledged"),
        "recipients": ("since",),
        "reports": ("at", "refused"),
        "decisions": ("at",),
    }
    with engine.open_transaction(parse_url(str(ledger))) as connection:
        for table, names in columns.items():
            sets = ", ".join(f"{n} = {n} - {days * DAY_MICROSECONDS}" for n in names)
            connection.exec_driver_sql(f"UPDATE {table} SET {sets}")  # noqa: S608


@pytest.fixture
def bench(tmp_path: Path, peer: StartPeer, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Give a bench whose primary puts CAROL off."""
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path, peer(rcpt=per_recipient({CAROL: "450 4.2.1 busy"})).port)


@pytest.fixture
def maildir(bench: Bench) -> Path:
    """Give a Maildir with mail for BOB and DAN, which a drain moves when delivered."""
    root = bench.root / "Maildir"
    for part in ("new", "cur", "tmp"):
        (root / part).mkdir(parents=True)
    for n, address in enumerate((BOB, DAN)):
        text = (
            f"Delivered-To: {address}\nReturn-Path: <s@example.com>\nSubject: {n}\n\n"
        )
        (root / "new" / f"17000000{n}.M{n}P{n}.backup").write_text(text, "utf-8")
    return root


# ---- check


def test_a_ledger_in_order_passes_every_check(bench: Bench) -> None:
    """Exit 0; storage, tables, sums and references are named."""
    bench.add(BOB, CAROL)
    bench.drain()
    done = bench.run("ledger", "check", "--json")
    assert done.code == 0
    assert done.json["ok"] is True
    checks = [each["check"] for each in done.json["checks"]]
    assert checks == ["storage", "tables", "sums", "references"]
    assert bench.run("ledger", "check").code == 0


DAMAGE = {
    "sums": "DELETE FROM recipients WHERE n = 1",
    "references": "UPDATE attempts SET message = 99",
    "tables": "ALTER TABLE messages DROP COLUMN problem",
}


@pytest.mark.parametrize(("check", "statement"), DAMAGE.items(), ids=list(DAMAGE))
def test_damage_is_found_and_named(bench: Bench, check: str, statement: str) -> None:
    """Exit 1, and only that check fails."""
    bench.add(BOB, CAROL)
    bench.drain()
    with database(bench.ledger) as connection:
        connection.execute(statement)
    done = bench.run("ledger", "check", "--json")
    assert done.code == 1
    assert [c["check"] for c in done.json["checks"] if not c["ok"]] == [check]
    assert "FAIL" in bench.run("ledger", "check").stdout


def test_a_damaged_page_is_found(bench: Bench) -> None:
    """SQLite's own check finds what a disk has spoilt, and drainer does not crash."""
    bench.add(BOB, CAROL)
    bench.drain()
    with database(bench.ledger) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'recipients'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with bench.ledger.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    done = bench.run("ledger", "check", "--json")
    assert done.code == 1
    assert "storage" in [c["check"] for c in done.json["checks"] if not c["ok"]]


# ---- backup


def test_a_backup_is_a_private_ledger_that_reads_the_same(bench: Bench) -> None:
    """It passes the check, and has the same recipients."""
    bench.add(BOB, CAROL)
    bench.drain()
    copy = bench.root / "copy.db"
    assert bench.run("ledger", "backup", copy).code == 0
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    listed = bench.run("list", "--json").stdout
    shutil.move(copy, bench.ledger)
    for suffix in ("-wal", "-shm"):
        Path(f"{bench.ledger}{suffix}").unlink(missing_ok=True)
    assert bench.run("list", "--json").stdout == listed
    assert bench.run("ledger", "check").code == 0


def test_a_backup_overwrites_nothing(bench: Bench) -> None:
    """Exit 2; the file is as it was."""
    bench.add(BOB)
    bench.drain()
    target = bench.root / "precious"
    target.write_text("precious")
    done = bench.run("ledger", "backup", target)
    assert done.code == 2
    assert "exists" in done.stderr
    assert target.read_text() == "precious"


def test_without_a_ledger_there_is_no_backup(bench: Bench) -> None:
    """Nor an empty file that looks like one."""
    target = bench.root / "copy.db"
    assert bench.run("ledger", "backup", target).code == 2
    assert not target.exists()


def test_a_backup_that_fails_leaves_no_file(bench: Bench) -> None:
    """A damaged ledger cannot be copied; half a copy would be mistaken for one."""
    bench.add(BOB)
    bench.drain()
    target = bench.root / "no" / "such" / "file"
    target.parent.parent.write_text("")
    assert bench.run("ledger", "backup", target).code == 2
    assert not target.exists()


def test_a_backup_is_consistent_while_another_process_writes(bench: Bench) -> None:
    """Rows that are written together are copied together, or not at all."""
    bench.add(BOB)
    bench.drain()
    ended = threading.Event()

    def write() -> None:
        n = 0
        with contextlib.closing(sqlite3.connect(bench.ledger, timeout=30)) as one:
            while not ended.is_set():
                n += 1
                with one:
                    for table in ("meta", "cursors"):
                        column = "value" if table == "meta" else "position"
                        one.execute(
                            f"INSERT INTO {table} (name, {column}) VALUES (?, ?)",  # noqa: S608
                            (f"test{n}", n),
                        )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for n in range(5):
            copy = bench.root / f"copy{n}.db"
            assert bench.run("ledger", "backup", copy).code == 0
            with database(copy) as connection:
                (pairs,) = connection.execute(
                    "SELECT (SELECT count(*) FROM meta WHERE name LIKE 'test%')"
                    " - (SELECT count(*) FROM cursors)"
                ).fetchone()
            assert pairs == 0
    finally:
        ended.set()
        writer.join()


def test_a_server_has_its_own_command_for_a_backup() -> None:
    """Named with host, port and user, and without the password."""
    postgresql = parse_url("postgresql://me:s3cr3t@db.example:5433/mail")
    assert dump_command(postgresql) == [
        "pg_dump", "--format=custom", "--host=db.example", "--port=5433",
        "--username=me", "mail",
    ]  # fmt: skip
    mariadb = parse_url("mysql://me:s3cr3t@db.example/mail")
    assert dump_command(mariadb) == [
        "mariadb-dump", "--single-transaction", "--host=db.example", "--user=me",
        "mail",
    ]  # fmt: skip


# ---- prune


def prune(bench: Bench, *args: str | Path) -> dict[str, object]:
    """Prune what is older than 20 days; return the facts."""
    done = bench.run(
        "ledger", "prune", "--older-than", "20d", "--reason", "old", "--json", *args
    )
    assert done.code == 0, done.stderr
    facts: dict[str, object] = done.json
    return facts


def test_old_mail_that_its_source_dropped_is_forgotten(
    bench: Bench, maildir: Path
) -> None:
    """All of it but the newest; a later drain sends nothing again, and P1 holds."""
    assert bench.run("drain", f"maildir:{maildir}", "--no-check").code == 0
    assert prune(bench)["messages"] == 0
    age(bench.ledger, 30)
    assert prune(bench, "--dry-run")["messages"] == 1
    assert count(bench.ledger, "messages") == 2
    assert prune(bench)["messages"] == 1
    assert count(bench.ledger, "messages") == 1
    assert bench.run("ledger", "check").code == 0
    bench.assert_balanced()
    done = bench.run("drain", f"maildir:{maildir}", "--no-check", "--json")
    assert done.json["messages"]["total"] == 1
    with database(bench.ledger) as connection:
        query = "SELECT evidence FROM decisions WHERE rule = 'operator-prune'"
        assert len(connection.execute(query).fetchall()) == 1


def test_a_marker_of_this_ledger_forbids_to_prune(bench: Bench) -> None:
    """A kept spool would be sent again: exit 2, and nothing is removed."""
    bench.add(BOB)
    bench.add(DAN)
    assert bench.drain().code == 0
    age(bench.ledger, 30)
    done = bench.run("ledger", "prune", "--older-than", "20d", "--reason", "old")
    assert done.code == 2
    assert str(bench.spool / ".drainer") in done.stderr
    assert count(bench.ledger, "messages") == 2


def test_a_spool_that_vanished_is_kept_until_the_operator_says_that_it_is_gone(
    bench: Bench,
) -> None:
    """It may only be unmounted. Gone is gone: --gone of a present folder is exit 2."""
    url = f"postfix:{bench.spool}"
    bench.add(BOB)
    bench.add(DAN)
    assert bench.drain().code == 0
    age(bench.ledger, 30)
    bench.spool.rename(bench.root / "elsewhere")
    kept = prune(bench)
    assert kept["messages"] == 0
    assert any("source" in reason for reason in kept["kept"])  # type: ignore[attr-defined]
    (bench.root / "elsewhere").rename(bench.spool)
    (bench.spool / ".drainer").unlink()
    refused = bench.run(
        "ledger", "prune", "--older-than", "20d", "--reason", "x", "--gone", url
    )
    assert refused.code == 2
    shutil.rmtree(bench.spool)
    assert prune(bench, "--gone", url)["messages"] == 1


def test_markers_elsewhere_and_below_count_too() -> None:
    """A named queue has its own marker; and a source without a path has none."""
    assert path_of("sqlite:////srv/spool.db") is None
    assert path_of("postfix:live=/etc/postfix") is None
    assert path_of("maildir:/srv/a%b") == Path("/srv/a%b")


def test_the_marker_of_a_named_queue_forbids_to_prune(bench: Bench) -> None:
    """It lies one folder deeper than the source."""
    bench.add(BOB)
    assert bench.drain().code == 0
    age(bench.ledger, 30)
    (bench.spool / "named").mkdir()
    (bench.spool / ".drainer").rename(bench.spool / "named" / ".drainer")
    done = bench.run("ledger", "prune", "--older-than", "20d", "--reason", "old")
    assert done.code == 2
    assert "named/.drainer" in done.stderr


def test_a_source_that_this_user_cannot_see_forbids_to_prune(tmp_path: Path) -> None:
    """Whether it has a marker is unknown, so that it may."""
    (tmp_path / "spool").mkdir()
    url = f"postfix:{tmp_path}/spool"
    assert marked_sources("ledger", [url], []) == []
    assert marked_sources("ledger", [f"{url}/gone"], []) == []
    (tmp_path / "spool").chmod(0)
    with without_root(), pytest.raises(SourceError, match="Permission denied"):
        marked_sources("ledger", [url], [])


@contextlib.contextmanager
def without_root() -> Iterator[None]:
    """Have the rights of nobody, if this is root."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


def test_what_is_not_final_or_quarantined_is_kept(bench: Bench) -> None:
    """Someone still waits for it, or may release it."""
    url = f"postfix:{bench.spool}"
    bench.add(CAROL)
    bench.add(BOB, CAROL)
    bench.drain()
    bench.add(DAN)  # as the newest message it stays in any case
    bench.drain()
    age(bench.ledger, 30)
    shutil.rmtree(bench.spool)
    assert prune(bench, "--gone", url)["messages"] == 0
    with database(bench.ledger) as connection:
        connection.execute("UPDATE recipients SET state = 'quarantined'")
    assert prune(bench, "--gone", url)["messages"] == 0
    with database(bench.ledger) as connection:
        connection.execute("UPDATE recipients SET state = 'discarded'")
    assert prune(bench, "--gone", url)["messages"] == 2


def test_what_the_traces_have_not_exported_is_kept(bench: Bench, maildir: Path) -> None:
    """Only while traces are on; the exporter reads the decisions later."""
    assert bench.run("drain", f"maildir:{maildir}", "--no-check").code == 0
    age(bench.ledger, 30)
    bench.configure(telemetry={"traces": f"file:{bench.root}/traces.jsonl"})
    assert prune(bench)["messages"] == 0
    bench.configure(telemetry={"traces": "off"})
    assert prune(bench)["messages"] == 1


def test_prune_needs_an_age_a_reason_and_a_known_source(bench: Bench) -> None:
    """Each mistake is exit 2, and says what to give."""
    bench.add(BOB)
    bench.drain()
    shutil.rmtree(bench.spool)
    for args, words in (
        (("--older-than", "13d", "--reason", "x"), "14d or more"),
        (("--older-than", "soon", "--reason", "x"), "duration"),
        (("--older-than", "20d"), "--reason"),
        (("--older-than", "20d", "--gone", "postfix:/nowhere"), "knows no source"),
    ):
        done = bench.run("ledger", "prune", *args)
        assert done.code == 2, args
        assert words in done.stderr
    assert os.path.exists(bench.ledger)  # noqa: PTH110


def test_a_ledger_of_any_database_is_checked_and_pruned_alike(
    bench: Bench, maildir: Path, database_url: str
) -> None:
    """Same answers; for the backup of a server its own program is named."""
    base = ("--config", bench.config, "--ledger", database_url)
    assert call("drain", f"maildir:{maildir}", "--no-check", *base).code == 0
    assert call("ledger", "check", *base).code == 0
    age(database_url, 30)
    args = ("--older-than", "20d", "--reason", "old", "--json")
    done = call("ledger", "prune", *args, *base)
    assert (done.code, done.json["messages"]) == (0, 1), done.stderr
    assert call("ledger", "check", *base).code == 0
    status = call("status", "--json", *base).json
    assert (status["spooled"], status["balanced"]) == (1, True)
    done = call("ledger", "backup", bench.root / "copy", *base)
    program = dump_command(parse_url(database_url))[:1]
    assert done.code == (2 if program else 0)
    assert all(name in done.stderr for name in program)
