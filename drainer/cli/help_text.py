"""What `--help` prints: each text as it is written, and no type after a flag.

Typer reads a help text as rich markup, in which `[primary]` is a style and not shown.
It prints a type after every option, also `<bool>` after a flag, which takes no value.
"""

from collections.abc import Iterable
from typing import Any

from rich.markup import escape

from drainer.cli.log import add_verbosity


def hide_flag_types(parameters: Iterable[Any]) -> None:
    """Let help print no type after options that take no value."""
    for each in parameters:
        if getattr(each, "is_flag", False) or getattr(each, "count", False):
            each.metavar = ""


def show_as_written(command: Any, context: Any) -> None:  # noqa: ANN401 - Typer's own
    """Let help print the texts of a new command, and of those below it, literally."""
    below = getattr(command, "commands", {})
    if not below:
        add_verbosity(command)
    parameters = command.get_params(context)
    hide_flag_types(parameters)
    for each in (command, *parameters):
        if each.help:
            each.help = escape(each.help)
    for each in below.values():
        show_as_written(each, context)
