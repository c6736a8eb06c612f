"""Several servers behind one port: connections go to them in turn."""

import contextlib
import itertools
import select
import socket
import threading
from collections.abc import Sequence
from typing import Self

_BYTES = 65536


class Balancer:
    """A forwarder of connections on a free loopback port; a context manager."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Prepare to forward to these ports of this host."""
        self._ports = itertools.cycle(ports)
        self._server = socket.create_server(("127.0.0.1", 0))

    @property
    def port(self) -> int:
        """The port of all of them."""
        return int(self._server.getsockname()[1])

    def __enter__(self) -> Self:
        """Start."""
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take no more connections."""
        self._server.close()

    def _serve(self) -> None:
        for port in self._ports:
            try:
                client, _ = self._server.accept()
            except OSError:
                return  # closed
            server = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_relay, args=(client, server), daemon=True).start()


def _relay(client: socket.socket, server: socket.socket) -> None:
    """Copy both directions of a connection until either side ends it."""
    with client, server, contextlib.suppress(OSError):
        while True:
            for source in select.select([client, server], [], [])[0]:
                if not (data := source.recv(_BYTES)):
                    return
                (server if source is client else client).sendall(data)
