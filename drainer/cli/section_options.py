"""The options that set keys of the configuration: what a job needs without a file."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from drainer.cli.filters import options_as
from drainer.config import Config
from drainer.errors import UsageError

Sections = dict[str, dict[str, Any]]
"""Values that override the configuration, by section and key."""


def _primary(
    accept: Annotated[
        list[str],
        typer.Option(
            metavar="ADDRESS",
            help="Known-good recipient, which the primary must accept; may be"
            " repeated. Default: [health] accept.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer copies it
    domains: Annotated[
        list[str],
        typer.Option(
            metavar="DOMAIN",
            help="Deliver only to this recipient domain; may be repeated."
            " Default: [primary] domains.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer copies it
    tls: Annotated[
        str,
        typer.Option(
            help="off, opportunistic, required, implicit or dane. Default: [primary]"
            " tls (opportunistic).",
            show_default=False,
        ),
    ] = "",
    tls_ca: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="CA certificates (PEM) to trust instead of this host's."
            " Default: [primary] tls_ca.",
        ),
    ] = "",
    username: Annotated[
        str, typer.Option(help="User name for AUTH. Default: [primary] username.")
    ] = "",
    password_file: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="File whose first line is the password. Default: [primary]"
            " password_file.",
        ),
    ] = "",
) -> Sections:
    given = {
        "domains": _words(domains),
        "tls": tls,
        "tls_ca": tls_ca,
        "username": username,
        "password_file": password_file,
    }
    primary = {key: value for key, value in given.items() if value}
    return {"primary": primary, "health": {"accept": _words(accept)} if accept else {}}


def _words(values: list[str]) -> list[str]:
    """Return the values one by one: several may be separated by commas."""
    return [word for value in values for word in value.replace(",", " ").split()]


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


with_primary = options_as("primary", _primary)
"""Gives a command the options that describe the primary, as ``primary``."""
with_lists = options_as("recipients", _lists)
"""Gives a command the options that say who exists, as ``recipients``."""
with_census = options_as("recipients", _census, _lists, _census)
"""Gives a command the options of a census before a drain, as ``recipients``."""


def merge(*parts: Mapping[str, Mapping[str, Any]]) -> Sections:
    """Return the sections of all parts; a later part wins."""
    merged: Sections = {}
    for part in parts:
        for section, keys in part.items():
            merged.setdefault(section, {}).update(keys)
    return merged


def refuse_without_lists(config: Config, given: Sections) -> None:
    """Raise UsageError for a census that was asked for, and has no list."""
    asked, section = given["recipients"].get("before_drain"), config.recipients
    if asked and not section.lists and not section.callout:
        message = "--census needs a list of recipients, or --callout"
        raise UsageError(message, hint="give --known LIST, or set [recipients] lists")
