"""A forked command ends, fails and dies as one with an interpreter of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import fork_server

PIPES: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)


@pytest.fixture(params=[False, True], ids=["forked", "fresh"])
def fresh(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Give each way to start one."""
    return request.param  # type: ignore[no-any-return]


def start(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """Start a command with pipes for its streams."""
    return fork_server.start(arguments, text=True, **PIPES, **options)


def test_it_reads_prints_and_ends(fresh: bool) -> None:  # noqa: FBT001
    """Standard input, both outputs, and the exit status are its own."""
    out, err = start("classify", fresh=fresh).communicate("550 5.1.1 unknown\n", 60)
    assert (out.startswith("bounce"), err) == (True, "")
    process = start("status", "--ledger", "absent.db", fresh=fresh)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert "there is no ledger" in err


def test_it_has_an_environment_and_a_folder_of_its_own(
    fresh: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """The configuration of the current folder, and a variable that overrides it."""
    (tmp_path / "drainer.toml").write_text('[primary]\nhost = "mx.example"\n')
    environment = {**os.environ, "DRAINER_PRIMARY__PORT": "2525"}
    process = start("config", fresh=fresh, cwd=tmp_path, env=environment)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "mx.example" in out
    assert "2525" in out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_it(fresh: bool, number: int) -> None:  # noqa: FBT001
    """Its status says which; until then it runs."""
    process = start("classify", fresh=fresh)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(60) == process.poll() == -number
    process.communicate()
    while Path(f"/proc/{process.pid}").exists():  # nothing is left of it
        time.sleep(0.01)
