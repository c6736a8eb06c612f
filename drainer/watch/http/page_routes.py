"""The status page and its files, and the form that opens it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from drainer.watch.http.access import (
    COOKIE,
    LOGIN,
    admit_reader,
    count_failure,
    is_operator,
)
from drainer.watch.http.auth import SESSION, same, session
from drainer.watch.http.context import AppContext
from drainer.watch.http.limits import read_all
from drainer.watch.http.timeouts import prove

_FOLDER: Final = Path(__file__).with_name("static")
_TYPES: Final = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "chart.js": "text/javascript",
    "words.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_WRONG: Final = '<p class="wrong" role="alert" id="wrong">This is not the token.</p>'


def routes(context: AppContext) -> Sequence[Route]:
    """Return all routes; the page's files contain no secret."""
    pages = PageRoutes(context)
    return [
        Route("/", pages.index),
        Route(LOGIN, pages.login, methods=["POST"]),
        Route("/logout", pages.logout, methods=["POST"]),
        *(Route(f"/{name}", pages.file) for name in _TYPES),
    ]


class PageRoutes:
    """Serves files, and sessions to clients that know the operator's token."""

    def __init__(self, context: AppContext) -> None:
        """Read the files, once."""
        self._context = context
        self._files = {path.name: path.read_bytes() for path in _FOLDER.iterdir()}

    async def index(self, request: Request) -> Response:
        """Serve the page, or the form that asks for the token."""
        if self._context.settings.keys.operator and not is_operator(
            self._context, request
        ):
            return self._html("login.html", 401)
        await admit_reader(self._context, request)
        return self._html("index.html")

    async def file(self, request: Request) -> Response:
        """Serve a part of the page."""
        name = str(request.scope["path"]).removeprefix("/")
        return Response(self._files[name], media_type=_TYPES[name])

    async def login(self, request: Request) -> Response:
        """Take the operator's token, and return a session for it."""
        body = await read_all(request, self._context.settings.patience)
        operator = self._context.settings.keys.operator
        if not same(_token_of(body), operator):
            await count_failure(self._context, request)
            return self._html("login.html", 401, _WRONG)
        prove(request)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            session(operator, time.time()),
            max_age=int(SESSION.total_seconds()),
            secure=_by_tls(request),
            httponly=True,
            samesite="strict",
        )
        return answer

    async def logout(self, _request: Request) -> Response:
        """End a session in this browser."""
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    def _html(self, name: str, status: int = 200, words: str = "") -> Response:
        text = self._files[name].replace(b"<!-- words -->", words.encode())
        return Response(text, status, media_type="text/html")


def _token_of(form: bytes) -> str:
    """Return what was typed; '' if the form is not valid."""
    try:
        fields = parse_qs(form.decode("latin-1"), max_num_fields=4)
    except ValueError:
        return ""
    return fields.get("token", [""])[0].strip()


def _by_tls(request: Request) -> bool:
    """Return whether the browser came by TLS, ours or a proxy's."""
    origin = request.headers.get("origin", "")
    return request.scope["scheme"] == "https" or origin.startswith("https://")
