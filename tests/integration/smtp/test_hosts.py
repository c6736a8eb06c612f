"""Which of several equal servers a session goes to, and when it moves."""

import asyncio
from collections.abc import Callable

from drainer.smtp.connection import Connection
from drainer.smtp.hosts import HostChoice
from drainer.smtp.route import Host, Route
from tests.support.smtp_peer.peer import PeerThread


def test_a_session_moves_to_a_willing_server_that_is_behind(
    peer: Callable[..., PeerThread],
) -> None:
    """Not for a few messages, and not to one that refused its last message."""
    hosts = tuple(
        Host(host="127.0.0.1", port=peer(lenient=True).port) for _ in range(2)
    )
    choice = HostChoice(
        Route(host="127.0.0.1", port=hosts[0].port, tiers=(hosts,), tls="off")
    )

    async def run() -> None:
        connection = await choice.connect()
        assert isinstance(connection, Connection)
        server = connection.server
        other = next(each for each in hosts if each != server)
        for _ in range(4):
            choice.count(server, delivered=True)
        assert not choice.is_ahead(server)
        choice.count(server, delivered=True)
        assert choice.is_ahead(server)
        assert not choice.is_ahead(other)
        choice.count(other, delivered=False)
        assert not choice.is_ahead(server)
        for _ in range(2):
            choice.count(other, delivered=True)
            choice.count(server, delivered=True)
        assert choice.is_ahead(server)
        connection.wire.close()
        choice.release(connection)

    asyncio.run(run())


def test_a_server_that_alone_refuses_us_is_passed_over() -> None:
    """At once if it is new, later if it changes; only for an equal one."""
    one, other, lesser = (Host(host=name) for name in ("a", "b", "c"))
    choice = HostChoice(Route(host="a", tiers=((one, other), (lesser,))))
    assert choice.refuse(one)
    assert choice.healthy.tiers == ((other,), (lesser,))
    choice.count(other, delivered=True)
    assert [choice.refuse(other) for _ in range(3)] == [False] * 3
    assert not choice.refuse(lesser)
    assert not HostChoice(Route(host="a")).refuse(one)
    later = HostChoice(Route(host="a", tiers=((one, other),)))
    later.count(one, delivered=True)
    assert [later.refuse(one) for _ in range(3)] == [False, False, True]


def test_a_server_that_refuses_what_others_accept_is_passed_over(
    peer: Callable[..., PeerThread],
) -> None:
    """Although it is preferred, and has the fewest messages."""
    tiers = tuple((Host(host="127.0.0.1", port=peer().port),) for _ in range(2))
    choice = HostChoice(Route(host="127.0.0.1", tiers=tiers, tls="off"))

    async def run() -> list[Host | None]:
        servers = []
        for _ in range(2):
            connection = await choice.connect()
            assert isinstance(connection, Connection)
            servers.append(connection.server)
            choice.pass_over(connection.server)
            connection.wire.close()
            choice.release(connection)
        return servers

    assert asyncio.run(run()) == [each for (each,) in tiers]
