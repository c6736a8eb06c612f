"""Addresses of a server, and sockets to them."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from drainer.smtp.route import Route
from drainer.smtp.server_address import (
    ServerAddress,
    SocketUnusable,
    at_address,
    connect_socket,
    new_socket,
    resolve,
)


def reach(path: str) -> None:
    """Connect to a Unix socket and leave again."""
    address = ServerAddress(family=socket.AF_UNIX, place=path)
    with new_socket(address) as sock:
        asyncio.run(connect_socket(sock, address, Route(host="unix:")))


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1:24"),
        ("::1", "[::1]:24"),
        ("unix:/run/lmtp", "unix:/run/lmtp"),
    ],
)
def test_an_address_is_shown_as_people_write_it(host: str, shown: str) -> None:
    """And a route to one address of its host leads only there."""
    route = Route(host=host, port=24)
    (address,) = asyncio.run(resolve(route))
    assert str(address) == shown
    assert asyncio.run(resolve(at_address(route, address))) == [address]


def test_a_socket_that_is_absent_or_no_socket_is_named(tmp_path: Path) -> None:
    """The path is in the words."""
    with pytest.raises(SocketUnusable, match="absent: No such file"):
        reach(str(tmp_path / "absent"))
    (tmp_path / "file").touch()
    with pytest.raises(SocketUnusable, match="Not a directory"):
        reach(str(tmp_path / "file" / "lmtp"))


def test_a_socket_where_nothing_listens_any_more_refuses(tmp_path: Path) -> None:
    """As a port does."""
    path = str(tmp_path / "lmtp")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
    with pytest.raises(ConnectionRefusedError):
        reach(path)


def test_a_full_queue_of_connections_is_no_connection(tmp_path: Path) -> None:
    """Linux says EAGAIN, which does not mean that it is in progress."""
    path = str(tmp_path / "lmtp")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(path)
        server.listen(0)
        first = stack.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(path)
        with pytest.raises(OSError, match="too many connections wait"):
            reach(path)
