"""Fixtures of the acceptance tests alone."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.scenarios.backup import Backup

#: Too heavy for every run: it wants Arize Phoenix.
collect_ignore = (
    [] if os.environ.get("PHOENIX") or shutil.which("phoenix") else ["test_backends.py"]
)


@pytest.fixture
def backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backup:
    """Give an empty spool, in a current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Backup(tmp_path)
