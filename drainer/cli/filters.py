"""The filters and selections that commands share.

``list`` and the operator's actions filter recipients of the ledger. ``inspect``,
``plan`` and ``drain`` select from a spool with the same words.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from drainer.cli.completion import complete_queue, complete_state
from drainer.errors import UsageError
from drainer.ledger.filters import Filters
from drainer.mail.envelope import parse_mailbox
from drainer.mail.reply import printable
from drainer.policy.admission.selection import (
    Choice,
    ExcludePattern,
    MessageIds,
    Selection,
    SendOrder,
)
from drainer.policy.pacing.rate import parse_size
from drainer.policy.recipient.mapping import AddressMapping, parse_redirects
from drainer.policy.recipient.state import State
from drainer.runtime.units import parse_duration

T = TypeVar("T")
MAX_FILE_BYTES = 64 * 1024 * 1024
"""Largest file of IDs, or of address mappings, in bytes."""


def selection_of(
    sender: Annotated[
        str,
        typer.Option(help="Text that the reverse-path contains; <> = null sender."),
    ] = "",
    recipient: Annotated[
        str, typer.Option(help="Text that the forward-path contains.")
    ] = "",
    domain: Annotated[str, typer.Option(help="Recipient domain.")] = "",
    older_than: Annotated[str, typer.Option(help="Arrived longer ago, e.g. 2d.")] = "",
    newer_than: Annotated[
        str, typer.Option(help="Arrived within this time, e.g. 6h.")
    ] = "",
    larger_than: Annotated[str, typer.Option(help="Minimum size, e.g. 5MB.")] = "",
    smaller_than: Annotated[str, typer.Option(help="Maximum size, e.g. 100kB.")] = "",
    queue: Annotated[
        list[str],
        typer.Option(
            autocompletion=complete_queue,
            help="Only this part of the spool, e.g. deferred, hold (Postfix), new"
            " (Maildir), a named queue (Exim); may be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer copies it
    ids_file: Annotated[
        str,
        typer.Option(
            "--ids",
            metavar="FILE",
            help="Only the messages that a file lists, one ID a line: drainer ids (8"
            " digits are enough), queue ids, Message-IDs; - reads standard input.",
        ),
    ] = "",
    exclude: Annotated[
        list[str],
        typer.Option(
            metavar="WHAT",
            help="Skip an ID, an address or a domain, of sender or recipient; * matches"
            " anything; a prefix sender: or recipient: limits it to one of them;"
            " may be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer copies it
) -> Selection:
    """Return the selection from a spool, or from messages of the ledger."""
    return Selection(
        sender=_text(sender),
        recipient=_text(recipient),
        domain=_text(domain),
        older_than=_ago(older_than),
        newer_than=_ago(newer_than),
        larger_than=_size(larger_than),
        smaller_than=_size(smaller_than),
        queues=tuple(queue),
        ids=MessageIds(read_lines(ids_file)) if ids_file else None,
        exclude=tuple(require(ExcludePattern, text) for text in exclude),
    )


def _text(given: str) -> str:
    """Return an argument that is text; UsageError for other bytes."""
    if any("\ud800" <= char <= "\udfff" for char in given):
        message = f"{printable(given)!r} is not valid text"
        raise UsageError(message, hint="give it in UTF-8")
    return given


def filters_of(
    state: Annotated[
        list[str],
        typer.Option(
            help="Only this state; may be repeated.", autocompletion=complete_state
        ),
    ] = [],  # noqa: B006 - typer copies it
    reply: Annotated[
        str, typer.Option(help="Text that the primary's reply contains.")
    ] = "",
    **selection: Any,  # noqa: ANN401
) -> Filters:
    """Return the selected recipients; UsageError for an unknown state."""
    known = [s.value for s in State]
    for name in state:
        if name not in known:
            message = f"{name!r} is not a state"
            raise UsageError(message, hint=f"legal: {', '.join(known)}")
    return Filters(
        states=tuple(state), reply=reply, selection=selection_of(**selection)
    )


def _choice(
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many messages.")
    ] = None,
    order: Annotated[
        SendOrder | None,
        typer.Option(
            help="Which go first. Default: the order of the spool, with the recipient"
            " domains in turn. Any other order reads the whole spool first.",
        ),
    ] = None,
    **selection: Any,  # noqa: ANN401
) -> Choice:
    return Choice(selection=selection_of(**selection), limit=limit, order=order)


def _redirect(
    map_recipient: Annotated[
        list[str],
        typer.Option(
            metavar="OLD=NEW",
            help="Send the mail for one address to another: old@x=new@y, or @x=@y for a"
            " domain; may be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer copies it
    map_file: Annotated[
        str,
        typer.Option(metavar="FILE", help="The same from a file, one pair a line."),
    ] = "",
) -> AddressMapping:
    lines = [*map_recipient, *(read_lines(map_file) if map_file else ())]
    return require(parse_redirects, lines)


def read_lines(name: str) -> list[str]:
    """Return the lines of a file, or of standard input; UsageError if unreadable."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        if len(data) <= MAX_FILE_BYTES:
            return data.decode().splitlines()
        reason = "it is too large"
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "") if isinstance(error, OSError) else str(error)
    message = f"cannot read {name}: {reason}"
    raise UsageError(message, hint="it must be a text file with one entry a line")


def require(parse: Callable[[Any], T], value: object) -> T:
    """Parse the operator's input; UsageError when it is invalid."""
    try:
        return parse(value)
    except ValueError as error:
        raise UsageError(str(error)) from None


def require_reason(action: str, reason: str) -> None:
    """Raise UsageError for an action of an operator without a reason."""
    if not reason:
        message = f"{action} needs --reason"
        raise UsageError(message, hint="drainer records it with the decision")


def _ago(text: str) -> datetime | None:
    return time_ago(text) if text else None


def require_mailbox(text: str) -> str:
    """Return a mailbox that SMTP can carry; UsageError for any other."""
    return require(parse_mailbox, text)


def time_ago(text: str) -> datetime:
    """Return the time that long ago; UsageError when it is not a valid duration."""
    try:
        return datetime.now(UTC) - require_duration(text)
    except OverflowError:
        message = f"{text[:60]!r} ago is before the year 1"
        raise UsageError(message, hint="write e.g. 90s, 10m, 1h, 5d") from None


def require_duration(text: str) -> timedelta:
    """Return a duration; UsageError when it is not a valid one."""
    return require(parse_duration, text)


def _size(text: str) -> int | None:
    return require(parse_size, text) if text else None


def options_as(
    name: str,
    make: Callable[..., object],
    *options: Callable[..., object],
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Return a decorator that replaces one parameter by the options of functions.

    ``make`` computes the value of that parameter from all of them. Without other
    functions the options are its own.
    """

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        own = inspect.signature(command)
        added = {
            each: parameter.replace(kind=parameter.KEYWORD_ONLY)
            for function in options or (make,)
            for each, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
        keep = [p for each, p in own.parameters.items() if each != name]

        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> T:  # noqa: ANN401
            chosen = {each: kwargs.pop(each) for each in added}
            return command(*args, **{name: make(**chosen)}, **kwargs)

        plain = [p for p in keep if p.kind is not p.KEYWORD_ONLY]
        named = [p for p in keep if p.kind is p.KEYWORD_ONLY]
        shown = own.replace(parameters=[*plain, *added.values(), *named])
        wrapped.__signature__ = shown  # type: ignore[attr-defined]
        return wrapped

    return decorate


with_filters = options_as("filters", filters_of, filters_of, selection_of)
"""Gives a command the filter options, as ``filters``."""
with_choice = options_as("choice", _choice, selection_of, _choice)
"""Gives a command the options that select from a spool, as ``choice``."""
with_selection = options_as("selection", selection_of)
"""Gives a command the options that select messages, as ``selection``."""
with_redirect = options_as("redirect", _redirect)
"""Gives a command the options that map recipients, as ``redirect``."""
