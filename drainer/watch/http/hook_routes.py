"""POST /hooks/primary-up and /hooks/primary-down: a health hook reports a change.

It makes the watch check the primary, or start nothing new, also if it is repeated.
"""

from collections.abc import Sequence
from functools import partial

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from drainer.policy.pacing.overrides import OverrideKind
from drainer.watch.http.access import admit_hook
from drainer.watch.http.context import AppContext
from drainer.watch.http.limits import client_of, read_all
from drainer.watch.http.payloads import BodyError, HookRequest, read_body


def routes(context: AppContext) -> Sequence[Route]:
    """Return both routes."""
    return [
        Route(f"/hooks/primary-{ask}", partial(_take, context, ask), methods=["POST"])
        for ask in (OverrideKind.UP, OverrideKind.DOWN)
    ]


async def _take(context: AppContext, url: OverrideKind, request: Request) -> Response:
    """Record that the primary may be back, or down."""
    body = await read_all(request, context.settings.patience)
    await admit_hook(context, request, body)
    try:
        meaning = read_body(body, url)
    except BodyError as error:
        raise HTTPException(400, f"{error}; see docs/hook.md") from None
    if meaning.ask is None:
        return _answer(context, 200, meaning, f"ignored: not news of primary-{url}")
    by = f"http {client_of(request) or '?'} {meaning.sender}"
    await context.give(meaning.ask, by, meaning.words)
    return _answer(context, 202, meaning, "accepted: the watch checks the primary")


def _answer(
    context: AppContext, status: int, meaning: HookRequest, words: str
) -> Response:
    facts = {
        "state": context.watched.snapshot()["state"],
        "taken": meaning.ask is not None,
        "words": words,
    }
    return JSONResponse(facts, status)
