"""What `make demo` runs."""

import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def demo(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the demo as the Makefile does, in a folder of the test's."""
    return subprocess.run(
        [sys.executable, "-m", "tests.demo", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_demo_drains_its_spool_and_finds_all_as_it_should_be(
    tmp_path: Path,
) -> None:
    """It checks itself: status, trace and ledger against what the primary saw."""
    done = demo(tmp_path / "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in (
        "$ drainer drain",
        "all accounted for",
        "retry-long by",
        "└─ attempt",
    ):
        assert shown in done.stdout


def test_the_demo_leaves_a_folder_alone_that_it_did_not_make(tmp_path: Path) -> None:
    """A person may have something else there."""
    (tmp_path / "precious").touch()
    done = demo(tmp_path)
    assert done.returncode == 1
    assert "no demo" in done.stderr
    assert (tmp_path / "precious").exists()
