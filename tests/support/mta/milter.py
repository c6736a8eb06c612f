"""A milter that edits every message as a test says.

Postfix records such edits in place, with pointers through its queue file, so they are
the hard part of reading one. The milter wants to hear of nothing but the end of each
message, where it answers with ``Milter.edits`` and its verdict: the message passes
unless a test says otherwise.
"""

import socketserver
import struct
from dataclasses import dataclass, field
from typing import Final

from tests.support.mta.service import Server, Service

_VERSION: Final = 6
#: Add and change headers, replace body, add and delete recipients, quarantine, change
#: sender.
_ACTIONS: Final = 0x7F
#: Not interested in connect, helo, mail, rcpt, body, headers, end of header, unknown,
#: data.
_SILENCE: Final = 0x37F
_NEGOTIATE: Final = ord("O")
_END_OF_BODY: Final = ord("E")
_QUIT: Final = ord("Q")
CONTINUE: Final = b"c"
TEMPFAIL: Final = b"t"
"""What becomes of a message: it passes, or is refused for now."""


def _texts(*values: bytes) -> bytes:
    return b"".join(value + b"\0" for value in values)


def add_header(name: bytes, value: bytes) -> bytes:
    """Append a field to the header."""
    return b"h" + _texts(name, value)


def insert_header(index: int, name: bytes, value: bytes) -> bytes:
    """Insert a field; index 0 is the top, above the server's own Received."""
    return b"i" + struct.pack("!I", index) + _texts(name, value)


def change_header(name: bytes, value: bytes, index: int = 1) -> bytes:
    """Replace the index-th field of this name; an empty value deletes it."""
    return b"m" + struct.pack("!I", index) + _texts(name, value)


def change_sender(path: bytes) -> bytes:
    """Replace the reverse path."""
    return b"e" + _texts(path)


def add_recipient(path: bytes) -> bytes:
    """Add a forward path."""
    return b"+" + _texts(path)


def delete_recipient(path: bytes) -> bytes:
    """Delete a forward path."""
    return b"-" + _texts(path)


def replace_body(body: bytes) -> bytes:
    """Replace the body, or go on with the replacement; lines end in CRLF."""
    return b"b" + body


def quarantine(reason: bytes) -> bytes:
    """Put the message on hold."""
    return b"q" + _texts(reason)


class _Handler(socketserver.StreamRequestHandler):
    """One connection, which may carry several messages."""

    server: Server

    def handle(self) -> None:
        while head := self.rfile.read(4):
            packet = self.rfile.read(struct.unpack("!I", head)[0])
            if packet[0] == _QUIT:
                return
            if packet[0] == _NEGOTIATE:
                _, actions, silence = struct.unpack("!III", packet[1:13])
                self._send(
                    b"O"
                    + struct.pack(
                        "!III", _VERSION, actions & _ACTIONS, silence & _SILENCE
                    )
                )
            elif packet[0] == _END_OF_BODY:
                if self.server.service.is_over():
                    return  # without a verdict, like a process that is killed
                for edit in self.server.service.edits:
                    self._send(edit)
                self._send(self.server.service.verdict)

    def _send(self, packet: bytes) -> None:
        self.wfile.write(struct.pack("!I", len(packet)) + packet)


@dataclass(slots=True)
class Milter(Service):
    """The server, in a thread of its own; a context manager."""

    handler = _Handler
    #: What is done to each message from now on, in this order.
    edits: list[bytes] = field(default_factory=list)
    #: CONTINUE or TEMPFAIL, for each message from now on.
    verdict: bytes = CONTINUE
    #: It ends at the message after so many; None: it does not.
    lasts: int | None = None

    def is_over(self) -> bool:
        """Count a message; end the server after the last one."""
        if self.lasts is None:
            return False
        self.lasts -= 1
        if self.lasts < 0:
            self.__exit__()
        return self.lasts < 0
