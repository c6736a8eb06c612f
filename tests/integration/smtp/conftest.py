"""A spool with a ledger, and a certificate, for the tests of sessions."""

from pathlib import Path

import pytest

from tests.support.command.runner import Bench
from tests.support.tls.certificates import Certificate, self_signed


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a spool, a ledger and a configuration."""
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Give a self-signed certificate for localhost."""
    return self_signed(tmp_path_factory.mktemp("certificate"))
