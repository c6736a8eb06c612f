"""`init` writes a commented drainer.toml; `config` prints what is in force."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import clean, print_json, say, stdout
from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.config.build.routes import make_route_table, route_name
from drainer.config.build.server_routes import exim_toml, postfix_toml
from drainer.config.check import FAIL, ConfigFinding, check_config
from drainer.config.host import is_socket
from drainer.config.render import render_toml
from drainer.config.route_section import route_configs
from drainer.delivery.mx_hosts import with_mx_hosts
from drainer.errors import UsageError
from drainer.mail.envelope import domain_of
from drainer.mail.reply import printable
from drainer.policy.admission.routes import OTHERS
from drainer.runtime import databases
from drainer.runtime.private_files import remove_private, rename_private, write_private
from drainer.runtime.redaction import is_secret, redact_all


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("drainer.toml"),
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite an existing file.")
    ] = False,
    from_postfix: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Write the routes that the Postfix with this configuration directory"
            " knows, for you to review.",
        ),
    ] = "",
    from_exim: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Write the routes that Exim has by this configuration file, for you"
            " to review.",
        ),
    ] = "",
) -> None:
    """Write a configuration file with every key, its default and its meaning.

    With --from-postfix or --from-exim it writes only what that server knows.

    Example: drainer init /etc/drainer/drainer.toml
    """
    if from_postfix and from_exim:
        raise UsageError("give --from-postfix or --from-exim, not both")
    text = _text(from_postfix, from_exim)
    try:
        _write(path, text.encode(), force=force)
    except FileExistsError:
        message = f"{path} exists"
        raise UsageError(message, hint="give another path, or use --force") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    if from_postfix or from_exim:
        say(f"wrote {path}; review it, then run `drainer check`")
        return
    say(f"wrote {path}; it lists every key, commented out, with its default")


def _text(from_postfix: str, from_exim: str) -> str:
    if from_exim:
        return exim_toml(from_exim)
    return postfix_toml(from_postfix) if from_postfix else render_toml()


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
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    route: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Print which route an address takes, and why."
        ),
    ] = "",
    *,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Check what it names: primary, files, sources, ledger."
        ),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Print the configuration in force (file, environment, flags) without secrets.

    It is TOML that drainer can read again, except for the secrets. With --route it
    prints which route an address takes instead.

    Exit status of --check: 0 usable; 2 something must be corrected.

    Example: drainer config --check --config /etc/drainer/drainer.toml
    """
    known = load(path, ledger=ledger, acts=check)
    if check:
        raise typer.Exit(_show_check(list(check_config(known)), as_json=json_))
    if route:
        _explain_route(known, route, as_json=json_)
        return
    facts: dict[str, Any] = redact_all(known.model_dump(mode="json"))
    routes = facts.pop("routes")
    facts["ledger"]["url"] = databases.safe_url(ledger_url(known))
    own = [{k: v for k, v in each.items() if v is not None} for each in routes]
    if json_:
        print_json(facts | {"routes": own})
        return
    typer.echo(f"# file: {known.file.absolute() if known.file else 'none'}")
    tables = {
        f"{group}.{json.dumps(name)}": each
        for group in ("scan", "sources")
        for name, each in facts.pop(group).items()
    }
    for name, table in {**facts, **tables}.items():
        _print_table(f"[{name}]", table)
    for table in own:
        _print_table("[[routes]]", table)
    for each in route_configs(known) if own else ():
        typer.echo(f"# route {_route_words(each, known)}")


def _route_words(route: Config, whole: Config) -> str:
    """Return what results for a route from its table and the sections."""
    primary = route.primary
    login = f"login as {primary.username}" if primary.username else "no login"
    if whole.primary.username and not primary.username:
        login += " (that of [primary] is for its own hosts)"
    domains = ", ".join(primary.domains) or "every other domain"
    is_plain = primary.tls == "off" or is_socket(route_name(route))
    tls = "no TLS" if is_plain else f"TLS {primary.tls}"
    return (
        f"{route_name(route)} for {domains}: {primary.protocol.upper()}, {tls},"
        f" {login}, at most {primary.connections} connections and"
        f" {route.throttle.rate}"
    )


def _print_table(header: str, table: Mapping[str, Any]) -> None:
    """Print the keys of a table as TOML; a secret only as a comment."""
    typer.echo(header)
    for key, value in table.items():
        if value is not None:
            hidden = "# " if value and is_secret(key) else ""
            typer.echo(f"{hidden}{key} = {_toml(value)}")
    typer.echo("")


def _explain_route(known: Config, address: str, *, as_json: bool) -> None:
    domain = domain_of(address) or address.lower()
    whole, no_route, unanswered, _ = with_mx_hosts(known)
    table = make_route_table(whole, no_route, unanswered)
    entry = table.find(domain)
    name = table.route_of(domain)
    if domain in unanswered:
        why = unanswered[domain]
    elif entry == OTHERS:
        why = "no other route names its domain"
    elif entry is not None:
        why = f"its route names {entry}"
    else:
        why = no_route.get(domain, "no route names its domain: drainer holds its mail")
    if as_json:
        print_json({"address": address, "route": name, "entry": entry, "why": why})
    else:
        typer.echo(f"{printable(address)}: {name or 'no route'}; {why}")


def _toml(value: Any) -> str:  # noqa: ANN401 - as JSON has it
    """Return a value as TOML writes it: as JSON, but for tables."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return (
            f"{{ {', '.join(f'{key} = {_toml(v)}' for key, v in value.items() if v)} }}"
        )
    return json.dumps(value, ensure_ascii=False)


def _show_check(findings: Sequence[ConfigFinding], *, as_json: bool) -> int:
    """Print the findings; return the exit status."""
    console = stdout()
    for each in findings:
        if as_json:
            print_json(each._asdict())
            continue
        console.print(
            f"{each.verdict:<4}  {clean(each.name)}: {clean(each.detail, 500)}"
        )
        if each.hint:
            console.print(f"      {clean(each.hint, 500)}")
    return 2 if any(each.verdict == FAIL for each in findings) else 0
