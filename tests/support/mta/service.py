"""What Postfix asks about mail, in a thread of its own: the base of such servers."""

import socketserver
import threading
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self


class Server(socketserver.ThreadingTCPServer):
    """The socket, a thread for each connection."""

    daemon_threads = True
    service: Any


@dataclass(slots=True)
class Service:
    """A server on a free loopback port; a context manager.

    Its handler finds it as ``self.server.service``.
    """

    handler: ClassVar[type[socketserver.StreamRequestHandler]]
    _server: Server | None = field(default=None, init=False, kw_only=True)

    @property
    def place(self) -> str:
        """What Postfix's settings take; raises RuntimeError unless it runs."""
        if self._server is None:
            msg = f"the {type(self).__name__} is not running"
            raise RuntimeError(msg)
        return f"inet:127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Start."""
        self._server = Server(("127.0.0.1", 0), self.handler)
        self._server.service = self
        threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
