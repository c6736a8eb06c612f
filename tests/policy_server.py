"""A policy service for Postfix (SMTPD_POLICY_README) that greylists.

It answers each request for sender and recipient that it has not seen before with its
``reply``, and lets the rest pass.
"""

import socketserver
import threading
from dataclasses import dataclass, field
from typing import Final, Self

_GO_ON: Final = "DUNNO"


class _Handler(socketserver.StreamRequestHandler):
    """One connection, which may carry several requests."""

    server: "_Server"

    def handle(self) -> None:
        request: dict[str, str] = {}
        for raw in self.rfile:
            if line := raw.decode().rstrip("\n"):
                name, _, value = line.partition("=")
                request[name] = value
                continue
            action = self.server.greylist.judge(request)
            self.wfile.write(f"action={action}\n\n".encode())
            request = {}


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    greylist: "Greylist"


@dataclass(slots=True)
class Greylist:
    """The server, in a thread of its own; a context manager."""

    reply: str = "450 4.2.0 Greylisted, please try again later"
    #: Sender and recipient of what was asked for before.
    seen: set[tuple[str, str]] = field(default_factory=set)
    _server: _Server | None = None

    def judge(self, request: dict[str, str]) -> str:
        """Return the action for a request."""
        pair = (request.get("sender", ""), request.get("recipient", ""))
        if pair in self.seen:
            return _GO_ON
        self.seen.add(pair)
        return self.reply

    @property
    def place(self) -> str:
        """What check_policy_service takes; raises RuntimeError unless it runs."""
        if self._server is None:
            msg = "the policy service is not running"
            raise RuntimeError(msg)
        return f"inet:127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Start."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.greylist = self
        threading.Thread(
            target=self._server.serve_forever, name="greylist", daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
