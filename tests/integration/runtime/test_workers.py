"""Helpers that a nursery forks: each has what a child of ours would have."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drainer.runtime.workers import ForkServer, start

JOB = "drainer.nosuch"


def wait_until_gone(pid: int) -> bool:
    """Wait for the end of somebody else's child."""
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([ended], [], [], 20)[0])
    finally:
        os.close(ended)


def test_a_helper_ends_when_its_link_does_and_its_status_is_told() -> None:
    """Without a job it ends well; killed, its signal is told."""
    one, other = start(), start()
    assert one.pid != other.pid
    one.link.close()
    assert one.wait(10) == 0
    other.end()
    assert other.wait() == -signal.SIGKILL


def test_a_helper_that_does_not_end_in_time_is_killed() -> None:
    """Waiting has a limit."""
    worker = start()
    assert worker.wait(0.01) == -signal.SIGKILL
    worker.link.close()


def test_a_helper_that_cannot_do_its_job_says_why_on_our_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As it is now, not as it was when the nursery began."""
    start().end()  # there is a nursery
    worker = start()
    worker.begin(JOB, None)
    assert worker.wait(10) == 1
    worker.link.close()
    assert f"KeyError: '{JOB}'" in capfd.readouterr().err


def test_a_helper_is_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a relative path means the same, wherever the nursery began."""
    start().end()
    monkeypatch.chdir(tmp_path)
    worker = start()
    assert Path(f"/proc/{worker.pid}/cwd").readlink() == tmp_path
    worker.end()


def test_a_fork_server_has_no_secret_and_goes_with_its_parent() -> None:
    """What is configured by the environment is not for it; nothing is left over."""
    script = (
        "import os, signal\n"
        "from drainer.runtime.workers import ForkServer\n"
        "fork_server = ForkServer()\n"
        "worker = fork_server.spawn()\n"
        "with open(f'/proc/{fork_server.pid}/environ') as file: found = file.read()\n"
        "print(fork_server.pid, worker.pid, 'DRAINER_' in found, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    secret = os.environ | {"DRAINER_PRIMARY__PASSWORD": "s3cret"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=secret, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    # The helper has this output too; that it was read to its end tells of its own.
    fork_server, _, exposed = done.stdout.split()
    assert exposed == "False"
    assert wait_until_gone(int(fork_server))


def test_a_fork_server_that_was_killed_spawns_no_more_and_its_workers_end() -> None:
    """``start`` looks whether it lives, and makes another."""
    fork_server = ForkServer()
    worker = fork_server.spawn()
    os.kill(fork_server.pid, signal.SIGKILL)
    assert wait_until_gone(fork_server.pid)
    assert not fork_server.lives
    with pytest.raises(BrokenPipeError):
        fork_server.spawn()
    fork_server.close()
    worker.end()
    assert worker.wait() == -signal.SIGKILL
