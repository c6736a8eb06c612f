"""`postqueue -f` and `drainer drain` on the same queue files, disk and sink.

Postfix runs with its plain defaults (20 deliveries at once to one destination); its
time counts from the flush until its queues are empty, logging included. Drainer's
counts from the start of its process to its end, with a durable ledger and traces.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.machine import Noise
from tests.support.command.installed import Drainer, drain_arguments
from tests.support.command.processes import Peaks, cpu_seconds, group_cpu_seconds
from tests.support.mta.postfix import PrivatePostfix, instance_directory, program
from tests.support.mta.roles import SmtpSink, backup

CONNECTIONS = 20
SIZE_BYTES = 4096
POLL_SECONDS = 0.1
LIMIT_SECONDS = 600
QUEUES = ("incoming", "active", "deferred")
SINK = ("-c", "-h", "primary.example")
"""Counts, and calls itself by a name that is not ours: that would be a loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measurement."""

    who: str
    messages: int
    seconds: float
    cpu_seconds: float
    sink_cpu_seconds: float
    #: Of all together (what they share counts once), and of the largest.
    peak_bytes: int
    largest_bytes: int
    noise: Noise
    #: Of the process that writes; the export moves its cursor some times a second.
    commits: int | None = None

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds


def run(folder: Path, *, messages: int, rounds: int) -> None:
    """Make the queue, measure in turns, print a table."""
    print(
        f"making a queue of {messages} messages of {SIZE_BYTES} bytes ...", flush=True
    )
    spool = make_queue(folder, messages)
    print(f"Python {platform.python_version()}, {os.path.realpath(sys.executable)}")
    print(_HEAD)
    ratios = []
    for n in range(rounds):
        turns = [_postfix, _drainer] if n % 2 == 0 else [_drainer, _postfix]
        found = {}
        for measure in turns:
            with instance_directory() as place:
                found[measure] = measure(place, spool, messages)
            print(_row(n + 1, found[measure]), flush=True)
        ratios.append(found[_postfix].seconds / found[_drainer].seconds)
    words = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"drainer is so many times as fast as postqueue -f: {words}")


def make_queue(folder: Path, messages: int, size: int = SIZE_BYTES) -> Path:
    """Fill a backup through SMTP; return its queue, at rest."""
    with backup(folder) as server:
        options = ("-N", "-s", "20", "-m", str(messages), "-l", str(size))
        addresses = ("-f", "sender@example.com", "-t", "user@example.org")
        subprocess.run(
            [program("smtp-source"), *options, *addresses, f"127.0.0.1:{server.port}"],
            stdin=subprocess.DEVNULL,
            check=True,
        )
        server.wait_queue(messages, timeout=LIMIT_SECONDS)
    return server.queue_dir


def copy_queue(source: Path, to: Path) -> None:
    """Copy a queue, or a part of it, with owners and times."""
    subprocess.run(["cp", "-a", str(source), str(to)], check=True)


@contextmanager
def _sink() -> Iterator[SmtpSink]:
    with SmtpSink(*SINK) as sink:
        yield sink


# ---- Postfix


def _postfix(place: Path, spool: Path, messages: int) -> Measured:
    with _sink() as sink:
        relay = {
            "relay_domains": "example.org",
            "relayhost": f"[127.0.0.1]:{sink.port}",
        }
        server = PrivatePostfix(place, hostname="backup.example", parameters=relay)
        for queue in ("deferred", "defer"):
            shutil.rmtree(server.queue_dir / queue)
            copy_queue(spool / queue, server.queue_dir / queue)
        # What is due later than the measurement is delivered by the flush alone.
        later = time.time() + 7200
        for path in server.queue_files():
            os.utime(path, (later, later))
        with server:
            leader = server.master_pid
            assert leader is not None
            noise = Noise.now(place)
            before = group_cpu_seconds(leader), cpu_seconds(sink.pid)
            with Peaks(leader, of_group=True, period=0.25) as peaks:
                begun = time.monotonic()
                server.flush()
                wait_removed(server, messages)
                seconds = time.monotonic() - begun
                peaks.look()
            return Measured(
                who="postqueue -f",
                messages=messages,
                seconds=seconds,
                cpu_seconds=group_cpu_seconds(leader) - before[0],
                sink_cpu_seconds=cpu_seconds(sink.pid) - before[1],
                peak_bytes=peaks.together,
                largest_bytes=max(peaks.by_pid.values()),
                noise=noise,
            )


def wait_removed(server: PrivatePostfix, messages: int) -> None:
    """Wait until its queues are empty; following the log costs it less than a look."""
    removed, rest, deadline = 0, b"", time.monotonic() + LIMIT_SECONDS
    with server.log_file.open("rb") as log:
        while removed < messages:
            text = rest + log.read()
            removed += text.count(b": removed\n")
            rest = text[text.rfind(b"\n") + 1 :]
            if time.monotonic() > deadline:
                msg = f"{removed} of {messages} within {LIMIT_SECONDS} s"
                raise TimeoutError(msg)
            if removed < messages:
                time.sleep(POLL_SECONDS)
    server.wait_queue(0, QUEUES)
    assert server.log().count("status=sent") == messages


# ---- drainer


def _drainer(place: Path, spool: Path, messages: int) -> Measured:
    copy_queue(spool, place / "copy")
    settings = {
        "DRAINER_PRIMARY__HELO": "backup.example",
        "DRAINER_TELEMETRY__TRACES": f"file:{place / 'traces.jsonl'}",
    }
    command = Drainer(place / "ledger.db", settings)
    with _sink() as sink:
        source = f"postfix:{place / 'copy'}"
        options = ("--connections", CONNECTIONS, "--no-check")
        noise = Noise.now(place)
        before = cpu_seconds(sink.pid)
        begun = time.monotonic()
        process = command.start(*drain_arguments(source, sink.port, *options))
        with Peaks(process.pid, period=0.25) as peaks:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout, stderr = process.communicate()
        assert process.returncode == 0, stderr
        summary = json.loads(stdout.splitlines()[-1])
        assert summary["recipients"]["delivered"] == messages
        return Measured(
            who="drainer drain",
            messages=messages,
            seconds=seconds,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            sink_cpu_seconds=cpu_seconds(sink.pid) - before,
            peak_bytes=peaks.together,
            largest_bytes=max(peaks.by_pid.values()),
            noise=noise,
            commits=summary["commits"],
        )


# ---- the table

_HEAD = (
    "round  who            seconds  messages/s  CPU s  sink CPU s  commits"
    "  peak MB: all, largest  before it"
)


def _row(number: int, found: Measured) -> str:
    commits = "-" if found.commits is None else str(found.commits)
    peak = f"{found.peak_bytes / 1e6:.0f}, {found.largest_bytes / 1e6:.0f}"
    return (
        f"{number:5}  {found.who:13}  {found.seconds:7.2f}  {found.rate:10.0f}"
        f"  {found.cpu_seconds:5.1f}  {found.sink_cpu_seconds:10.1f}  {commits:>7}"
        f"  {peak:>21}  {found.noise}"
    )
