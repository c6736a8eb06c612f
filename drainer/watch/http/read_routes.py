"""The routes for reading: health, readiness, metrics, the status and its events."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from drainer.watch.http.access import admit_metrics, admit_reader
from drainer.watch.http.context import AppContext
from drainer.watch.metrics import CONTENT_TYPE, MetricInputs, exposition

BEAT = 5.0
"""Seconds after which an event is sent even if nothing has changed."""
LEAST_GAP = 1.0
LONGEST = 3600.0
"""Seconds of one stream: after that, the client must show its proof again."""


def routes(context: AppContext) -> Sequence[Route]:
    """Return all routes."""
    views = {
        "/healthz": _report_life,
        "/readyz": _report_readiness,
        "/metrics": _show_metrics,
        "/api/status": _show_status,
        "/api/events": _stream_events,
    }
    return [Route(path, partial(view, context)) for path, view in views.items()]


async def _report_life(_context: AppContext, _request: Request) -> Response:
    return JSONResponse({"alive": True})


async def _report_readiness(context: AppContext, _request: Request) -> Response:
    """Report whether the watch works and its ledger can be read."""
    ledger = await context.reading.ledger()
    state = context.watched.snapshot()["state"]
    facts = {"ready": not ledger.error, "state": state, "words": ledger.error}
    return JSONResponse(facts, 503 if ledger.error else 200)


async def _show_metrics(context: AppContext, request: Request) -> Response:
    await admit_metrics(context, request)
    ledger = await context.reading.ledger()
    seen = MetricInputs(context.watched.snapshot(), ledger, context.answers)
    return Response(exposition(seen), media_type=CONTENT_TYPE)


async def _show_status(context: AppContext, request: Request) -> Response:
    await admit_reader(context, request)
    return JSONResponse(await context.reading.status())


async def _stream_events(context: AppContext, request: Request) -> Response:
    await admit_reader(context, request)
    return EventStream(context)


class EventStream(Response):
    """Server-sent events: one a second at most, with new parts of the history."""

    media_type = "text/event-stream"

    def __init__(self, context: AppContext) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._context = context
        self._last = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client leaves or stops reading, or the server ends."""
        request = Request(scope, receive)
        head = {"status": 200, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST) as life:
                self._context.add_stream(life)
                try:
                    await self._go_on(request, send)
                finally:
                    self._context.streams.pop(life, None)
        with contextlib.suppress(TimeoutError):  # it may not read the end either
            async with asyncio.timeout(LEAST_GAP):
                await send({"type": "http.response.body", "body": b""})

    async def _go_on(self, request: Request, send: Send) -> None:
        while not await request.is_disconnected():
            event = await self._event()
            async with asyncio.timeout(self._context.settings.patience):
                body = {"body": event, "more_body": True}
                await send({"type": "http.response.body", **body})
            await self._change()

    async def _change(self) -> None:
        """Wait until there is something new, and a second has passed."""
        clock = asyncio.get_running_loop().time
        started = clock()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEAT):
                await self._context.watched.wait_for_change()
        await asyncio.sleep(max(0.0, started + LEAST_GAP - clock()))

    async def _event(self) -> bytes:
        facts = await self._context.reading.status()
        watch: dict[str, Any] = dict(facts["watch"])
        watch["history"] = [s for s in watch["history"] if s[0] > self._last]
        if watch["history"]:
            self._last = watch["history"][-1][0]
        data = json.dumps({**facts, "watch": watch})
        return f"event: status\nretry: 3000\ndata: {data}\n\n".encode()
