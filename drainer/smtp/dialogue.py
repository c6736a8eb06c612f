"""The SMTP dialogue as log lines, for a person who looks for a fault (``-vv``).

Content is counted and not printed. A login is printed without its words. What a peer
says is not cleaned here: who prints a log line does that (cli.log).
"""

import itertools
import logging
from collections.abc import Callable

from drainer.mail.reply import Lost, Reply
from drainer.mail.reply_codes import GO_AHEAD
from drainer.smtp.protocol import SmtpProtocol

END = b"\r\n.\r\n"
"""The end of a content (RFC 5321 4.1.1.4); dot-stuffing keeps it out of the content."""

_log = logging.getLogger(__name__)
_numbers = itertools.count(1)


def session_log() -> Callable[[str], None]:
    """Return what prints a line of a new session; each has a number."""
    number = next(_numbers)
    return lambda line: _log.debug(f"[{number}] {line}")


def wire_class() -> type[SmtpProtocol]:
    """Return the protocol of a session: one that prints, if a person wants that."""
    return LoggedProtocol if _log.isEnabledFor(logging.DEBUG) else SmtpProtocol


class LoggedProtocol(SmtpProtocol):
    """Prints every command and reply of an established connection."""

    log: Callable[[str], None]
    #: The end of what was sent of a content; None outside of one.
    _tail: bytes | None = None
    _size = 0

    def write(self, data: bytes) -> None:
        """Queue bytes, and print the commands among them."""
        super().write(data)
        for line in self._outside_of_content(data).split(b"\r\n"):
            if line:
                self.log(f"> {line.decode('utf-8', 'backslashreplace')}")

    def _outside_of_content(self, data: bytes) -> bytes:
        """Return the commands behind a content; print how large that was."""
        if self._tail is None:
            return data
        sent = self._tail + data
        end = sent.find(END)
        if end < 0:
            self._size += len(data)
            self._tail = sent[1 - len(END) :]
            return b""
        size = self._size + end + len(b"\r\n") - len(self._tail)
        self.log(f"> ({size} bytes of content)")
        self._tail = None
        return sent[end + len(b"\r\n") :]

    def _queue(self, reply: Reply) -> None:
        super()._queue(reply)
        self.log(f"< {reply}")
        if reply.code == GO_AHEAD:
            self._tail, self._size = b"\r\n", 0

    def _lose(self, why: Lost) -> None:
        if self.lost is None:
            self.log(f"the session ends: {why}")
        super()._lose(why)
