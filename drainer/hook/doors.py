"""Who is let in where; everything that is refused is an HTTPException in words.

| door | opens for |
|---|---|
| hook | the bearer token, a signature; anybody on loopback if neither is set |
| metrics | the bearer token, the operator's; anybody on loopback if neither is set |
| page | the operator's token or session; anybody on loopback if none is set |
| order | the operator's token or session; nobody if none is set |
"""

import time
from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import Request

from drainer.hook.auth import SIGNATURE, TIMESTAMP, bearer, in_session, same
from drainer.hook.desk import Desk

COOKIE = "drainer_session"


def open_to_hook(desk: Desk, request: Request, body: bytes) -> None:
    """Let a health hook in; a signature is used up by that."""
    keys = desk.settings.keys
    if not keys.hooks or same(_token(request), keys.token):
        return
    given = request.headers.get(SIGNATURE, "")
    if not keys.hmac or not given:
        _refuse("a token or a signature is needed" if keys.hmac else _NO_TOKEN)
    stated = request.headers.get(TIMESTAMP, "")
    if words := desk.signatures.refusal(stated, given, body, time.time()):
        _refuse(words)


def open_to_metrics(desk: Desk, request: Request) -> None:
    """Let a monitoring system in."""
    keys, token = desk.settings.keys, _token(request)
    if same(token, keys.token) or (keys.operator and is_operator(desk, request)):
        return
    if keys.token or keys.operator or not desk.settings.loopback:
        _refuse(_NO_TOKEN)


def open_to_reader(desk: Desk, request: Request) -> None:
    """Let whoever may look at the page look at it."""
    if desk.settings.keys.operator:
        if not is_operator(desk, request):
            _refuse("the operator's token is needed")
    elif not desk.settings.loopback:
        words = "the page is closed: set [hook] operator_token_file"
        raise HTTPException(403, words)


def open_to_orders(desk: Desk, request: Request) -> None:
    """Let an operator in who may pause, resume and throttle."""
    if not desk.settings.keys.operator:
        words = "orders are closed: set [hook] operator_token_file"
        raise HTTPException(403, words)
    open_to_reader(desk, request)


def is_operator(desk: Desk, request: Request) -> bool:
    """Tell whether a request shows the operator's token, or a session that holds."""
    operator = desk.settings.keys.operator
    cookie = request.cookies.get(COOKIE, "")
    return same(_token(request), operator) or in_session(operator, cookie, time.time())


_NO_TOKEN = "a token is needed: Authorization: Bearer TOKEN"  # noqa: S105 - words


def _token(request: Request) -> str:
    return bearer(request.headers.get("authorization", ""))


def _refuse(words: str) -> NoReturn:
    raise HTTPException(401, words, {"WWW-Authenticate": "Bearer"})
