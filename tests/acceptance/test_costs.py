"""What a drain may cost: commits and memory, counted and measured."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command.installed import (
    Drainer,
    drain_arguments,
    maildir_message,
    write_maildir,
)
from tests.support.command.processes import Peaks
from tests.support.mta.roles import SmtpSink
from tests.support.smtp_peer.peer import PeerThread
from tests.support.spools.postfix_files import place, queue_file

pytestmark = pytest.mark.alone

SMALL, LARGE = 10_000, 100_000_000
ALLOWANCE = 16 * 1024 * 1024


def test_two_thousand_messages_on_twenty_connections_take_few_commits(
    tmp_path: Path,
) -> None:
    """At most 400: sessions share them, in spite of one wait for each message."""
    write_maildir(tmp_path / "spool", 2000)
    drainer = Drainer(tmp_path / "ledger.db", fresh=True)
    with PeerThread() as peer:
        options = ("--no-check", "--connections", 20)
        command = drain_arguments(tmp_path / "spool", peer.port, *options)
        result = drainer.execute(*command)
        assert result.code == 0, result.stderr
        assert len(peer.accepted) == 2000
        assert peer.max_concurrent == 20
    assert 0 < result.objects[-1]["commits"] <= 400


def _of_workers(watch: Peaks) -> int:
    """Return the peaks of drain, scan, writer and export, in bytes.

    The programs of Postfix that drainer runs are so short that some are not seen.
    """
    largest = sorted(watch.by_pid.values())[-4:]
    assert len(largest) == 4
    return sum(largest)


def _write_maildir(root: Path, size: int) -> str:
    for name in ("tmp", "new", "cur"):
        (root / name).mkdir(parents=True)
    with (root / "new" / "1795453785.M0P1.backup").open("wb") as file:
        file.write(maildir_message(0, "user0@example.org", 1000))
        line = b"x" * 99 + b"\n"
        for _ in range(size // 100_000):
            file.write(line * 1000)
    return f"maildir:{root}"


def _write_queue(root: Path, size: int) -> str:
    place(
        root,
        queue_file(text=b"Subject: big\n\n" + (b"x" * 999 + b"\n") * (size // 1000)),
    )
    return f"postfix:{root}"


@pytest.mark.parametrize("write", [_write_maildir, _write_queue])
def test_memory_does_not_grow_with_the_message(
    tmp_path: Path,
    write: Callable[[Path, int], str],
    smtp_sink: Callable[..., SmtpSink],
) -> None:
    """100 MB take no more than 16 MB over 10 kB, in all processes of the drain."""
    sink = smtp_sink()
    peaks = {}
    for size in (SMALL, LARGE):
        folder = tmp_path / str(size)
        folder.mkdir()
        source = write(folder / "spool", size)
        drainer = Drainer(folder / "ledger.db", fresh=True)
        drainer.environment["DRAINER_TELEMETRY__TRACES"] = f"file:{folder}/traces"
        process = drainer.start(*drain_arguments(source, sink.port, "--no-check"))
        with Peaks(process.pid) as watch:
            _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        peaks[size] = watch
        shutil.rmtree(folder)
    large, small = (_of_workers(peaks[size]) for size in (LARGE, SMALL))
    assert large - small <= ALLOWANCE
