"""Find and load the configuration; errors name the line."""

import logging
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_settings import SettingsError

from drainer.config import Config
from drainer.config.host import split_server
from drainer.config.primary import PrimarySection
from drainer.config.route_section import PRIMARY_OWN
from drainer.config.telemetry import origin_of
from drainer.config.trust import read_trusted
from drainer.errors import UsageError
from drainer.runtime.redaction import is_secret, redact, redact_url

_log = logging.getLogger(__name__)

_PREFIX = "DRAINER_"
PLACES = (Path("drainer.toml"), Path("/etc/drainer/drainer.toml"))


def find(explicit: Path | None) -> Path | None:
    """Return the file to read: the named one, else the first that exists.

    Raises UsageError when the named one is absent, or this user may not look for one.
    """
    if explicit is not None:
        if not _is_file(explicit):
            message = f"there is no configuration file {explicit}"
            raise UsageError(message, hint="`drainer init` writes one")
        return explicit
    return next((place for place in PLACES if _is_file(place)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        message = f"cannot read the configuration {path}: {error.strerror}"
        hint = (
            "run drainer as root or as its service's user, or name a file of yours with"
            " --config (`drainer init` writes one)"
        )
        raise UsageError(message, hint=hint) from None


def load(explicit: Path | None, overrides: Mapping[str, Any]) -> Config:
    """Load file and environment; ``overrides`` are the flags, section by section.

    Raises UsageError naming file, line, key and the legal values.
    """
    path = find(explicit)
    text, values = _read(path) if path else ("", {})
    _check_environment()
    known = {"file": path, "values": values, "__doc__": Config.__doc__}
    bound = type("BoundConfig", (Config,), known)
    given = _flag_values(overrides)
    try:
        if "host" in overrides.get("primary", {}):
            given["primary"] = _drop_login(bound, given["primary"])
        config: Config = bound(**given)
    except ValidationError as error:
        raise _explain(error, _Origin(path, text, overrides)) from None
    except SettingsError as error:
        raise _explain_environment(error) from None
    return config


def _flag_values(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the flags set; an empty ``routes`` means one route only."""
    given = {k: v for k, v in overrides.items() if v}
    return (
        given | {"routes": (), "primary": {"hosts": ()} | given.get("primary", {})}
        if "routes" in overrides
        else given
    )


def _drop_login(bound: type[Config], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags for ``--to``; the login of another server does not go there.

    A login without a host of its own is for the server that ``--to`` names. So is one
    whose user name is a flag.
    """
    with suppress(ValidationError):
        known = bound().primary
        hosts = {split_server(each)[0].lower() for each in known.named_hosts}
        if hosts and given["host"].lower() not in hosts and "username" not in given:
            if known.username:
                _log.warning(
                    f"no login at {given['host']}: that of [primary] is for its own"
                    " host; give --username and --password-file"
                )
            fields = PrimarySection.model_fields
            return {key: fields[key].default for key in PRIMARY_OWN} | dict(given)
    return dict(given)


def _check_environment() -> None:
    """Refuse variables of an unknown section, because the name is probably misspelt."""
    for name in os.environ:
        section, separator, _ = name.upper().removeprefix(_PREFIX).partition("__")
        ours = name.upper().startswith(_PREFIX) and separator
        if ours and section.lower() not in Config.model_fields:
            known = ", ".join(Config.model_fields)
            message = f"environment {name}: unknown section; legal here: {known}"
            raise UsageError(message, hint="`drainer init` shows every key")


def _explain_environment(error: SettingsError) -> UsageError:
    """Name the environment variables at fault: pydantic names only the section."""
    found = re.search(r'field "(\w+)"', str(error))
    start = f"{_PREFIX}{found[1] if found else ''}".upper()
    names = [name for name in os.environ if name.upper().startswith(start)]
    message = f"environment {', '.join(names)}: cannot read a value"
    return UsageError(message, hint='write lists as JSON: \'["1m", "2m"]\'')


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = read_trusted(path).decode()
        values = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    return text, values


class _Origin(NamedTuple):
    path: Path | None
    text: str
    flags: Mapping[str, Any]


def _explain(error: ValidationError, origin: _Origin) -> UsageError:
    lines = []
    for problem in error.errors():
        keys = [str(part) for part in problem["loc"]]
        where = _where(keys, origin)
        name = ".".join(key for key in keys if not key.isdigit())
        lines.append(f"{where}: {name or 'configuration'}: {_words(problem, keys)}")
    return UsageError("\n".join(lines), hint="`drainer init` shows every key")


def _words(problem: Any, keys: Sequence[str]) -> str:  # noqa: ANN401
    kind, message = problem["type"], problem["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = ", ".join(_known_keys(keys[:-1]))
        return f"unknown key; legal here: {known}"
    if kind == "tuple_type":
        return 'write a list, such as ["a", "b"]'
    given = problem.get("input")
    if any(map(is_secret, keys)) or not isinstance(given, str | int | float):
        return f"{message[0].lower()}{message[1:]}"
    shown = redact_url(given) if isinstance(given, str) else given
    return f"{redact(message[0].lower() + message[1:])} (got {shown!r})"


def _known_keys(keys: Sequence[str]) -> list[str]:
    """Return the keys of a table; the name or number of a table is passed over."""
    model: Any = Config
    for key in keys:
        if not isinstance(model, type):  # a collection of tables
            model = next((t for t in get_args(model) if hasattr(t, "model_fields")), 0)
        elif field := getattr(model, "model_fields", {}).get(key):
            model = field.annotation
    known = getattr(model, "model_fields", {})
    return sorted(known)


def _where(keys: Sequence[str], origin: _Origin) -> str:
    """Return where a key was set: a flag, the environment, or file and line."""
    section, key = (keys[0], keys[1] if len(keys) > 1 else "") if keys else ("", "")
    path, text, flags = origin
    if path is not None and key.isdigit() and (start := _table(section, key, text)):
        rest = "\n".join(text.splitlines()[start - 1 :])
        return f"{path}:{start - 1 + _line(section, ''.join(keys[2:3]), rest)}"
    if key and key in flags.get(section, {}):
        return f"--{key.replace('_', '-')}"
    name = f"DRAINER_{section}__{key}".upper()
    if any(known.upper() == name for known in os.environ):
        return f"environment {name}"
    if section == "telemetry" and (variable := origin_of(key)):
        return f"environment {variable}"
    line = _line(section, key, text)
    if path is not None and line:
        return f"{path}:{line}"
    if key:
        return f"--{key}"
    if path is not None:
        return str(path)
    return "flags and environment"  # a rule of several keys


def _table(section: str, number: str, text: str) -> int:
    """Return the number of the line of a [[section]] header; 0 = there is none."""
    header = re.compile(rf"\s*\[\[\s*{re.escape(section)}\s*\]\]")
    lines = enumerate(text.splitlines(), 1)
    found = [place for place, line in lines if header.match(line)]
    return found[int(number)] if int(number) < len(found) else 0


def _line(section: str, key: str, text: str) -> int:
    """Return the number of the line that sets a key; 0 = no line does."""
    current = ""
    header = 0
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            current = match[1]
            if current.split(".")[0] == section:
                header = header or number
        elif match := re.match(r"\s*\"?([A-Za-z0-9_.-]+)\"?\s*=", line):
            dotted = f"{current}.{match[1]}" if current else match[1]
            if key and f"{dotted}.".startswith(f"{section}.{key}."):
                return number
            if dotted == section:
                return number
    return header
