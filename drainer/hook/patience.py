"""Connections that send nothing whole, or are too many, are dropped.

uvicorn would wait for ever, and take what the process has of open files: the drain
needs them for its sessions.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


class Patient(H11Protocol):
    """HTTP/1.1 with a time limit for the head of every request.

    It runs while no request is under way: from the beginning of a connection, and from
    the first octet behind an answer. (The body's is drainer.hook.limits'.)
    """

    seconds = 10.0
    most = 128

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's
        """Make what uvicorn makes."""
        super().__init__(*args, **kwargs)
        self._end: asyncio.TimerHandle | None = None

    @classmethod
    def within(cls, seconds: float) -> "type[Patient]":
        """Return the class with another limit: uvicorn makes the connections."""
        return type(cls.__name__, (cls,), {"seconds": seconds})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait, unless there are too many already."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting, unless a request has begun with this."""
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._stop()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._end is None and not self.transport.is_closing():
            self._end = self.loop.call_later(self.seconds, self.transport.close)

    def _stop(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
