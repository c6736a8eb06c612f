"""The HTTP server: the application, its socket, and its lifetime.

``serve`` runs until it is cancelled, and then ends in order. It stops listening,
streams end, and answers that are under way have a second.
"""

import contextlib
import math
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import uvicorn
from sqlalchemy.engine import URL
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from drainer.errors import UsageError
from drainer.watch.http import hook_routes, operator_routes, page_routes, read_routes
from drainer.watch.http.acceptor import ConnectionAcceptor, HttpConnection
from drainer.watch.http.context import AppContext
from drainer.watch.http.middleware import RequestMiddleware
from drainer.watch.http.settings import HookSettings
from drainer.watch.http.snapshot import WatchView
from drainer.watch.http.timeouts import TimedProtocol
from drainer.watch.http.tls import RenewedContext

if TYPE_CHECKING:
    import asyncio

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted."""
GRACE = 1
"""Whole seconds for answers under way when the server ends."""


def application(context: AppContext) -> RequestMiddleware:
    """Return the whole application with its middleware."""
    parts = (hook_routes, operator_routes, read_routes, page_routes)
    app = Starlette(
        routes=[route for part in parts for route in part.routes(context)],
        exception_handlers={HTTPException: _in_words},
    )
    app.router.redirect_slashes = False
    return RequestMiddleware(app, context)


async def _in_words(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - no other is registered
    facts = {"error": error.detail}
    return JSONResponse(facts, error.status_code, error.headers)


def listen(
    settings: HookSettings, handed: socket.socket | None = None
) -> socket.socket:
    """Return a socket that listens as the settings say: the one handed over, if any.

    Raises UsageError when it cannot, or the certificate cannot be read.
    """
    _tls(settings)
    if handed is not None:
        return handed
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    place = (settings.host, settings.port)
    try:
        return socket.create_server(place, family=family, backlog=BACKLOG)
    except OSError as error:
        message = f"cannot listen on {settings.host} port {settings.port}: {error}"
        raise UsageError(message, hint="see [hook] listen") from None


async def serve(
    settings: HookSettings,
    watched: WatchView,
    url: URL,
    route: str,
    listener: socket.socket | None = None,
) -> None:
    """Serve a watch until cancelled; controls go into the ledger at ``url``.

    Takes a socket from ``listen``, or makes one. Raises UsageError if it cannot listen,
    or the certificate cannot be read.
    """
    context = AppContext(settings, watched, url, route)
    bound = listener or listen(settings)
    with contextlib.closing(bound), contextlib.closing(context.reading):
        server = _Server(_configuration(settings, context), settings.patience)
        try:
            await server.serve(sockets=[bound])
        finally:  # when cancelled, uvicorn cleans up nothing
            context.end_streams()
            if server.started and server.servers:
                await server.shutdown(sockets=[bound])


def _configuration(settings: HookSettings, context: AppContext) -> uvicorn.Config:
    made = uvicorn.Config(
        application(context),
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(settings.patience),
        timeout_graceful_shutdown=GRACE,
    )
    made.load()
    made.ssl = _tls(settings)
    return made


def _tls(settings: HookSettings) -> ssl.SSLContext | None:
    return RenewedContext(*settings.tls).context if settings.tls else None


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and with our own acceptor.

    The process that runs us has signal handlers already.
    """

    def __init__(self, configuration: uvicorn.Config, seconds: float) -> None:
        """Give a client this many seconds for each thing that the server waits for."""
        super().__init__(configuration)
        self._seconds = seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections from sockets that listen."""
        acceptors = [self._acceptor(each) for each in sockets or ()]
        self.servers = cast("list[asyncio.Server]", acceptors)  # so far as it asks
        self.started = True

    def _acceptor(self, listener: socket.socket) -> ConnectionAcceptor:
        def protocol(visit: HttpConnection) -> TimedProtocol:
            return TimedProtocol(
                config=self.config,
                server_state=self.server_state,
                app_state={},
                visit=visit,
                seconds=self._seconds,
                forget=acceptor.forget,
            )

        acceptor = ConnectionAcceptor(
            listener, protocol, self.config.ssl, self._seconds
        )
        return acceptor

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield
