"""The options that describe the primary: what a single job needs without a file."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from drainer.cli.filters import options_as

Sections = dict[str, dict[str, Any]]
"""Values that override the configuration, by section and key."""


def _sections(
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


with_primary = options_as("primary", _sections, _sections)
"""Gives a command the options that describe the primary, as ``primary``."""


def merge(*parts: Mapping[str, Mapping[str, Any]]) -> Sections:
    """Return the sections of all parts; a later part wins."""
    merged: Sections = {}
    for part in parts:
        for section, keys in part.items():
            merged.setdefault(section, {}).update(keys)
    return merged
