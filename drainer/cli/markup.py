"""Print text as it is written: only our own few styles are markup.

Rich reads `[primary]` in a text as a style, and does not show it; for `:x:` it shows a
picture. Text of others goes through `output.clean` before.
"""

import re
from typing import Any

from rich.console import Console
from rich.errors import MarkupError
from rich.text import Text

STYLES = ("bold", "dim", "red", "yellow", "green", "magenta")
"""The styles that messages use, each ended by `[/]`."""

_OTHER_TAG = re.compile(rf"(\\*)\[(?!(?:{'|'.join(STYLES)})\]|/\])")


class LiteralConsole(Console):
    """A console that shows every bracket that is not one of our styles."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - Rich's
        """Return a text with our styles; a cell of a table comes here as well."""
        options["emoji"] = False  # `:b:` of an IPv6 address is one
        try:
            return super().render_str(literal(text), **options)
        except MarkupError:  # it closes a style that it did not open
            return super().render_str(text, **options | {"markup": False})

    def on_broken_pipe(self) -> None:
        """End the command: its reader is gone. drainer.cli makes the exit status."""
        raise BrokenPipeError


def literal(text: str) -> str:
    """Escape every bracket that starts none of our styles, unless it is escaped."""

    def escaped(found: re.Match[str]) -> str:
        is_escaped = len(found[1]) % 2 == 1
        return found[0] if is_escaped else f"{found[1]}\\["

    return _OTHER_TAG.sub(escaped, text)
