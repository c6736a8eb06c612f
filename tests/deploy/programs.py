"""The programs that files of deploy/ are for, if this host has them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def program(name: str) -> str:
    """Return where a program lies; skip the test when it is not installed."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def ask(name: str, *arguments: str | Path, **variables: str) -> str:
    """Return what a program says of a file; its complaint is the failure."""
    done = subprocess.run(
        [program(name), *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
