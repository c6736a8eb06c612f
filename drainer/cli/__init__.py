"""The ``drainer`` command: parse, connect the parts, call, print, exit code."""

import importlib
import io
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from drainer import __version__
from drainer.cli.help_text import hide_flag_types, show_as_written
from drainer.cli.output import print_error
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

COMMANDS = {
    "init": "config",
    "config": "config",
    "check": "check",
    "doctor": "doctor",
    "inspect": "inspect",
    "plan": "inspect",
    "drain": "drain",
    "watch": "watch",
    "hook": "hook",
    "status": "status",
    "list": "messages",
    "show": "messages",
    "why": "why",
    "hold": "operator_actions",
    "release": "operator_actions",
    "requeue": "operator_actions",
    "discard": "operator_actions",
    "throttle": "throttle",
    "quarantine": "quarantine",
    "digest": "digest",
    "report": "report",
    "notify": "notify",
    "bounces": "bounces",
    "classify": "classify",
    "verify": "verify",
    "spool": "spool",
    "ledger": "ledger",
}
"""The commands in the order of `--help`, and the module that registers each."""


class _Commands(TyperGroup):
    """Loads the module of a command only when needed: all together take a second."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - Typer's own
        """Return the names of the commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - likewise
        """Return a command, or None when no command has that name."""
        if cmd_name not in COMMANDS:
            return None
        part = typer.Typer(rich_markup_mode="rich", callback=_root)
        module = importlib.import_module(f"drainer.cli.{COMMANDS[cmd_name]}")
        module.register(part)
        command = typer.main.get_group(part).get_command(ctx, cmd_name)
        show_as_written(command, ctx)
        return command

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401 - likewise
        """Return the options of ``drainer`` itself."""
        parameters = super().get_params(ctx)
        hide_flag_types(parameters)
        return parameters


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
    except DrainerError as error:
        sys.exit(print_error(error))
    except Exception as error:
        limit = limit_behind(error)
        if limit is None:
            raise
        # Without colours: their table may need more memory than is available.
        print(f"error: {limit}\n       {limit.hint}", file=sys.stderr)  # noqa: T201
        sys.exit(limit.exit_code)
