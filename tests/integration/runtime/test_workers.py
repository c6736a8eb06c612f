"""Worker processes: each has what a child of ours would have, however it is forked."""

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
    """Wait for the end of the child of another process."""
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([ended], [], [], 20)[0])
    finally:
        os.close(ended)


def test_a_worker_ends_when_its_link_does_and_its_status_is_reported() -> None:
    """Without a job it ends with 0; a killed one with minus the signal."""
    one, other = start(), start()
    assert one.pid != other.pid
    one.link.close()
    assert one.wait(10) == 0
    other.end()
    assert other.wait() == -signal.SIGKILL


def test_a_worker_that_does_not_end_in_time_is_killed() -> None:
    """Waiting has a limit."""
    worker = start()
    assert worker.wait(0.01) == -signal.SIGKILL
    worker.link.close()


def test_a_worker_that_cannot_do_its_job_says_why_on_our_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As it is now, not as it was when the fork server started."""
    start().end()  # there is a fork server
    worker = start()
    worker.begin(JOB, None)
    assert worker.wait(10) == 1
    worker.link.close()
    assert f"KeyError: '{JOB}'" in capfd.readouterr().err


def test_a_worker_is_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a relative path means the same, wherever the fork server started."""
    start().end()
    monkeypatch.chdir(tmp_path)
    worker = start()
    assert Path(f"/proc/{worker.pid}/cwd").readlink() == tmp_path
    worker.end()


def test_a_fork_server_has_no_secret_and_goes_with_its_parent() -> None:
    """The environment may configure secrets. No process stays."""
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
    # The worker has this output too: it has ended, because the output has an end.
    fork_server, _, exposed = done.stdout.split()
    assert exposed == "False"
    assert wait_until_gone(int(fork_server))


def test_a_fork_server_that_was_killed_spawns_no_more_and_its_workers_end() -> None:
    """``start`` starts another one."""
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


def test_a_command_that_has_just_started_forks_workers_itself() -> None:
    """They have its folder and outputs, report their status, and are reaped."""
    script = (
        "import os, signal, sys\n"
        "from drainer.runtime.workers import fork, mark_forkable\n"
        "mark_forkable()\n"
        "one, other, failed = fork(), fork(), fork()\n"
        "children = set(map(int, open('/proc/thread-self/children').read().split()))\n"
        "assert children == {one.pid, other.pid, failed.pid}, children\n"
        "one.link.close()\n"
        "failed.begin('nosuch', None)\n"
        "other.kill()\n"
        "print(one.wait(10), other.wait(10), failed.wait(10))\n"
        "print(open('/proc/thread-self/children').read().split())\n"
        "os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "0 -9 1\n[]\n", done.stderr
    assert "KeyError: 'nosuch'" in done.stderr


def test_a_worker_that_is_dead_before_its_job_is_found_by_its_link() -> None:
    """Whoever gave it the job sees the end of the link, as of one that dies later."""
    worker = start()
    worker.kill()
    assert worker.wait(10) == -signal.SIGKILL
    assert worker.begin(JOB, None).recv(1) == b""
    worker.link.close()


def test_a_worker_whose_parent_has_died_ends_without_a_word() -> None:
    """A kill can meet a parent between the fork and the worker's first report."""
    script = (
        "import os, socket\n"
        "from drainer.runtime.workers import run_child\n"
        "link, ours = socket.socketpair()\n"
        "heard, report = os.pipe()\n"
        "ours.close()\n"
        "os.close(heard)\n"
        "run_child([link.fileno(), 1, 2, report], {})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
