"""The ``drainer`` command: parse, wire, call, print, exit code."""

import io
import sys

import typer

from drainer import __version__
from drainer.cli import (
    bounces,
    check,
    classify,
    configure,
    digest,
    drain,
    inspect,
    operate,
    quarantine,
    spool,
    status,
    verify,
)
from drainer.cli.output import explain
from drainer.errors import DrainerError
from drainer.helper import allow_fork

EXIT_STATUS = """Exit status: 0 every recipient is final; 1 a defect of drainer or an
unwritable ledger; 2 usage or configuration; 3 the primary is not ready, nothing was
sent; 4 stopped because the primary refuses us; 5 finished, but recipients remain;
6 another drain owns this source; 130 interrupted, run it again to go on."""

app = typer.Typer(
    name="drainer",
    help="Drain a backup MX's spool to the primary mail server.",
    epilog=" ".join(EXIT_STATUS.split()),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for module in (
    configure,
    check,
    inspect,
    drain,
    status,
    operate,
    quarantine,
    digest,
    bounces,
    classify,
    verify,
    spool,
):
    module.register(app)


@app.callback(invoke_without_command=True)
def _root(
    *,
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    if version:
        typer.echo(f"drainer {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command; map our errors to exit codes.

    SIGPIPE stays ignored, as Python has it: sockets would raise it too, and a
    primary that hangs up must not end the drain.
    """
    allow_fork()
    if isinstance(sys.stdout, io.TextIOWrapper):  # an address may have any character
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except DrainerError as error:
        sys.exit(explain(error))
