"""Man pages, made from the commands: ``python -m drainer.cli.manual FOLDER``.

Each command and each group of commands has a page. A page says what ``--help`` says,
in the sections of man-pages(7).
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer.main

from drainer import __version__
from drainer.cli import app

_FILES = (
    ("/etc/drainer/drainer.toml", "The configuration, if ./drainer.toml is absent."),
    ("/var/lib/drainer/ledger.db", "The ledger of root and of the service."),
    ("$XDG_STATE_HOME/drainer/ledger.db", "The ledger of any other user."),
    (".drainer, FILE.drainer", "Names the ledger that drains a source."),
)
_ENVIRONMENT = (
    ("DRAINER_SECTION__KEY", "Sets a key of the configuration."),
    ("NO_COLOR", "Turns colours off."),
)
_MANUAL = "drainer manual"
Words = tuple[str, ...]
"""A command as it is typed: ``("drainer", "ledger", "check")``."""


def pages() -> Iterator[tuple[str, str]]:
    """Yield the name of each page and its text, in the format of man(7)."""
    root: Any = typer.main.get_command(app)
    context = root.make_context("drainer", [], resilient_parsing=True)
    below = {name: root.get_command(context, name) for name in root.list_commands({})}
    yield _page(("drainer",), root, below)
    for name, command in below.items():
        parts = getattr(command, "commands", {})
        yield _page(("drainer", name), command, parts)
        for part, each in parts.items():
            yield _page(("drainer", name, part), each, {})


class _Help(NamedTuple):
    """The paragraphs of a help text, by the section that they belong to."""

    about: list[str]
    status: list[str]
    example: list[str]


def _help_of(command: Any) -> _Help:  # noqa: ANN401 - Typer's own
    found = _Help([], [], [])
    text = f"{command.help or ''}\n\n{command.epilog or ''}"
    for paragraph in _plain(text).strip().split("\n\n"):
        head, _, rest = paragraph.partition(": ")
        match head:
            case "Example":
                found.example.append(rest)
            case "Exit status":
                found.status.append(rest)
            case _:
                found.about.append(paragraph)
    return found


def _page(words: Words, command: Any, below: dict[str, Any]) -> tuple[str, str]:  # noqa: ANN401
    title, parts = "-".join(words), _help_of(command)
    options = [p for p in command.params if p.param_type_name == "option"]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    lines = [
        f'.TH {title.upper()} 1 "" "drainer {__version__}" "{_MANUAL}"',
        *_section("NAME", [_roff(f"{title} \\- {parts.about[0].rstrip('.')}")]),
        *_section("SYNOPSIS", _synopsis(words, arguments, below)),
        *_section("DESCRIPTION", _paragraphs(parts.about)),
        *_section("COMMANDS", _commands(words, below)),
        *_section("ARGUMENTS", _entries((_metavar(p), p.help) for p in arguments)),
        *_section("OPTIONS", _entries((_flags(p), _about(p)) for p in options)),
        *_section("EXIT STATUS", _paragraphs(parts.status)),
        *_section("EXAMPLE", [line for e in parts.example for line in _example(e)]),
        *_section("ENVIRONMENT", _entries(_ENVIRONMENT) if len(words) == 1 else []),
        *_section("FILES", _entries(_FILES) if len(words) == 1 else []),
        *_section("SEE ALSO", _see_also(words, below)),
    ]
    return f"{title}.1", "\n".join(lines) + "\n"


def _section(name: str, lines: list[str]) -> list[str]:
    return [f".SH {name}", *lines] if lines else []


def _synopsis(words: Words, arguments: list[Any], below: dict[str, Any]) -> list[str]:
    rest = "COMMAND [OPTION]..." if below else "[OPTION]..."
    named = "".join(
        f" {_metavar(p)}" if p.required else f" [{_metavar(p)}]" for p in arguments
    )
    return [f".B {_roff(' '.join(words))}", _roff(f"{rest}{named}")]


def _paragraphs(texts: list[str]) -> list[str]:
    return [line for text in texts for line in (".PP", _roff(text))]


def _commands(words: Words, below: dict[str, Any]) -> list[str]:
    return _entries(
        (f"{'-'.join((*words, name))}(1)", _plain(each.help).split("\n\n")[0])
        for name, each in below.items()
    )


def _entries(entries: Any) -> list[str]:  # noqa: ANN401 - pairs of text
    return [
        line
        for name, text in entries
        for line in (".TP", f".B {_roff(name)}", _roff(_plain(text or "")))
    ]


def _example(text: str) -> list[str]:
    return [".EX", _roff(text), ".EE"]


def _see_also(words: Words, below: dict[str, Any]) -> list[str]:
    above = ["-".join(words[:n]) for n in range(1, len(words))]
    names = [*above, *("-".join((*words, name)) for name in below)]
    return [_roff(", ".join(f"{name}(1)" for name in names))] if names else []


def _metavar(parameter: Any) -> str:  # noqa: ANN401 - Typer's own
    named = parameter.metavar or parameter.name.strip("_").upper()
    return f"{named}..." if parameter.nargs < 0 else str(named)


def _flags(option: Any) -> str:  # noqa: ANN401 - Typer's own
    names = ", ".join((*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    choices = option.type_descriptor.choices or ()
    values = "|".join(str(getattr(each, "value", each)) for each in choices)
    value = option.metavar or values or option.opts[0].strip("-").upper()
    return f"{names} {value}"


def _about(option: Any) -> str:  # noqa: ANN401 - Typer's own
    default = option.default
    is_shown = isinstance(default, (str, int, float)) and not option.is_flag
    words = [option.help]
    if is_shown and default:
        words.append(f"Default: {default}.")
    if option.required:
        words.append("Required.")
    return " ".join(words)


def _plain(text: str) -> str:
    """Return a text of help without the marks for rich."""
    return text.replace("\\[", "[")


def _roff(text: str) -> str:
    """Escape text for man(7): no line of it is a request, no character a command."""
    flat = " ".join(text.split())
    flat = flat.replace("\\-", "\0").replace("\\", "\\e").replace("-", "\\-")
    flat = flat.replace("\0", "\\-")
    return f"\\&{flat}" if flat[:1] in (".", "'") else flat


def main() -> None:
    """Write every page into the folder that the argument names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
