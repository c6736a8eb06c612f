"""`init` writes a commented drainer.toml; `config` prints what is in force."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import print_json, say
from drainer.config.build.paths import ledger_url
from drainer.config.render import commented_toml
from drainer.errors import UsageError
from drainer.runtime import databases
from drainer.runtime.private_files import remove_private, rename_private, write_private
from drainer.runtime.redaction import redact_all


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("init")(init)
    app.command("config")(config)


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("drainer.toml"),
    *,
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
) -> None:
    """Write a configuration file with every key, its default and its meaning.

    Example: drainer init /etc/drainer/drainer.toml
    """
    try:
        _write(path, commented_toml().encode(), force=force)
    except FileExistsError:
        message = f"{path} exists"
        raise UsageError(message, hint="give another path, or use --force") from None
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise UsageError(message) from None
    say(f"wrote {path}; it lists every key, commented out, with its default")


def _write(path: Path, data: bytes, *, force: bool) -> None:
    """Write a new file; with ``force``, replace an existing one."""
    if not force:
        write_private(path, [data])
        return
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    write_private(new, [data])
    try:
        rename_private(new, path.name)
    except BaseException:
        remove_private(new)
        raise


def config(
    path: ConfigOption = None, ledger: LedgerOption = "", *, json_: JsonOption = False
) -> None:
    """Print the configuration in force: file, environment and flags; without secrets.

    Example: drainer config --json | jq .throttle
    """
    known = load(path, ledger=ledger)
    facts: dict[str, Any] = redact_all(known.model_dump(mode="json"))
    facts["ledger"]["url"] = databases.shown(ledger_url(known))
    if json_:
        print_json(facts)
        return
    for section, keys in facts.items():
        typer.echo(f"[{section}]")
        for key, value in keys.items():
            typer.echo(f"{key} = {json.dumps(value, ensure_ascii=False)}")
        typer.echo("")
