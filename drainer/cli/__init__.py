"""The ``drainer`` command: parse, connect the parts, call, print, exit code."""

import contextlib
import gc
import importlib
import io
import re
import sys
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from typing import Any, Final, NamedTuple

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from drainer import __version__
from drainer.cli.log import add_verbosity, forget_options
from drainer.cli.output import READER_GONE, fall_silent, print_error, print_failure
from drainer.errors import DrainerError
from drainer.runtime.host_limits import (
    limit_behind,
    open_standard_streams,
    raise_descriptors,
)
from drainer.runtime.process import tune_gc
from drainer.runtime.workers import mark_forkable

EXIT_STATUS = """Exit status: 0 every recipient is final; 1 a defect of drainer, a
lost ledger or a limit of this host; 2 usage or configuration; 3 the primary is not
ready, nothing was sent; 4 stopped because the primary refuses us; 5 finished, but
recipients remain; 6 another drain owns this source; 130 interrupted, run it again to
continue."""


class Command(NamedTuple):
    """A command: the module that registers it, and its line in `--help`."""

    module: str
    help: str


COMMANDS = {
    "init": Command(
        "config",
        "Write a configuration file with every key, its default and its meaning.",
    ),
    "config": Command(
        "config",
        "Print the configuration in force (file, environment, flags) without secrets.",
    ),
    "check": Command(
        "check", "Check the primary, stage by stage, without sending a message."
    ),
    "doctor": Command(
        "doctor",
        "Check before an outage that MX, backups, primary and this host are ready.",
    ),
    "inspect": Command(
        "inspect",
        "List the messages of a spool: read-only, needs no primary and no ledger.",
    ),
    "plan": Command(
        "inspect",
        "Print what `drain` would do: counts, sizes, ages, duration, held messages.",
    ),
    "census": Command(
        "census",
        "Print which recipients of a spool exist, by lists and by asking the primary.",
    ),
    "drain": Command(
        "drain", "Check the primary, then deliver the mail of the spool to it."
    ),
    "watch": Command(
        "watch",
        "Stay up: wait until the primary is healthy, drain, and wait for more mail.",
    ),
    "hook": Command("hook", "Report to the watch that the primary is up, or down."),
    "status": Command(
        "status",
        "Print the state of the drain, and whether every recipient is accounted for.",
    ),
    "list": Command("recipients", "List recipients, one a line, or count them."),
    "show": Command("messages", "Show one message and its recipients."),
    "why": Command(
        "why", "Print every decision about one message in order, and the next step."
    ),
    "hold": Command(
        "operator_actions", "Hold recipients until an operator releases them."
    ),
    "release": Command(
        "operator_actions", "Release held recipients; overrules problems that allow it."
    ),
    "requeue": Command(
        "operator_actions",
        "Make recipients due now, as if drainer had never tried them.",
    ),
    "discard": Command(
        "operator_actions", "Discard recipients permanently: no delivery and no bounce."
    ),
    "throttle": Command(
        "throttle", "Change the rate of running drains, or pause them."
    ),
    "quarantine": Command(
        "quarantine",
        "Refused messages that may not be bounced: list, show, release, purge.",
    ),
    "digest": Command(
        "digest", "Summarise for the postmaster what happened to the mail, and why."
    ),
    "report": Command(
        "report",
        "Write a report of everything that the ledger knows, during or after a drain.",
    ),
    "notify": Command("notify", "Test the notifications that are configured."),
    "bounces": Command(
        "bounces", "Pending bounces, and the bounces that drainer sends."
    ),
    "classify": Command(
        "classify", "Print what a reply means: verdict, scope, rule and reason."
    ),
    "verify": Command(
        "verify",
        "Print evidence rules, findings and verdict for the sender of a message.",
    ),
    "spool": Command(
        "spool",
        "Create and fill a database spool. Settle a queue of Postfix or Exim.",
    ),
    "ledger": Command(
        "ledger", "Check the ledger, copy it, or remove old mail from it."
    ),
}
"""The commands in the order of `--help`."""
_loaded: dict[str, Any] = {}
"""Those that this process has run: Typer takes a while to build one."""


def add_command(app: typer.Typer, name: str) -> None:
    """Add a command: the function of its name in its module, or the group ``app``."""
    module = importlib.import_module(f"drainer.cli.{COMMANDS[name].module}")
    if hasattr(module, "app"):
        app.add_typer(module.app, name=name, help=COMMANDS[name].help)
    else:
        found = getattr(module, name, None) or getattr(module, f"{name}_")
        app.command(name)(found)


class _Commands(TyperGroup):
    """Loads the module of a command only when needed: all together take a second."""

    _is_listing = False

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Typer's own
        """Print the help; the list of commands needs none of them."""
        self._is_listing = True
        super().format_help(ctx, formatter)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - Typer's own
        """Return the names of the commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - likewise
        """Return a command, or None when no command has that name."""
        if cmd_name not in COMMANDS:
            return None
        if self._is_listing:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name].help)
        forget_options()
        if cmd_name not in _loaded:
            part = typer.Typer(rich_markup_mode="rich", callback=_root)
            add_command(part, cmd_name)
            command: Any = typer.main.get_group(part).get_command(ctx, cmd_name)
            _show_as_written(command, ctx)
            _loaded[cmd_name] = command
        return _loaded[cmd_name]

    def make_context(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - likewise
        """Parse the arguments; that prints the help."""
        with _silent_pipe():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - likewise
        """Run the command; with --json its error is JSON too."""
        as_json = "--json" in ctx.args
        try:
            with _silent_pipe():
                return super().invoke(ctx)
        except DrainerError as error:
            if as_json:
                print_failure(error.exit_code, str(error), error.hint)
            raise
        except typer.TyperException as error:
            if as_json:
                print_failure(2, *_words_of(error))
            raise
        except Exception as error:
            if as_json and (limit := limit_behind(error)):
                print_failure(limit.exit_code, str(limit), limit.hint)
            raise

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401 - likewise
        """Return the options of ``drainer`` itself."""
        parameters = super().get_params(ctx)
        _hide_flag_types(parameters)
        return parameters


@contextlib.contextmanager
def _silent_pipe() -> Iterator[None]:
    """End quietly when the reader of stdout is gone: Rich exits then, with status 1."""
    try:
        yield
    except (BrokenPipeError, SystemExit):
        fall_silent()
        raise typer.Exit(READER_GONE) from None


def _words_of(error: Any) -> tuple[str, str]:  # noqa: ANN401 - Typer's own
    """Return what is wrong with the arguments, and what to read about it."""
    where = error.ctx.command_path if error.ctx else "drainer"
    return error.format_message(), f"see `{where} --help`"


_LINE_END: Final = re.compile(r"(?<!\n)\n(?!\n)")
"""The end of a line inside of a paragraph."""


def _hide_flag_types(parameters: Iterable[Any]) -> None:
    """Let help print no `<bool>` after options that take no value."""
    for each in parameters:
        if getattr(each, "is_flag", False) or getattr(each, "count", False):
            each.metavar = ""


def _show_as_written(command: Any, context: Any) -> None:  # noqa: ANN401 - Typer's own
    """Let help print the texts of a new command, and of those below it, literally.

    Typer reads them as rich markup, in which `[primary]` is a style and not shown. And
    it ends a line where the source of a paragraph does.
    """
    below = getattr(command, "commands", {})
    if not below:
        add_verbosity(command)
    parameters = command.get_params(context)
    _hide_flag_types(parameters)
    for each in (command, *parameters):
        if each.help:
            each.help = escape(_LINE_END.sub(" ", cleandoc(each.help)))
    for each in below.values():
        _show_as_written(each, context)


def _root(
    *,
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    if version:
        typer.echo(f"drainer {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="drainer",
    help="Drain a backup MX's spool to the primary mail server.",
    epilog=" ".join(EXIT_STATUS.split()),
    cls=_Commands,
    callback=_root,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main() -> None:
    """Run the command; turn our errors into exit codes.

    SIGPIPE stays ignored, which is Python's default. Sockets would raise it too, and a
    primary that hangs up must not end the drain.
    """
    open_standard_streams()
    raise_descriptors()
    tune_gc()
    mark_forkable()
    if isinstance(sys.stdout, io.TextIOWrapper):  # an address may have any character
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # a full disk fails here, not at exit
            gc.freeze()  # else the exit looks for garbage among all modules
    except BrokenPipeError:
        fall_silent()
        sys.exit(READER_GONE)
    except DrainerError as error:
        sys.exit(print_error(error))
    except Exception as error:
        limit = limit_behind(error)
        if limit is None:
            raise
        # Without colours: their table may need more memory than is available.
        print(f"error: {limit}\n       {limit.hint}", file=sys.stderr)  # noqa: T201
        sys.exit(limit.exit_code)
