"""A way to a database that breaks: around its commits, as a network may."""

import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from sqlalchemy.engine import make_url

_WRITES = b"UPDATE runs"
"""What only a connection says that the ledger is written by; drivers commit too."""
EVERY = 3
"""Of so many commits one meets with a cut."""


class Cut(Enum):
    """When a connection is cut."""

    BEFORE = "before the server has seen the commit"
    AFTER = "after the server has committed, before its answer has passed"


class _Handler(socketserver.BaseRequestHandler):
    server: "CuttingProxy"

    def handle(self) -> None:
        """Pass bytes on in both directions, until an end or a cut."""
        client, writes = self.request, False
        with socket.create_connection(self.server.behind) as upstream:
            while True:
                ready, _, _ = select.select([client, upstream], [], [])
                for source in ready:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    writes = writes or _WRITES in data
                    if source is upstream:
                        client.sendall(data)
                    elif writes and self.server.is_to_cut(data):
                        self._cut(upstream, data)
                        return
                    else:
                        upstream.sendall(data)

    def _cut(self, upstream: socket.socket, data: bytes) -> None:
        if self.server.cut is Cut.AFTER:
            upstream.sendall(data)
            upstream.recv(1 << 16)  # it answers when it has committed


class CuttingProxy(socketserver.ThreadingTCPServer):
    """Listens on a loopback port for the server behind it."""

    daemon_threads = True

    def __init__(self, behind: tuple[str, int], cut: Cut) -> None:
        """Take the server's address, and when to cut."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.cut = cut
        self.commits = self.cuts = 0
        self._lock = threading.Lock()

    def is_to_cut(self, data: bytes) -> bool:
        """Tell whether this is a commit, and its turn to be cut."""
        if b"COMMIT" not in data:
            return False
        with self._lock:
            self.commits += 1
            cuts = self.commits % EVERY == 0
            self.cuts += cuts
        return cuts


@contextmanager
def cutting(url: str, cut: Cut) -> Iterator[tuple[str, CuttingProxy]]:
    """Give the URL of the same database through a proxy, and the proxy."""
    direct = make_url(url)
    assert direct.port is not None
    with CuttingProxy(("127.0.0.1", direct.port), cut) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        try:
            through = direct.set(port=proxy.server_address[1])
            yield through.render_as_string(hide_password=False), proxy
        finally:
            proxy.shutdown()
            thread.join()
