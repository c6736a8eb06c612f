"""The filters that `list` and the operator's verbs share."""

import functools
import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import typer

from drainer.errors import UsageError
from drainer.ledger.report import Filters
from drainer.policy.state import State
from drainer.policy.throttle import parse_size
from drainer.units import parse_duration

T = TypeVar("T")


def _options(
    state: Annotated[
        list[str], typer.Option(help="Only this state; may be repeated.")
    ] = [],  # noqa: B006 - typer copies it
    sender: Annotated[str, typer.Option(help="Part of the reverse-path.")] = "",
    recipient: Annotated[str, typer.Option(help="Part of the forward-path.")] = "",
    domain: Annotated[str, typer.Option(help="Recipient domain.")] = "",
    older_than: Annotated[str, typer.Option(help="Arrived before, e.g. 2d.")] = "",
    newer_than: Annotated[str, typer.Option(help="Arrived within, e.g. 6h.")] = "",
    larger_than: Annotated[str, typer.Option(help="Size, e.g. 5MB.")] = "",
    reply: Annotated[str, typer.Option(help="Part of the primary's reply.")] = "",
) -> Filters:
    known = [s.value for s in State]
    for name in state:
        if name not in known:
            message = f"{name!r} is no state"
            raise UsageError(message, hint=f"legal: {', '.join(known)}")
    return Filters(
        states=tuple(state),
        sender=sender,
        recipient=recipient,
        domain=domain,
        older_than=_ago(older_than),
        newer_than=_ago(newer_than),
        larger_than=_size(larger_than),
        reply=reply,
    )


def _ago(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.now(UTC) - checked_duration(text)
    except OverflowError:
        message = f"{text[:60]!r} ago is before the year 1"
        raise UsageError(message, hint="write e.g. 90s, 10m, 1h, 5d") from None


def checked_duration(text: str) -> timedelta:
    """Return a duration; UsageError when it is none."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _size(text: str) -> int | None:
    try:
        return parse_size(text) if text else None
    except ValueError as error:
        raise UsageError(str(error)) from None


def with_filters(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command the filter options; it takes them as ``filters``."""
    own = inspect.signature(command)
    added = inspect.signature(_options).parameters
    keep = [p for name, p in own.parameters.items() if name != "filters"]
    options = [p.replace(kind=p.KEYWORD_ONLY) for p in added.values()]

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> T:  # noqa: ANN401
        chosen = {name: kwargs.pop(name) for name in added}
        return command(*args, filters=_options(**chosen), **kwargs)

    plain = [p for p in keep if p.kind is not p.KEYWORD_ONLY]
    named = [p for p in keep if p.kind is p.KEYWORD_ONLY]
    wrapped.__signature__ = own.replace(parameters=[*plain, *options, *named])  # type: ignore[attr-defined]
    return wrapped
