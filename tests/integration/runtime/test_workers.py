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
    helper = start()
    assert helper.wait(0.01) == -signal.SIGKILL
    helper.link.close()


def test_a_helper_that_cannot_do_its_job_says_why_on_our_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As it is now, not as it was when the nursery began."""
    start().end()  # there is a nursery
    helper = start()
    helper.begin(JOB, None)
    assert helper.wait(10) == 1
    helper.link.close()
    assert f"KeyError: '{JOB}'" in capfd.readouterr().err


def test_a_helper_is_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a relative path means the same, wherever the nursery began."""
    start().end()
    monkeypatch.chdir(tmp_path)
    helper = start()
    assert Path(f"/proc/{helper.pid}/cwd").readlink() == tmp_path
    helper.end()


def test_a_nursery_has_no_secret_and_goes_with_its_parent() -> None:
    """What is configured by the environment is not for it; nothing is left over."""
    script = (
        "import os, signal\n"
        "from drainer.runtime.workers import Nursery\n"
        "nursery = Nursery()\n"
        "helper = nursery.bear()\n"
        "with open(f'/proc/{nursery.pid}/environ') as file: found = file.read()\n"
        "print(nursery.pid, helper.pid, 'DRAINER_' in found, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    secret = os.environ | {"DRAINER_PRIMARY__PASSWORD": "s3cret"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=secret, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    # The helper has this output too; that it was read to its end tells of its own.
    nursery, _, exposed = done.stdout.split()
    assert exposed == "False"
    assert wait_until_gone(int(nursery))


def test_a_nursery_that_was_killed_bears_no_more_and_its_helpers_end() -> None:
    """``start`` looks whether it lives, and makes another."""
    nursery = ForkServer()
    helper = nursery.bear()
    os.kill(nursery.pid, signal.SIGKILL)
    assert wait_until_gone(nursery.pid)
    assert not nursery.lives
    with pytest.raises(BrokenPipeError):
        nursery.bear()
    nursery.close()
    helper.end()
    assert helper.wait() == -signal.SIGKILL
