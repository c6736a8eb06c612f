"""Connections that send nothing complete, or read nothing, are dropped.

uvicorn would wait forever, and keep open files that the drain needs.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from drainer.watch.http.acceptor import HttpConnection

VISIT = "visit"
HEAD, ANSWER = "head", "answer"
MOST_AHEAD = 2
"""Requests in a row that a client may send before it has the answer to the last."""


class TimedProtocol(H11Protocol):
    """HTTP/1.1 with a time limit for the head of every request, and for every answer.

    The first runs while no request is under way; drainer.watch.http.limits has one for
    the body. The second runs while the client does not read what was written.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - uvicorn's
        visit: HttpConnection,
        seconds: float,
        forget: Callable[[HttpConnection], None],
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        self.app_state[VISIT] = visit
        self._visit, self._forget = visit, forget
        self._seconds = seconds
        self._ahead = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request."""
        super().connection_made(transport)
        self._visit.transport = transport
        # For any byte that is left; with high=0 TLS would pause for none.
        transport.set_write_buffer_limits(high=1, low=0)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Continue to wait, unless this data starts a request."""
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._stop(HEAD)
        else:
            self._await_head()

    def on_response_complete(self) -> None:
        """Continue with the next request, unless the client sends without reading."""
        self._ahead = self._ahead + 1 if self.conn.trailing_data[0] else 0
        if self._ahead > MOST_AHEAD:
            self.transport.close()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give the client some time to read."""
        super().pause_writing()
        self._start(ANSWER, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting: everything has been read."""
        self._stop(ANSWER)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all waits."""
        self._stop(HEAD)
        self._stop(ANSWER)
        self._forget(self._visit)
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if not self.transport.is_closing():
            self._start(HEAD, self.transport.close)

    def _start(self, what: str, then: Callable[[], None]) -> None:
        if what not in self._timers:
            self._timers[what] = self.loop.call_later(self._seconds, then)

    def _stop(self, what: str) -> None:
        if (timer := self._timers.pop(what, None)) is not None:
            timer.cancel()


def prove(request: Request) -> None:
    """Note that the client of a request has shown a valid proof."""
    visit = request.scope.get("state", {}).get(VISIT)
    if isinstance(visit, HttpConnection):
        visit.proven = True
