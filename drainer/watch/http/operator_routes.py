"""POST /api/pause, resume and throttle: an operator's orders, with a reason."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from drainer.mail.reply import printable
from drainer.policy.pacing.overrides import OverrideKind
from drainer.policy.pacing.rate import parse_rate
from drainer.runtime.json_input import parse_json
from drainer.runtime.units import parse_duration
from drainer.watch.http.access import admit_operator
from drainer.watch.http.context import AppContext
from drainer.watch.http.limits import client_of, read_all

LONGEST = timedelta(days=366)
MAX_REASON = 300


def routes(context: AppContext) -> Sequence[Route]:
    """Return the three routes."""
    return [
        Route(f"/api/{ask}", partial(_take, context, ask), methods=["POST"])
        for ask in (OverrideKind.PAUSE, OverrideKind.RESUME, OverrideKind.THROTTLE)
    ]


async def _take(context: AppContext, ask: OverrideKind, request: Request) -> Response:
    """Take an order: a pause or a rate may last until a time; "" ends a rate."""
    await admit_operator(context, request)
    body = await read_all(request, context.settings.patience)
    try:
        order = order_of(body)
        reason = reason_of(order)
        lasts = duration_of(order) if ask is not OverrideKind.RESUME else None
        rate = rate_of(order) if ask is OverrideKind.THROTTLE else None
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    by = f"http {client_of(request) or '?'} operator"
    given = await context.give(ask, by, reason, lasts, rate)
    facts = {
        "state": context.watched.snapshot()["state"],
        "ask": ask.value,
        "id": given.id,
        "per_second": given.per_second,
        "until": given.until.isoformat() if given.until else None,
        "reason": given.reason,
    }
    return JSONResponse(facts, 202)


def order_of(body: bytes) -> dict[str, Any]:
    """Return what a body orders; ValueError if it is not an order."""
    try:
        order = parse_json(body)
    except ValueError:
        order = None
    if not isinstance(order, dict):
        raise ValueError(  # noqa: TRY004 - answered like the others
            'the body must be a JSON object, such as {"reason": "...", "for": "10m"}'
        )
    if unknown := set(order) - {"reason", "for", "rate"}:
        names = printable(", ".join(sorted(unknown)), 100)
        raise ValueError(f"unknown: {names}; legal: reason, for, rate")
    return order


def reason_of(order: dict[str, Any]) -> str:
    """Return the reason of an order; ValueError if there is none."""
    reason = order.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError("a reason is needed: it is recorded in the ledger")
    return printable(reason.strip(), MAX_REASON)


def duration_of(order: dict[str, Any]) -> timedelta | None:
    """Return after how long it ends by itself; None: never; ValueError if bad."""
    stated = order.get("for")
    if stated in (None, ""):
        return None
    lasts = parse_duration(stated)
    if not timedelta(0) < lasts <= LONGEST:
        raise ValueError("an order must last longer than zero, and at most a year")
    return lasts


def rate_of(order: dict[str, Any]) -> float | None:
    """Return messages per second; None: as configured; else ValueError."""
    stated = order.get("rate")
    if stated in (None, ""):
        return None
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        stated = f"{stated}/second"
    rate = parse_rate(stated) if isinstance(stated, str) else None
    if rate is None:
        raise ValueError('a rate is written 20/second; "" restores the configured one')
    return rate
