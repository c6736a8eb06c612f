"""Which connections stay open: a crowd never shuts out a client that comes later.

The acceptor empties the kernel's queue at once; then each connection has a place, also
during its TLS handshake. When there is one too many, one loses its place: of those
without a valid proof, the oldest of the client with the most connections.
"""

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final

from drainer.watch.http.limits import neighbourhood

MOST: Final = 128
"""Connections at once: the drain needs open files too."""
MOST_OF_ONE: Final = 64
"""Connections of one client that have shown nothing yet."""
AT_ONCE: Final = 16
"""Connections that are accepted before the present ones are read.

It is far less than the places of one client: no connection loses its place before it is
read.
"""
PAUSE: Final = 0.1
"""Seconds after which accept() is tried again if it fails."""


class HttpConnection:
    """One connection, from accept() to its end."""

    def __init__(self, client: str, link: socket.socket) -> None:
        self.client, self.link = client, link
        #: It has shown a valid token, session or signature.
        self.proven = False
        #: None until it is established: with TLS, after the handshake.
        self.transport: asyncio.Transport | None = None
        self.opening: asyncio.Task[object] | None = None

    def drop(self) -> None:
        """End it at once."""
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()


class ConnectionAcceptor:
    """Accepts the connections of one listening socket, as uvicorn's servers do."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[HttpConnection], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        seconds: float,
    ) -> None:
        """Accept in a task; a handshake and a farewell have this many seconds."""
        self._listener, self._protocol = listener, protocol
        self._tls, self._limit = tls, seconds if tls else None
        #: In the order in which they came.
        self._visits: dict[HttpConnection, None] = {}
        listener.setblocking(False)  # noqa: FBT003 - the only way to say it
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Accept no more."""
        self._task.cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing is accepted, and no handshake is under way."""
        opening = [visit.opening for visit in self._visits if visit.opening]
        for task in opening:
            task.cancel()
        await asyncio.gather(self._task, *opening, return_exceptions=True)

    def forget(self, visit: HttpConnection) -> None:
        """Free the place of a connection that has ended."""
        self._visits.pop(visit, None)

    async def _run(self) -> None:
        while True:
            for _ in range(AT_ONCE):
                await self._accept()
            await asyncio.sleep(0)

    async def _accept(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            link, address = await loop.sock_accept(self._listener)
        except OSError as error:  # or the client has left
            if error.errno in (errno.EMFILE, errno.ENFILE) and self._visits:
                self._drop(self._least(list(self._visits)))
            await asyncio.sleep(PAUSE)
        else:
            self._admit(HttpConnection(neighbourhood(str(address[0])), link))

    def _admit(self, visit: HttpConnection) -> None:
        others = list(self._visits)
        same = [v for v in others if v.client == visit.client and not v.proven]
        if len(same) >= MOST_OF_ONE:
            self._drop(same[0])
        elif len(others) >= MOST:
            self._drop(self._least(others))
        self._visits[visit] = None
        loop = asyncio.get_running_loop()
        visit.opening = loop.create_task(self._open(visit))
        visit.opening.add_done_callback(lambda task: self._note_open(visit, task))

    async def _open(self, visit: HttpConnection) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self._protocol(visit),
            visit.link,
            ssl=self._tls,
            ssl_handshake_timeout=self._limit,
            ssl_shutdown_timeout=self._limit,
        )

    def _note_open(self, visit: HttpConnection, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            task.exception()  # a failed handshake concerns only the client
        if visit.transport is None:
            visit.link.close()
            self.forget(visit)

    def _drop(self, visit: HttpConnection) -> None:
        visit.drop()
        self.forget(visit)

    @staticmethod
    def _least(visits: list[HttpConnection]) -> HttpConnection:
        """Return the connection that deserves its place least."""
        strangers = [visit for visit in visits if not visit.proven] or visits
        crowds = Counter(visit.client for visit in strangers)
        return max(strangers, key=lambda visit: crowds[visit.client])
