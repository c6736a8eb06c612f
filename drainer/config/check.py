"""`config --check`: whether a drain or a watch can work with this configuration.

It reads what the configuration names, and sends nothing.
"""

import shutil
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.config.build.routes import make_route
from drainer.config.build.rules import make_rules
from drainer.config.build.spools import make_sources
from drainer.config.primary import BY_MX
from drainer.config.route_section import route_configs
from drainer.config.scan import ScannerSection
from drainer.errors import DrainerError, UsageError
from drainer.ledger import engine
from drainer.ledger.reader import LedgerReader
from drainer.mail.reply import printable
from drainer.policy.breaker.remedies import NO_KNOWN_GOOD
from drainer.runtime import databases
from drainer.runtime.private_files import read_private
from drainer.smtp.hosts import all_hosts, at_host

OK, WARN, FAIL = "ok", "warn", "fail"
_SECRET_FILES = (
    "password_file", "token_file", "hmac_file", "urls_file", "dkim_key_file", "tls_key"
)  # fmt: skip
_REFUSED_FILES = ("[hook] token_file", "[hook] hmac_file", "[hook] operator_token_file")
"""What the watch refuses if every user can read it."""
_FILES = (*_SECRET_FILES, "tls_cert", "tls_ca")
"""How the keys end that name a file."""


class ConfigFinding(NamedTuple):
    """What was looked at, and how it is."""

    name: str
    verdict: str
    detail: str = ""
    hint: str = ""


def check_config(config: Config) -> Iterator[ConfigFinding]:
    """Yield a finding for each thing that the configuration names."""
    for each in route_configs(config):
        at = "" if each is config else f" of {each.primary.domains[0]}"
        yield from _route(each, at)
    for section in config.routes:
        yield from _files(f"[[routes]] {section.domains[0]}", section)
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, BaseModel):
            yield from _files(f"[{name}]", section)
    for name, scanner in config.scan.items():
        yield _try(f"[scan.{name}]", partial(_scanner, scanner))
    for name in config.sources:
        yield _try(f"[sources.{name}]", partial(_source, config, name))
    yield _try("[ledger]", lambda: _ledger(config))


def _route(config: Config, at: str) -> Iterator[ConfigFinding]:
    """Yield what a route names; ``at`` tells the tables of [[routes]] apart."""
    primary = config.primary
    if primary.is_named:
        yield _try(f"[primary] host{at}", lambda: _hosts(config))
    else:
        hint = "set it, or give --to with every command"
        yield ConfigFinding("[primary] host", WARN, "it is empty", hint)
    if primary.rules:
        yield _try(f"[primary] rules{at}", lambda: f"{len(make_rules(config))} rules")
    yield _presence(f"[primary] domains{at}", primary.domains, _ALL_DOMAINS)
    yield _presence(f"[health] accept{at}", config.health.accept, NO_KNOWN_GOOD)


def _hosts(config: Config) -> str:
    if config.primary.hosts == BY_MX:
        return "the MX records of the domains"
    route = make_route(config)  # reads the files that it names
    return ", ".join(str(at_host(route, each)) for each in all_hosts(route))


_ALL_DOMAINS = "drainer sends mail for every domain: name those of the primary"


def _try(name: str, look: Callable[[], str]) -> ConfigFinding:
    try:
        return ConfigFinding(name, OK, look())
    except DrainerError as error:
        return ConfigFinding(name, FAIL, str(error), error.hint)


def _presence(name: str, values: tuple[str, ...], hint: str) -> ConfigFinding:
    if values:
        return ConfigFinding(name, OK, ", ".join(values))
    return ConfigFinding(name, WARN, "it is empty", hint)


def _source(config: Config, name: str) -> str:
    return ", ".join(source.url for source in make_sources(config, [name], []))


def _scanner(section: ScannerSection) -> str:
    if not section.command:
        return section.place
    found = shutil.which(section.command[0])
    if found is None:
        message = f"there is no program {printable(section.command[0])}"
        raise UsageError(message, hint="name it by its whole path")
    return found


def _ledger(config: Config) -> str:
    url = ledger_url(config)
    if engine.is_file(url) and engine.file_id(url) is None:
        return f"{databases.safe_url(url)}: the first drain makes it"
    with LedgerReader(url):
        return databases.safe_url(url)


def _files(section: str, keys: BaseModel) -> Iterator[ConfigFinding]:
    for key in type(keys).model_fields:
        value = getattr(keys, key)
        if key.endswith(_FILES) and isinstance(value, str) and value:
            is_secret = key.endswith(_SECRET_FILES)
            yield _file(f"{section} {key}", Path(value), is_secret=is_secret)


def _file(name: str, path: Path, *, is_secret: bool) -> ConfigFinding:
    try:
        read_private(path)
        mode = path.stat().st_mode
    except OSError as error:
        hint = "make the file, or correct the path and its rights"
        return ConfigFinding(name, FAIL, f"{path}: {error.strerror}", hint)
    if is_secret and mode & stat.S_IRWXO:
        detail = f"every user of this host can read or write {path}"
        verdict = FAIL if name in _REFUSED_FILES else WARN
        return ConfigFinding(name, verdict, detail, f"chmod o= {path}")
    return ConfigFinding(name, OK, str(path))
