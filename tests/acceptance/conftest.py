"""Fixtures of the acceptance tests alone."""

from pathlib import Path

import pytest

from tests.support.scenarios.backup import Backup


@pytest.fixture
def backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backup:
    """Give an empty spool, in a current folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Backup(tmp_path)
