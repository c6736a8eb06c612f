"""Around everything: rates, names, other sites, and what every answer carries.

On loopback a browser is the way in for strangers: a page of another site can make it
send requests here (told by Origin and Sec-Fetch-Site), and after DNS rebinding it could
even read the answers (told by Host).
"""

from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from drainer.hook.desk import Desk

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
COUNTED: Final = frozenset(
    (
        "/hooks/primary-up",
        "/hooks/primary-down",
        "/api/pause",
        "/api/resume",
        "/api/throttle",
    )
)
"""Each has a line in the metrics; what strangers ask for has none."""
ALWAYS: Final = "/healthz"
"""Answered at any rate: it costs nothing, and a service manager must not be misled."""
_LOCAL: Final = frozenset(("localhost", "127.0.0.1", "::1"))


class Guard:
    """The outermost application."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        """Stand before an application."""
        self._app, self._desk = app, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        status, words = await self._refusal(request)
        app: ASGIApp = self._app
        if status:
            app = JSONResponse({"error": words}, status, self._extra(status))
        await app(scope, receive, self._carrying(request, send))

    async def _refusal(self, request: Request) -> tuple[int, str]:
        settings = self._desk.settings
        client = request.client.host if request.client else ""
        always = request.url.path == ALWAYS
        if not always and not await self._desk.clients.may(client):
            return 429, "too many requests: [hook] rate"
        host = request.headers.get("host", "").lower()
        known = settings.names | _LOCAL | {settings.host}
        if settings.loopback and _name(host) not in known and host not in known:
            return 421, "this name is not served here: [hook] names"
        if request.method not in ("GET", "HEAD") and self._strange(request, host):
            return 403, "a page of another site has no say here"
        return 0, ""

    def _strange(self, request: Request, host: str) -> bool:
        """Tell whether a browser sent this from a page that is not ours."""
        origin = request.headers.get("origin")
        if origin is None:
            site = request.headers.get("sec-fetch-site", "none")
            return site not in ("none", "same-origin")
        place = urlsplit(origin.lower()).netloc
        names = self._desk.settings.names
        return place != host and place not in names and _name(place) not in names

    def _extra(self, status: int) -> dict[str, str]:
        if status == 429:  # noqa: PLR2004
            return {"Retry-After": str(self._desk.clients.retry_after)}
        return {}

    def _carrying(self, request: Request, send: Send) -> Send:
        """Return a way to send that adds our headers, and counts."""

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if request.url.path in COUNTED:
                    status = str(message["status"])
                    self._desk.answers[request.url.path, status] += 1
            await send(message)

        return sending


def _name(host: str) -> str:
    """Return a host without its port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
