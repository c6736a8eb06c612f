"""POST /hooks/primary-up and /hooks/primary-down: something has been noticed.

A trigger makes the watch look, or stop beginning anew; it decides nothing. Giving one
again changes nothing that the first did not.
"""

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from drainer.policy.pacing.overrides import OverrideKind
from drainer.watch.http.access import open_to_hook
from drainer.watch.http.context import AppContext
from drainer.watch.http.limits import client_of, read_all
from drainer.watch.http.payloads import BodyError, HookRequest, read_body


def routes(desk: AppContext) -> Sequence[Route]:
    """Return the two of them."""
    hooks = HookRoutes(desk)
    return [
        Route("/hooks/primary-up", hooks.up, methods=["POST"]),
        Route("/hooks/primary-down", hooks.down, methods=["POST"]),
    ]


class HookRoutes:
    """Takes triggers."""

    def __init__(self, desk: AppContext) -> None:
        """Take them for one watch."""
        self._desk = desk

    async def up(self, request: Request) -> Response:
        """Believe that the primary may be back: let the watch look."""
        return await self._take(request, OverrideKind.UP)

    async def down(self, request: Request) -> Response:
        """Believe that the primary may be down: begin nothing new."""
        return await self._take(request, OverrideKind.DOWN)

    async def _take(self, request: Request, url: OverrideKind) -> Response:
        body = await read_all(request, self._desk.settings.patience)
        await open_to_hook(self._desk, request, body)
        try:
            meaning = read_body(body, url)
        except BodyError as error:
            raise HTTPException(400, f"{error}; see docs/hook.md") from None
        if meaning.ask is None:
            return self._answer(200, meaning, f"ignored: no news of primary-{url}")
        await self._desk.give(meaning.ask, sent_by(request, meaning), meaning.words)
        return self._answer(202, meaning, "taken: the watch looks for itself")

    def _answer(self, status: int, meaning: HookRequest, words: str) -> Response:
        facts = {
            "state": self._desk.watched.snapshot()["state"],
            "taken": meaning.ask is not None,
            "words": words,
        }
        return JSONResponse(facts, status)


def sent_by(request: Request, meaning: HookRequest) -> str:
    """Return who gave a control, as the ledger keeps it."""
    return f"http {client_of(request) or '?'} {meaning.sender}"
