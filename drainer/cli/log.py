"""Messages for people, from any part of drainer: on a terminal, in a file or journal.

Every module logs to the standard logger of its name. Here is the only handler. It
prints to standard error, escapes what a terminal would obey, and hides secrets.
"""

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, Final

import typer
import typer.main
from rich.markup import escape

from drainer.cli.markup import LiteralConsole
from drainer.mail.reply import printable
from drainer.runtime.redaction import redact

LOGGER: Final = logging.getLogger("drainer")
DIALOGUE: Final = logging.getLogger("drainer.smtp.dialogue")
MAX_TEXT = 1000
"""Characters of one message; a peer's words may be in it."""
AddressShower = Callable[[str, Iterable[str]], str]
"""Returns a text with its addresses shown in one way; see ``mask_addresses``."""

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4}
"""Of syslog, as systemd reads them at the start of a line (sd-daemon(3))."""


class _Stderr(LiteralConsole):
    """Falls silent when its reader is gone: a drain continues."""

    def on_broken_pipe(self) -> None:
        """Print no more."""
        self.quiet = True


stderr = _Stderr(stderr=True, highlight=False, soft_wrap=True)


class _Handler(logging.Handler):
    """Prints records as a person, a log file or a journal reads them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; a failure to print ends nothing."""
        text = record.getMessage()
        if not getattr(record, "as_it_is", False):
            text = mask_addresses(text, getattr(record, "own", ()))
        text = printable(redact(text), MAX_TEXT)
        if is_journal():
            stderr.out(f"<{_PRIORITIES.get(record.levelno, 3)}>{text}", highlight=False)
            return
        stamp = "" if self.formatter is None else self.format(record)
        is_warning = record.levelno >= logging.WARNING
        before = f"{stamp}[yellow]warning:[/] " if is_warning else stamp
        stderr.print(before + escape(text))


_HANDLER: Final = _Handler()
LOGGER.addHandler(_HANDLER)
LOGGER.setLevel(logging.INFO)


def _show_plain(text: str, own: Iterable[str]) -> str:
    del own
    return text


_SHOWN: Final[list[AddressShower]] = [_show_plain]
"""The one that is used."""


def show_addresses(by: AddressShower) -> None:
    """Let the addresses in all messages from now on be shown like this."""
    _SHOWN[:] = [by]


def mask_addresses(text: str, own: Iterable[str] = ()) -> str:
    """Return a message with its addresses as ``[telemetry] addresses`` says.

    ``own`` are the addresses of the mail that it is about.
    """
    return _SHOWN[0](text, own)


def stamp_messages() -> None:
    """Put date, time and zone before every message from now on."""
    _HANDLER.setFormatter(logging.Formatter("%(asctime)s ", "%Y-%m-%d %H:%M:%S%z"))


def is_journal() -> bool:
    """Whether a systemd journal keeps what drainer prints."""
    return "JOURNAL_STREAM" in os.environ


def is_quiet() -> bool:
    """Whether only warnings and errors are printed."""
    return not LOGGER.isEnabledFor(logging.INFO)


def _be_quiet(chosen: bool) -> None:
    if chosen:
        LOGGER.setLevel(logging.WARNING)


def _be_verbose(times: int) -> None:
    if times:
        LOGGER.setLevel(logging.DEBUG)
    if times > 1:
        DIALOGUE.setLevel(logging.DEBUG)


def _be_most_verbose(chosen: bool) -> None:
    _be_verbose(2 if chosen else 0)


def _options(
    *,
    quiet: bool = typer.Option(
        False,
        "-q",
        "--quiet",
        callback=_be_quiet,
        help="Print warnings and errors only.",
    ),
    verbose: int = typer.Option(
        0,
        "-v",
        "--verbose",
        count=True,
        show_default=False,
        callback=_be_verbose,
        help="Print more: connections, and the result of every message; twice: the SMTP"
        " dialogue too, without content and secrets. Addresses are shown as [telemetry]"
        " addresses says.",
    ),
    debug: bool = typer.Option(
        False, "--debug", callback=_be_most_verbose, help="The same as -vv."
    ),
) -> None:
    """Have the options that every command has."""
    del quiet, verbose, debug


def forget_options() -> None:
    """Print as usual again: a command before, in the same process, had options."""
    _HANDLER.setFormatter(None)
    LOGGER.setLevel(logging.INFO)
    DIALOGUE.setLevel(logging.INFO)
    show_addresses(_show_plain)


def add_verbosity(command: Any) -> None:  # noqa: ANN401 - Typer's own
    """Give a command ``-q``, ``-v`` and ``--debug``; they act before it runs."""
    part = typer.Typer(add_completion=False)
    part.command()(_options)
    for option in typer.main.get_command(part).params:
        option.expose_value = False
        command.params.append(option)
