"""Whether a command line of a file is one that drainer understands."""

import re
from collections.abc import Sequence
from typing import Any, Final

import typer
import typer.main
from typer.core import TyperGroup

from drainer.cli import app

_CLICK = typer.main.get_command(app)


#: What a wrong command line raises; newer Typers carry a Click of their own.
_USAGE_ERROR: Final[type[Any]] = typer.BadParameter.__bases__[0]


class NoCommand(Exception):
    """A command line that drainer does not understand."""


def parses(words: Sequence[str]) -> None:
    """Parse ``drainer COMMAND ...`` as the console does, and run nothing.

    Raises NoCommand for a command, an option or an argument that is wrong.
    """
    try:
        _parse(words)
    except Exception as error:
        if isinstance(error, _USAGE_ERROR):
            raise NoCommand(str(error)) from error
        raise


def _parse(words: Sequence[str]) -> None:
    name, *rest = words
    if name.rpartition("/")[2] != "drainer":
        msg = f"no command of ours: {words!r}"
        raise NoCommand(msg)
    command, path = _CLICK, "drainer"
    context = command.make_context(path, [], resilient_parsing=True)
    while isinstance(command, TyperGroup):
        found = command.get_command(context, rest[0]) if rest else None
        if found is None:
            msg = f"there is no {path} {' '.join(rest[:1])}"
            raise NoCommand(msg)
        command, path, rest = found, f"{path} {rest[0]}", rest[1:]
        if not isinstance(command, TyperGroup):
            command.make_context(path, list(rest), parent=context)
        else:
            context = command.make_context(
                path, [], parent=context, resilient_parsing=True
            )


def lines_of(page: str) -> list[str]:
    """Return the command lines of ours in the code blocks of a page."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("drainer ")]
