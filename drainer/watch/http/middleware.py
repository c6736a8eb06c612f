"""The outermost layer: rates, host names, other sites, and headers of every answer.

A browser on this host is a stranger's way in. A page of another site can make it send
requests here (Origin, Sec-Fetch-Site), and after DNS rebinding read the answers (Host).
"""

import re
from collections.abc import MutableMapping
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from drainer.watch.http.access import HOOKS, has_proof_in_body, is_known
from drainer.watch.http.context import AppContext
from drainer.watch.http.limits import client_of
from drainer.watch.http.timeouts import prove

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
        *HOOKS,
        "/api/pause",
        "/api/resume",
        "/api/throttle",
    )
)
"""Each path has a line in the metrics; paths that strangers invent have none."""
ALWAYS: Final = "/healthz"
"""Answered at any rate: it costs nothing, and a service manager must not be misled."""
_LOCAL: Final = frozenset(("localhost", "127.0.0.1", "::1"))
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_ORIGIN: Final = re.compile(rf"https?://({_HOST.pattern})")


class RequestMiddleware:
    """The outermost application."""

    def __init__(self, app: ASGIApp, context: AppContext) -> None:
        self._app, self._context = app, context

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
        settings = self._context.settings
        if not await self._may(request):
            return 429, "too many requests: [hook] rate"
        host = request.headers.get("host", "").lower()
        if host and not _HOST.fullmatch(host):
            return 400, "Host is not a name or an address"
        known = settings.names | _LOCAL | {settings.host}
        if settings.loopback and _name(host) not in known and host not in known:
            return 421, "this name is not served here: [hook] names"
        origins = [each.lower() for each in request.headers.getlist("origin")]
        if len(origins) > 1 or not all(map(_ORIGIN.fullmatch, origins)):
            return 400, "Origin is not the place of a page"
        reads = request.method in ("GET", "HEAD")
        if not reads and self._is_foreign(request, origins, host):
            return 403, "a page of another site may not send requests here"
        return 0, ""

    async def _may(self, request: Request) -> bool:
        """Take a request from its client's bucket.

        Clients with a valid proof have a bucket of their own. A proof in the body is
        checked later: a failure then is counted there.
        """
        context, client = self._context, client_of(request)
        if is_known(context, request):
            prove(request)
            return await context.known.may(client)
        always = request.scope["path"] == ALWAYS or has_proof_in_body(context, request)
        return always or await context.strangers.may(client)

    def _is_foreign(self, request: Request, origins: list[str], host: str) -> bool:
        """Return whether a browser sent this from a page that is not ours."""
        if not origins:
            site = request.headers.get("sec-fetch-site", "none")
            return site not in ("none", "same-origin")
        place = origins[0].partition("://")[2]
        names = self._context.settings.names
        return place != host and place not in names and _name(place) not in names

    def _extra(self, status: int) -> dict[str, str]:
        fields = {"Connection": "close"}
        if status == 429:  # noqa: PLR2004
            fields["Retry-After"] = str(self._context.strangers.retry_after)
        return fields

    def _carrying(self, request: Request, send: Send) -> Send:
        """Return a send function that adds our headers, and counts."""

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if request.scope["path"] in COUNTED:
                    status = str(message["status"])
                    self._context.answers[request.scope["path"], status] += 1
            await send(message)

        return sending


def _name(host: str) -> str:
    """Return a host without its port and brackets."""
    return found[1].strip("[]") if (found := _HOST.fullmatch(host)) else ""
