"""Access rules: who may enter where; every refusal is an HTTPException with a text.

| door | opens for |
|---|---|
| hook | the bearer token, a signature; every client on loopback if neither is set |
| metrics | either token; every client on loopback if neither is set |
| page | the operator's token or session; every client on loopback if none is set |
| order | the operator's token or session; no client if none is set |
"""

import time
from typing import Final, NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import Request

from drainer.watch.http.auth import (
    SIGNATURE,
    TIMESTAMP,
    bearer,
    is_in_session,
    same,
)
from drainer.watch.http.context import AppContext
from drainer.watch.http.limits import client_of
from drainer.watch.http.timeouts import prove

COOKIE: Final = "drainer_session"
HOOKS: Final = ("/hooks/primary-up", "/hooks/primary-down")
LOGIN: Final = "/login"


async def admit_hook(context: AppContext, request: Request, body: bytes) -> None:
    """Admit a health hook; that uses up its signature."""
    keys = context.settings.keys
    if not keys.hooks or same(_token(request), keys.token):
        return
    given = request.headers.get(SIGNATURE, "")
    if not keys.hmac or not given:
        words = "a token or a signature is needed" if keys.hmac else _NO_TOKEN
        await _refuse(context, request, words)
    timestamp = request.headers.get(TIMESTAMP, "")
    signed = f"{request.method} {request.scope['path']}"
    now = time.time()
    if words := context.signatures.refusal(timestamp, given, signed, body, now):
        await _refuse(context, request, words)
    prove(request)


async def admit_metrics(context: AppContext, request: Request) -> None:
    """Admit a monitoring system."""
    keys = context.settings.keys
    if is_known(context, request):
        return
    if keys.token or keys.operator or not context.settings.loopback:
        await _refuse(context, request, _NO_TOKEN)


async def admit_reader(context: AppContext, request: Request) -> None:
    """Admit those who may read the page."""
    if context.settings.keys.operator:
        if not is_operator(context, request):
            await _refuse(context, request, "the operator's token is needed")
    elif not context.settings.loopback:
        raise HTTPException(403, "the page is closed: set [hook] operator_token_file")


async def admit_operator(context: AppContext, request: Request) -> None:
    """Admit an operator who may pause, resume and throttle."""
    if not context.settings.keys.operator:
        words = "no operator may log in: set [hook] operator_token_file"
        raise HTTPException(403, words)
    await admit_reader(context, request)


def is_operator(context: AppContext, request: Request) -> bool:
    """Return whether a request shows the operator's token, or a valid session."""
    operator = context.settings.keys.operator
    cookie = request.cookies.get(COOKIE, "")
    return same(_token(request), operator) or is_in_session(
        operator, cookie, time.time()
    )


def is_known(context: AppContext, request: Request) -> bool:
    """Return whether the head of a request shows a valid token or session."""
    known = same(_token(request), context.settings.keys.token)
    return is_operator(context, request) or known


def has_proof_in_body(context: AppContext, request: Request) -> bool:
    """Return whether only the body can prove a request: signed, or a login."""
    keys, path = context.settings.keys, request.scope["path"]
    if request.method != "POST":
        return False
    signed = bool(keys.hmac) and SIGNATURE in request.headers and path in HOOKS
    return signed or (bool(keys.operator) and path == LOGIN)


async def count_failure(context: AppContext, request: Request) -> None:
    """Count a failed login; HTTPException 429 if there were too many."""
    if not await context.failures.may(client_of(request)):
        after = str(context.failures.retry_after)
        fields = {"Retry-After": after, "Connection": "close"}
        raise HTTPException(429, "too many failed logins: [hook] rate", fields)


_NO_TOKEN = "a token is needed: Authorization: Bearer TOKEN"  # noqa: S105 - words


def _token(request: Request) -> str:
    return bearer(request.headers.get("authorization", ""))


async def _refuse(context: AppContext, request: Request, words: str) -> NoReturn:
    await count_failure(context, request)
    raise HTTPException(401, words, {"WWW-Authenticate": "Bearer"})
