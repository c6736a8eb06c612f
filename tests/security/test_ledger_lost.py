"""A ledger that is lost while it is used: exit 1, words, and a reserve that knows."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from drainer.errors import LedgerError
from drainer.ledger.engine import ANSWER_TIMEOUT, connect, connect_reader, parse_url
from drainer.ledger.reserve import place_of
from drainer.runtime import databases
from tests.support.command.installed import (
    Drainer,
    Result,
    drain_arguments,
    write_maildir,
)
from tests.support.command.watch import QUICK
from tests.support.databases.servers import Server, drop
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Script

COUNT: Final = 60
SLOW: Final = Script(dot=Delay(0.03, "250 2.0.0 ok as 4F2A"))
TIMEOUT: Final = 90


def started(
    drainer: Drainer, spool: Path, primary: PeerThread
) -> "subprocess.Popen[str]":
    """Start a drain with some sessions."""
    arguments = drain_arguments(spool, primary.port, "--no-check", "--connections", "4")
    return drainer.start(*arguments)


def ended(process: "subprocess.Popen[str]") -> Result:
    """Wait for its end."""
    stdout, stderr = process.communicate(timeout=TIMEOUT)
    assert "Traceback" not in stderr, stderr
    return Result(process.returncode, stdout, stderr)


def lost_in_words(result: Result) -> None:
    """Check that it ended as a run that lost its ledger, for a person and a script."""
    assert result.code == 1, result.stderr
    assert "the ledger" in result.stderr
    assert "run the same command again" in result.stderr
    assert result.objects[-1]["exit"] == 1


def copies(primary: PeerThread) -> Counter[str]:
    """Return how often each recipient was delivered to."""
    return Counter(path for each in primary.accepted for path in each.forward_paths)


# ---- a server


@pytest.fixture(params=["postgresql", "mariadb"])
def server(
    request: pytest.FixtureRequest, database_servers: Callable[[str], Server]
) -> Server:
    """Give a database server of each kind."""
    return database_servers(request.param)


def lose_a_table(url: str) -> None:
    """Take away what every commit needs, as a revoked right does."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE decisions")


@pytest.mark.parametrize(
    ("kind", "lose", "moment"),
    [
        ("postgresql", drop, 1),
        ("postgresql", drop, COUNT // 2),
        ("postgresql", lose_a_table, COUNT // 2),
        ("mariadb", drop, COUNT // 2),
    ],
)
def test_what_is_lost_in_mid_run_is_never_a_usage_error(
    tmp_path: Path,
    database_servers: Callable[[str], Server],
    kind: str,
    lose: Callable[[str], None],
    moment: int,
) -> None:
    """Exit 1 in words; what the primary has by then is named, with its reply."""
    url = database_servers(kind).fresh()
    drainer = Drainer(tmp_path / "ledger.db", url=url)
    write_maildir(tmp_path / "spool", COUNT)
    with PeerThread(SLOW) as primary:
        process = started(drainer, tmp_path / "spool", primary)
        primary.wait(lambda: len(primary.accepted) >= moment, timeout=TIMEOUT)
        lose(drainer.url)
        result = ended(process)
    lost_in_words(result)
    if "the ledger does not know the outcome of" in result.stderr:
        assert "delivered: 250 2.0.0 ok as 4F2A" in result.stderr
        path = Path(result.stderr.partition("in the reserve ")[2].partition(";")[0])
        assert path.stat().st_mode & 0o777 == 0o600
        path.unlink()


def test_a_server_that_stays_away_loses_nothing_and_repeats_nothing(
    tmp_path: Path, database_servers: Callable[[str], Server]
) -> None:
    """Killed and away for too long: exit 1; the next run settles from the reserve."""
    server = database_servers("postgresql")
    drainer = Drainer(tmp_path / "ledger.db", url=server.fresh())
    expected = write_maildir(tmp_path / "spool", COUNT)
    with PeerThread(SLOW) as primary:
        process = started(drainer, tmp_path / "spool", primary)
        primary.wait(lambda: len(primary.accepted) > COUNT // 4, timeout=TIMEOUT)
        server.stop(signal.SIGKILL)
        lost_in_words(ended(process))
        away = drainer.run("status")
        assert (away.code, "see that PostgreSQL runs" in away.stderr) == (1, True)
        server.start()
        assert drainer.drain(tmp_path / "spool", primary.port, "--no-check").code == 0
        assert copies(primary) == Counter(expected)
        assert drainer.states() == dict.fromkeys(expected, "delivered")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"password": "wrong"}, 2),
        ({"database": "absent"}, 2),
        ({"username": "stranger"}, 2),
        ({"port": 9}, 1),
    ],
)
def test_at_its_start_a_mistake_is_not_an_outage(
    server: Server, change: dict[str, str | int], code: int
) -> None:
    """What a person must change is exit 2, a server that is away is exit 1."""
    url = make_url(server.fresh()).set(**change)  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="cannot open the ledger") as caught:
        connect(url, create=True)
    assert caught.value.exit_code == code
    assert "wrong" not in f"{caught.value} {caught.value.hint}"


def test_a_server_that_hangs_counts_as_lost(server: Server) -> None:
    """Stopped, not dead: the kernel still answers for it, and libpq would wait."""
    url = parse_url(server.fresh())
    engine = databases.server_engine(url, answers_within=1)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        pids = hang(server, connection)
        try:
            with pytest.raises(sa.exc.OperationalError) as caught:
                connection.exec_driver_sql("SELECT 2")
            assert not databases.is_refused(caught.value)
            connection.invalidate()
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.literal(3))) == 3
    engine.dispose()
    assert ANSWER_TIMEOUT < 120


def hang(server: Server, connection: sa.Connection) -> list[int]:
    """Stop what serves a connection; return the processes."""
    if connection.dialect.name == "postgresql":
        pids = [int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())]
    else:
        pids = [server.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        while not has_stopped(pid):  # each thread stops by itself
            os.sched_yield()
    return pids


def has_stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped (proc(5))."""
    states = [
        task.read_text().rpartition(")")[2].split()[0]
        for task in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
    return set(states) == {"T"}


# ---- a file


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 4 MiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(place))
    subprocess.run(mount, check=True)
    try:
        yield place
    finally:
        subprocess.run(("umount", "-l", str(place)), check=True)


def fill(disk: Path) -> Path:
    """Leave no byte on a file system; return the file that has them."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def test_a_full_disk_cannot_keep_outcomes_from_the_next_run(
    tmp_path: Path, disk: Path
) -> None:
    """They are named, `status` says so, and each recipient is delivered to once."""
    drainer = Drainer(disk / "ledger.db")
    expected = write_maildir(tmp_path / "spool", COUNT)
    with PeerThread(SLOW) as primary:
        process = started(drainer, tmp_path / "spool", primary)
        primary.wait(lambda: len(primary.accepted) >= COUNT // 3, timeout=TIMEOUT)
        filler = fill(disk)
        result = ended(process)
        lost_in_words(result)
        assert "delivered: 250 2.0.0 ok as 4F2A" in result.stderr
        filler.unlink()
        reserve = drainer.status()["reserve"]
        assert reserve["recipients"] > 0
        assert "the next drain records them" in drainer.run("status").stdout
        again = drainer.drain(tmp_path / "spool", primary.port, "--no-check")
        assert again.code == 0, again.stderr
        assert f"{reserve['recipients']} recipients were delivered" in again.stderr
        assert copies(primary) == Counter(expected)
    assert drainer.status()["balanced"]
    assert drainer.status()["reserve"] == {"recipients": 0, "files": []}
    assert not list(disk.glob("ledger.db.locks/*.reserve*"))
    assert_explained(drainer, reserve["recipients"])


def assert_explained(drainer: Drainer, settled: int) -> None:
    """Check that each of them has a record that says where it came from (P7)."""
    with sa.create_engine(parse_url(str(drainer.ledger))).connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT verdict, reply, evidence FROM decisions"
            " WHERE rule = 'reserve-delivered'"
        ).all()
    assert len(rows) == settled
    assert {(row.verdict, row.reply) for row in rows} == {
        ("deliver", "250 2.0.0 ok as 4F2A")
    }
    assert all("reserve" in row.evidence for row in rows)


def remove(ledger: Path) -> None:
    """Remove the file that a drain writes to."""
    ledger.unlink()


def replace(ledger: Path) -> None:
    """Put another file in its place."""
    other = ledger.with_name("other.db")
    shutil.copy(ledger, other)
    other.rename(ledger)


def restore_nothing(ledger: Path) -> None:
    """Put an empty file in its place."""
    other = ledger.with_name("other.db")
    other.touch()
    other.rename(ledger)


@pytest.mark.parametrize("change", [remove, replace, restore_nothing])
def test_a_file_that_is_removed_or_replaced_ends_the_drain(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """SQLite would write to the removed file, and forget what was sent."""
    drainer = Drainer(tmp_path / "ledger.db")
    write_maildir(tmp_path / "spool", COUNT)
    with PeerThread(SLOW) as primary:
        process = started(drainer, tmp_path / "spool", primary)
        primary.wait(lambda: len(primary.accepted) >= 5, timeout=TIMEOUT)
        change(drainer.ledger)
        result = ended(process)
        sent = len(primary.accepted)
    lost_in_words(result)
    assert "was removed or replaced" in result.stderr
    assert sent < COUNT


def test_a_writer_process_that_dies_is_a_lost_ledger(tmp_path: Path) -> None:
    """Killed by the kernel for want of memory, for instance."""
    drainer = Drainer(tmp_path / "ledger.db")
    expected = write_maildir(tmp_path / "spool", COUNT)
    with PeerThread(SLOW) as primary:
        process = started(drainer, tmp_path / "spool", primary)
        primary.wait(lambda: len(primary.accepted) >= 5, timeout=TIMEOUT)
        os.kill(writer_of(process.pid, drainer.ledger), signal.SIGKILL)
        lost_in_words(ended(process))
        again = drainer.drain(tmp_path / "spool", primary.port, "--no-check")
        assert again.code == 0, again.stderr
        assert copies(primary) == Counter(expected)


def writer_of(parent: int, ledger: Path) -> int:
    """Return the child process that has the log of the ledger open."""
    log = f"{ledger}-wal"
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in children:
        files = Path(f"/proc/{child}/fd").iterdir()
        if any(os.path.realpath(each) == log for each in files):
            return int(child)
    raise LookupError(f"no child of {parent} has {log} open")


# ---- the reserve as an enemy, or a bad disk, leaves it


def line(fact: object) -> bytes:
    """Return a line of a reserve."""
    text = json.dumps(fact, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


@dataclass(frozen=True, slots=True)
class Drained:
    """A ledger whose recipients were put off, and the primary that did it."""

    drainer: Drainer
    primary: PeerThread

    def again(self, folder: Path) -> Result:
        """Drain again."""
        port = self.primary.port
        return self.drainer.drain(folder / "spool", port, "--no-check")


@pytest.fixture
def drained(tmp_path: Path) -> Iterator[Drained]:
    """Give a ledger of three recipients that were put off."""
    write_maildir(tmp_path / "spool", 3)
    with PeerThread(Script(rcpt="450 4.2.0 later")) as primary:
        found = Drained(Drainer(tmp_path / "ledger.db"), primary)
        found.again(tmp_path)
        yield found


def header_of(drainer: Drainer) -> dict[str, str]:
    """Return what the first line of a reserve of this ledger says."""
    url: URL = parse_url(str(drainer.ledger))
    return place_of(connect_reader(url), url)._asdict()


def record_of(drainer: Drainer) -> dict[str, object]:
    """Return a record of the first recipient, as of the attempt that put it off."""
    with sa.create_engine(parse_url(str(drainer.ledger))).connect() as connection:
        row = connection.exec_driver_sql(
            "SELECT r.attempt, r.message AS seq, m.id, m.native_id, r.n,"
            " r.forward_path FROM recipients r JOIN messages m ON m.seq = r.message"
        ).first()
    assert row is not None
    return row._asdict() | {
        "outcome": "delivered", "reply": "250 2.0.0 forged", "at": 1_700_000_000_000_000
    }  # fmt: skip


FORGED: Final[dict[str, Callable[[dict[str, object]], dict[str, object]]]] = {
    "put off meanwhile": lambda fact: fact,
    "another attempt": lambda fact: fact | {"attempt": 1},
    "another message": lambda fact: fact | {"id": "0" * 32},
    "another recipient": lambda fact: fact | {"forward_path": "other@example.org"},
    "a number as text": lambda fact: fact | {"n": "0"},
    "a huge number": lambda fact: fact | {"seq": 2**70},
    "a field too many": lambda fact: fact | {"more": 1},
    "SQL in a text": lambda fact: fact | {"id": "' OR 1=1 --"},
}


def test_a_record_that_does_not_fit_the_ledger_settles_nothing(
    tmp_path: Path, drained: Drained
) -> None:
    """Only the attempt that is open, or that was taken over, can be settled."""
    locks = tmp_path / "ledger.db.locks"
    header, fact = line(header_of(drained.drainer)), record_of(drained.drainer)
    for number, change in enumerate(FORGED.values()):
        path = locks / f"{number:032x}.reserve"
        path.write_bytes(header + line(change(dict(fact))) + bytes(4096))
    again = drained.again(tmp_path)
    assert "Traceback" not in again.stderr
    assert set(drained.drainer.states().values()) == {"deferred"}
    assert not list(locks.glob("*.reserve"))


SPOILED: Final[dict[str, Callable[[Path, bytes], object]]] = {
    "random bytes": lambda path, _: path.write_bytes(os.urandom(5000)),
    "a header of another shape": lambda path, _: path.write_bytes(line([1])),
    "a wrong checksum": lambda path, head: path.write_bytes(head[:-3] + b"x}\n"),
    "half a line": lambda path, head: path.write_bytes(head + b'0000 {"attempt":'),
    "deep JSON": lambda path, head: path.write_bytes(head + b"[" * 100_000),
    "a link": lambda path, _: path.symlink_to("/etc/passwd"),
    "a folder": lambda path, _: path.mkdir(),
    "a pipe": lambda path, _: os.mkfifo(path),
}


def test_spoiled_reserves_are_kept_aside_with_a_warning(
    tmp_path: Path, drained: Drained
) -> None:
    """They end no drain, and are not lost. One of another ledger counts as spoiled."""
    locks = tmp_path / "ledger.db.locks"
    header = header_of(drained.drainer)
    for number, spoil in enumerate(SPOILED.values()):
        spoil(locks / f"{number:032x}.reserve", line(header))
    other = line(header | {"ledger": "0" * 32}) + line(record_of(drained.drainer))
    (locks / f"{'c' * 32}.reserve").write_bytes(other)
    assert len(drained.drainer.status()["reserve"]["files"]) == len(SPOILED) + 1
    drained.primary.script = Script()
    result = drained.again(tmp_path)
    assert result.code in (0, 5), result.stderr
    assert result.stderr.count("was not used") == len(SPOILED) + 1
    assert "it belongs to a ledger that was replaced" in result.stderr
    assert len(list(locks.glob("*.reserve-unused"))) == len(SPOILED) + 1
    assert not list(locks.glob("*.reserve"))


# ---- the watch


def watch(folder: Path, url: str, port: int, patience: str) -> "subprocess.Popen[str]":
    """Start a watch whose service manager listens at ``folder``/notify."""
    write_maildir(folder / "spool", 0)
    config = folder / "drainer.toml"
    lines = [f'[ledger]\nurl = "{url}"\n[watch]\nledger_patience = "{patience}"\n']
    lines.append(f'rescan = "{QUICK["watch"]["rescan"]}"\n[health]\n')
    lines += [
        f"{key} = {json.dumps(value)}\n" for key, value in QUICK["health"].items()
    ]
    config.write_text("".join(lines))
    config.chmod(0o600)
    arguments = ("watch", f"maildir:{folder / 'spool'}", "--to", f"127.0.0.1:{port}")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DRAINER_")}
    return subprocess.Popen(
        [sys.executable, "-m", "drainer", *arguments, "--config", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean
        | {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "6000000"},
    )


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Give the socket on which a service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(TIMEOUT)
        yield listener


def heard_until(manager: socket.socket, words: str) -> list[str]:
    """Return what the service manager was sent, up to some words."""
    heard = [""]
    while words not in heard[-1]:
        heard.append(manager.recv(4096).decode())
    return heard


def test_a_watch_waits_for_its_ledger_at_the_start(
    tmp_path: Path,
    manager: socket.socket,
    database_servers: Callable[[str], Server],
) -> None:
    """It is not ready before, asks for more time, and then drains."""
    server = database_servers("postgresql")
    url = server.fresh()
    expected = write_maildir(tmp_path / "spool", 5)
    server.stop()
    with PeerThread(Script()) as primary:
        process = watch(tmp_path, url, primary.port, "5m")
        try:
            early = heard_until(manager, "STATUS=waiting for the ledger")
            early += heard_until(manager, "WATCHDOG=1")
            assert any("EXTEND_TIMEOUT_USEC=" in each for each in early)
            assert not any("READY=1" in each for each in early)
            server.start()
            heard_until(manager, "READY=1")
            primary.wait(
                lambda: len(primary.accepted) == len(expected), timeout=TIMEOUT
            )
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert (process.returncode, "Traceback" in said) == (0, False), said
    assert "the ledger answers again" in said


def test_a_signal_ends_the_wait_in_order(
    tmp_path: Path, manager: socket.socket
) -> None:
    """SIGTERM is no failure, even when there never was a ledger."""
    process = watch(tmp_path, "postgresql://x@127.0.0.1:9/x", 9, "5m")
    try:
        heard_until(manager, "STATUS=waiting for the ledger")
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in said) == (0, False), said


def test_a_watch_gives_up_so_that_its_unit_restarts_it(
    tmp_path: Path, manager: socket.socket
) -> None:
    """Exit 1 after [watch] ledger_patience; the unit does not restart after 2."""
    del manager
    process = watch(tmp_path, "postgresql://x@127.0.0.1:9/x", 9, "300ms")
    said, _ = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, "Traceback" in said) == (1, False), said
    assert "it has been unreachable for" in said


def test_a_watch_that_loses_its_ledger_gives_up_in_order(
    tmp_path: Path,
    manager: socket.socket,
    database_servers: Callable[[str], Server],
) -> None:
    """While it runs it waits likewise, and ends with 1 and words."""
    url = database_servers("postgresql").fresh()
    with PeerThread(Script()) as primary:
        process = watch(tmp_path, url, primary.port, "1s")
        try:
            heard_until(manager, "READY=1")
            drop(url)
            heard_until(manager, "STOPPING=1")
            said, _ = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert (process.returncode, "Traceback" in said) == (1, False), said
    assert "it has been unreachable for" in said
