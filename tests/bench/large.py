"""A large spool: the time of the first message, memory, and the cost of each tenth.

Nine of twelve messages go to one recipient domain. The times come from the ledger. Then
it shows the size of the ledger, and what commands that read it take. At the end it
compares one route with two.
"""

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import routes
from tests.bench.machine import Noise
from tests.support.command.installed import Drainer, drain_arguments, maildir_message
from tests.support.command.processes import Peaks
from tests.support.mta.roles import SmtpSink
from tests.support.spools.postfix_files import place, queue_file, record

SIZE_BYTES = 800
BODY = (b"x" * 71 + b"\n") * 10
CONNECTIONS = 20
SINK = ("-c", "-h", "primary.example")
DOMAINS = ("big.example",) * 9 + tuple(f"small{n}.example" for n in range(3))

_HEAD = (
    "messages  seconds  messages/s  first after s  scan ended after s  CPU s/1000"
    "  peak MB: all, largest  seconds of each tenth"
)


def run(folder: Path, *, messages: int) -> None:
    """Make a Maildir and a Postfix queue, drain each once, print a line for each."""
    for format_, write in {"maildir": write_maildir, "postfix": write_queue}.items():
        print(f"making a {format_} spool of {messages} messages ...", flush=True)
        base = folder / format_
        base.mkdir()
        write(base / "spool", messages)
        measure(base, f"{format_}:{base / 'spool'}", messages)
    routes.run(folder / "routes", messages=min(messages, 5000))


def write_queue(root: Path, messages: int) -> None:
    """Write a Postfix queue directory, as a backup leaves it behind."""
    for n in range(messages):
        address = f"user{n}@{DOMAINS[n % len(DOMAINS)]}".encode()
        head = b"Message-ID: <%d@example.com>\nSubject: number %d\n\n" % (n, n)
        data = queue_file(envelope=(record("R", address),), text=head + BODY)
        name = f"{n * 7919 % 0xFFFFF:05X}{0x100000 + n:X}"
        place(root, data, name, ("deferred", name[0]))


def write_maildir(root: Path, messages: int) -> None:
    """Write a Maildir."""
    for name in ("tmp", "new", "cur"):
        (root / name).mkdir(parents=True)
    for n in range(messages):
        recipient = f"user{n}@{DOMAINS[n % len(DOMAINS)]}"
        path = root / "new" / f"1795453785.M{n:07}P1.backup"
        path.write_bytes(maildir_message(n, recipient, SIZE_BYTES))


def measure(folder: Path, source: str, messages: int) -> None:
    """Drain a spool with a ledger in ``folder``; print what it took."""
    command = Drainer(folder / "ledger.db", {"DRAINER_PRIMARY__HELO": "backup.example"})
    options = ("--connections", CONNECTIONS, "--no-check")
    noise = Noise.now(folder)
    with SmtpSink(*SINK) as sink:
        begun = time.time()
        process = command.start(*drain_arguments(source, sink.port, *options))
        with Peaks(process.pid, period=0.5) as peaks:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.time() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["recipients"]["delivered"] == messages
    times, scanned = _times(command.ledger)
    cpu = usage.ru_utime + usage.ru_stime
    tenths = " ".join(f"{each:.0f}" for each in _tenths([begun, *times]))
    together, largest = peaks.together / 1e6, max(peaks.by_pid.values()) / 1e6
    print(_HEAD)
    print(
        f"{messages:8}  {seconds:7.1f}  {messages / seconds:10.0f}"
        f"  {times[0] - begun:13.2f}  {scanned - begun:18.1f}"
        f"  {1000 * cpu / messages:10.2f}  {together:12.0f}, {largest:7.0f}  {tenths}"
    )
    print(f"before it: {noise}", flush=True)
    _look(command, messages)
    shutil.rmtree(folder / "spool", ignore_errors=True)


def _look(command: Drainer, messages: int) -> None:
    """Print the size of the ledger, and the seconds of commands that read it."""
    files = command.ledger.parent.glob(f"{command.ledger.name}*")
    size = sum(path.stat().st_size for path in files) / messages
    first = command.execute("list", "--limit", 1, "--json").objects[0]["id"]
    times = []
    for arguments in (("status",), ("list", "--limit", 20), ("why", first)):
        begun = time.monotonic()
        found = command.execute(*arguments)
        assert found.code == 0, found.stderr
        times.append(f"{arguments[0]} {time.monotonic() - begun:.2f} s")
    print(f"ledger {size:.0f} bytes a message; {', '.join(times)}", flush=True)


def _times(ledger: Path) -> tuple[Sequence[float], float]:
    """Return when each message was delivered, and when the last one was scanned."""
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        rows = connection.execute(
            "SELECT at FROM decisions WHERE verdict = 'deliver' ORDER BY id"
        )
        times = [micros / 1e6 for (micros,) in rows]
        (last,) = connection.execute("SELECT MAX(scanned) FROM messages").fetchone()
    return times, last / 1e6


def _tenths(times: Sequence[float]) -> list[float]:
    marks = [times[(len(times) - 1) * n // 10] for n in range(11)]
    return [after - before for before, after in itertools.pairwise(marks)]
