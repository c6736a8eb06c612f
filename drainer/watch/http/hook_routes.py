"""POST /hooks/primary-up and /hooks/primary-down: a health hook reports a change.

A hook makes the watch check the primary, or start nothing new. It decides nothing. A
repeated hook changes nothing that the first one did not.
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
    """Return both routes."""
    hooks = HookRoutes(desk)
    return [
        Route("/hooks/primary-up", hooks.up, methods=["POST"]),
        Route("/hooks/primary-down", hooks.down, methods=["POST"]),
    ]


class HookRoutes:
    """Takes health hooks."""

    def __init__(self, desk: AppContext) -> None:
        """Take them for one watch."""
        self._desk = desk

    async def up(self, request: Request) -> Response:
        """Record that the primary may be back: the watch checks it."""
        return await self._take(request, OverrideKind.UP)

    async def down(self, request: Request) -> Response:
        """Record that the primary may be down: the watch starts nothing new."""
        return await self._take(request, OverrideKind.DOWN)

    async def _take(self, request: Request, url: OverrideKind) -> Response:
        body = await read_all(request, self._desk.settings.patience)
        await open_to_hook(self._desk, request, body)
        try:
            meaning = read_body(body, url)
        except BodyError as error:
            raise HTTPException(400, f"{error}; see docs/hook.md") from None
        if meaning.ask is None:
            return self._answer(200, meaning, f"ignored: not news of primary-{url}")
        await self._desk.give(
            meaning.ask, describe_sender(request, meaning), meaning.words
        )
        return self._answer(202, meaning, "accepted: the watch checks the primary")

    def _answer(self, status: int, meaning: HookRequest, words: str) -> Response:
        facts = {
            "state": self._desk.watched.snapshot()["state"],
            "taken": meaning.ask is not None,
            "words": words,
        }
        return JSONResponse(facts, status)


def describe_sender(request: Request, meaning: HookRequest) -> str:
    """Return who gave a control, as the ledger keeps it."""
    return f"http {client_of(request) or '?'} {meaning.sender}"
