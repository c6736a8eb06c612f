"""Servers that run, each with a ledger, for the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.support.web.http_server import LOCKED, OPEN, Hooked, hooked


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Hooked, Hooked]]:
    """Keep a server with all three secrets, and one without any."""
    locked = hooked(tmp_path_factory.mktemp("locked"), LOCKED)
    unlocked = hooked(tmp_path_factory.mktemp("unlocked"), OPEN)
    with locked.running(), unlocked.running():
        yield locked, unlocked


@pytest.fixture
def locked(servers: tuple[Hooked, Hooked]) -> Hooked:
    """Give a server with all three secrets, and nothing given yet."""
    servers[0].forget()
    return servers[0]


@pytest.fixture
def unlocked(servers: tuple[Hooked, Hooked]) -> Hooked:
    """Give a server without any, and nothing given yet."""
    servers[1].forget()
    return servers[1]
