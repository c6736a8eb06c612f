"""Results on stdout, messages for people on stderr, exit codes in one place."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape

from drainer.cli.log import LOGGER, is_journal, mask_addresses, stderr
from drainer.cli.markup import LiteralConsole
from drainer.errors import DrainerError, PrimaryNotReady, SourceError, UsageError
from drainer.mail.reply import printable
from drainer.sources.archive.source import ArchiveSource
from drainer.sources.protocol import PartialSource, Source, UntakenPart

READER_GONE = 128 + signal.SIGPIPE
"""Exit status of a command whose reader has closed the pipe, as a shell has it."""


def stdout() -> LiteralConsole:
    """Return a console on the current stdout, which tests and pipes replace."""
    terminal = sys.stdout.isatty()
    wide = None if terminal or "COLUMNS" in os.environ else 160
    return LiteralConsole(highlight=False, soft_wrap=not terminal, width=wide)


def print_json(fact: Mapping[str, Any]) -> None:
    """Print one JSON object on one line."""
    # Escaped to ASCII: replies and addresses are hostile, and this may be a terminal.
    sys.stdout.write(json.dumps(fact) + "\n")


def print_failure(code: int, message: str, hint: str = "") -> None:
    """Print an error as JSON, for a script that asked for JSON."""
    print_json({"exit": code, "error": message, "hint": hint})


def fall_silent() -> None:
    """Let nothing more go to stdout: its reader has closed the pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def print_command(command: str) -> None:
    """Print a command that a person can paste: never folded."""
    stdout().print(f"  {clean(command, 2000)}", soft_wrap=True)


def say(text: str, *, as_it_is: bool = False) -> None:
    """Print a message for a person, on stderr; ``as_it_is``: see ``warn``."""
    LOGGER.info(text, extra={"as_it_is": as_it_is})


def warn(text: str, *, as_it_is: bool = False) -> None:
    """Print a warning for a person, on stderr.

    ``as_it_is``: about what an operator wrote, so that no address is hashed.
    """
    LOGGER.warning(text, extra={"as_it_is": as_it_is})


def warn_of_skipped(sources: Iterable[Source]) -> None:
    """Say what in an archive drainer did not unpack."""
    for source in sources:
        if isinstance(source, ArchiveSource) and source.skipped:
            words = (f"{kind}: {n}" for kind, n in sorted(source.skipped.items()))
            warn(
                f"{printable(source.url)} has members that are not mail"
                f" ({', '.join(words)}): drainer follows no link, and lists one only"
                " where mail belongs"
            )


def warn_of_untaken(sources: Iterable[Source]) -> bool:
    """Name mail in parts of a spool that no option takes; return True if any."""
    parts = [(source.url, part) for source in sources for part in _list_untaken(source)]
    for url, part in parts:
        warn(
            f"{part.messages} messages of {printable(url)} are in"
            f" {printable(part.name)}, and drainer does not read them: take them with"
            f" {printable(part.option)}"
        )
    return bool(parts)


def _list_untaken(source: Source) -> Sequence[UntakenPart]:
    """Return what a source leaves out; a warning if that cannot be read."""
    try:
        return source.untaken() if isinstance(source, PartialSource) else ()
    except SourceError as error:
        warn(f"drainer cannot tell what else is in {printable(source.url)}: {error}")
        return ()


def print_error(error: DrainerError) -> int:
    """Print what happened and what to do next; return the exit code."""
    text = str(error)
    # Those are about what an operator wrote; a journal has more readers.
    is_own = isinstance(error, PrimaryNotReady) and not is_journal()
    if error.exit_code != UsageError.exit_code and not is_own:
        text = mask_addresses(text)
    for line in text.splitlines():
        stderr.print(f"[red]error:[/] {clean(line, 1000)}")
    if error.hint:
        stderr.print(f"       {clean(error.hint, 1000)}")
    return error.exit_code


def clean(text: object, limit: int = 200) -> str:
    """Make text safe for a table: no control characters, no markup."""
    return escape(printable(str(text), limit))
