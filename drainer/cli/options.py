"""The options that many commands share, and the configuration behind them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from drainer.cli.completion import complete_id, complete_source
from drainer.cli.log_addresses import show_as_configured
from drainer.cli.output import say
from drainer.config import Config
from drainer.config import load as config_file
from drainer.config.host import split_server

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file. Default: ./drainer.toml, then"
        " /etc/drainer/drainer.toml; none is needed. You or root must own it.",
        dir_okay=False,
    ),
]
LedgerOption = Annotated[
    str,
    typer.Option(
        "--ledger",
        "-l",
        help="Ledger: a path or a database URL. Default: [ledger] url, else"
        " /var/lib/drainer/ledger.db for root, ~/.local/state/drainer/ledger.db for"
        " others.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON for scripts on stdout.")
]


def source_argument(about: str, metavar: str = "SOURCE") -> Any:  # noqa: ANN401 - Typer's
    """Return an argument that names sources; a shell completes it."""
    return typer.Argument(
        metavar=metavar, autocompletion=complete_source, help=about, show_default=False
    )


SourcesArgument = Annotated[
    list[str],
    source_argument(
        "postfix:live, postfix:DIR, maildir:DIR, exim:DIR or another kind, a folder,"
        " the URL of a database, or the name of a [sources.NAME] table."
    ),
]
IdArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        autocompletion=complete_id,
        help="A drainer id or prefix, a queue id, or a Message-ID.",
    ),
]
ReasonOption = Annotated[
    str, typer.Option("--reason", "-r", help="Reason; recorded with the decision.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Only print what it would do.")
]
NoCheckOption = Annotated[
    bool, typer.Option("--no-check", help="Do not check the primary first.")
]
ToOption = Annotated[
    str,
    typer.Option(
        "--to",
        "-t",
        metavar="HOST[:PORT]",
        help="The primary to deliver to; unix:PATH for LMTP. Default: [primary] host.",
    ),
]


def load(
    path: Path | None,
    *,
    to: str = "",
    ledger: str = "",
    sections: dict[str, dict[str, Any]] | None = None,
    acts: bool = False,
) -> Config:
    """Load the configuration and apply the flags; UsageError if it is invalid.

    ``acts``: the command does more than print, so it names the file on stderr.
    """
    over: dict[str, dict[str, Any]] = {k: dict(v) for k, v in (sections or {}).items()}
    if to:
        host, port = split_server(to)
        over["routes"] = {}
        over.setdefault("primary", {})["host"] = host
        over["primary"]["port"] = port  # None: not that of the file, but the default
    if ledger:
        over.setdefault("ledger", {})["url"] = ledger
    known = config_file.load(path, over)
    show_as_configured(known)
    if acts and known.file is not None:
        say(f"configuration: {known.file.absolute()}")
    return known
