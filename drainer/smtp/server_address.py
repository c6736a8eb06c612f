"""The addresses of a server, and the sockets that lead there: TCP or Unix."""

import asyncio
import socket
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from drainer.runtime.host_limits import limit_behind
from drainer.smtp.proxy_header import header_of
from drainer.smtp.route import SOCKET_PREFIX, Route, format_host


class SocketUnusable(OSError):
    """A Unix socket does not exist, or drainer may not connect to it."""


class ServerAddress(Struct, frozen=True, kw_only=True):
    """One address of a server."""

    family: int
    #: What a socket connects to: address and port, or the path of a Unix socket.
    place: tuple[str, int] | str

    def __str__(self) -> str:
        """Return ``address:port``, IPv6 in brackets, or ``unix:PATH``."""
        if isinstance(self.place, str):
            return f"{SOCKET_PREFIX}{self.place}"
        return format_host(self.place[0], self.place[1])


async def resolve(route: Route) -> list[ServerAddress]:
    """Return the addresses of the route's host; OSError when there are none.

    Raises HostLimit when this host lacks a descriptor or a thread to look them up.
    """
    if path := route.socket_path:
        return [ServerAddress(family=socket.AF_UNIX, place=path)]
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(
            route.address or route.host, route.port, type=socket.SOCK_STREAM
        )
    except UnicodeError as error:
        raise OSError(str(error)) from None
    except (OSError, RuntimeError) as error:
        raise limit_behind(error) or error from None
    return [
        ServerAddress(family=family, place=cast("tuple[str, int]", place))
        for family, _, _, _, place in infos
    ]


def at_address(route: Route, address: ServerAddress) -> Route:
    """Return the route to one address of its host."""
    place = address.place
    return route if isinstance(place, str) else replace(route, address=place[0])


def new_socket(address: ServerAddress) -> socket.socket:
    """Return a socket for an address; OSError when this host has no more of them."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    sock.setblocking(False)  # noqa: FBT003
    return sock


async def connect_socket(
    sock: socket.socket, address: ServerAddress, route: Route
) -> None:
    """Connect a socket from the route's own address, and send its PROXY header.

    Raises OSError (SocketUnusable included) when that fails.
    """
    loop, place = asyncio.get_running_loop(), address.place
    if isinstance(place, str):
        _connect_unix(sock, place)
    else:
        _bind(sock, route.bind)
        await loop.sock_connect(sock, place)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if header := header_of(sock, route.proxy_protocol):
        await loop.sock_sendall(sock, header)


def _connect_unix(sock: socket.socket, path: str) -> None:
    """Connect at once or not at all.

    Linux refuses with EAGAIN when the queue of the server is full. asyncio would take
    that for a connection in progress, and then for an established one.
    """
    try:
        sock.connect(path)
    except ConnectionRefusedError:
        raise
    except BlockingIOError:
        raise OSError(f"{path}: too many connections wait there") from None
    except OSError as error:
        raise SocketUnusable(f"{path}: {error.strerror or error}") from None


def _bind(sock: socket.socket, address: str) -> None:
    """Give a socket our own address; raise OSError if it cannot have it."""
    if not address:
        return
    if (":" in address) != (sock.family == socket.AF_INET6):
        raise OSError(f"it is of another family than our address {address}")
    sock.bind((address, 0))
