"""The options that name lists of recipients, and what a drain does with them."""

from typing import Annotated, Any

import typer

from drainer.cli.filters import options_as
from drainer.cli.primary_options import Sections
from drainer.config import Config
from drainer.errors import UsageError


def _lists(
    known: Annotated[
        list[str],
        typer.Option(
            metavar="LIST",
            help="A list of recipients that exist: a file with an address or @domain a"
            " line, or another kind of docs/census.md; may be repeated."
            " [recipients] lists",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer copies it
    callout: Annotated[
        bool | None,
        typer.Option(
            "--callout/--no-callout",
            help="Ask the primary for recipients: RCPT, and no message. [recipients]"
            " callout",
            show_default=False,
        ),
    ] = None,
) -> Sections:
    keys: dict[str, Any] = {"lists": known} if known else {}
    if callout is not None:
        keys["callout"] = callout
    return {"recipients": keys}


def _census(
    census: Annotated[
        bool | None,
        typer.Option(
            "--census/--no-census",
            help="Hold recipients that no list has. [recipients] before_drain",
            show_default=False,
        ),
    ] = None,
    **lists: Any,  # noqa: ANN401
) -> Sections:
    found = _lists(**lists)
    if census is not None:
        found["recipients"]["before_drain"] = census
    return found


with_lists = options_as("recipients", _lists, _lists)
"""Gives a command the options that say who exists, as ``recipients``."""
with_census = options_as("recipients", _census, _lists, _census)
"""Gives a command the options of a census before a drain, as ``recipients``."""


def refuse_without_lists(config: Config, given: Sections) -> None:
    """Raise UsageError for a census that was asked for, and has no list."""
    asked, section = given["recipients"].get("before_drain"), config.recipients
    if asked and not section.lists and not section.callout:
        message = "--census needs a list of recipients, or --callout"
        raise UsageError(message, hint="give --known LIST, or set [recipients] lists")
