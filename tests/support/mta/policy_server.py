"""A policy service for Postfix (SMTPD_POLICY_README) that greylists.

It answers each request for sender and recipient that it has not seen before with its
``reply``, and lets the rest pass.
"""

import socketserver
from dataclasses import dataclass, field
from typing import Final

from tests.support.mta.service import Server, Service

_GO_ON: Final = "DUNNO"


class _Handler(socketserver.StreamRequestHandler):
    """One connection, which may carry several requests."""

    server: Server

    def handle(self) -> None:
        request: dict[str, str] = {}
        for raw in self.rfile:
            if line := raw.decode().rstrip("\n"):
                name, _, value = line.partition("=")
                request[name] = value
                continue
            action = self.server.service.judge(request)
            self.wfile.write(f"action={action}\n\n".encode())
            request = {}


@dataclass(slots=True)
class Greylist(Service):
    """The server, in a thread of its own; a context manager."""

    handler = _Handler
    reply: str = "450 4.2.0 Greylisted, please try again later"
    #: Sender and recipient of what was asked for before.
    seen: set[tuple[str, str]] = field(default_factory=set)

    def judge(self, request: dict[str, str]) -> str:
        """Return the action for a request."""
        pair = (request.get("sender", ""), request.get("recipient", ""))
        if pair in self.seen:
            return _GO_ON
        self.seen.add(pair)
        return self.reply
