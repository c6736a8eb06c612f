"""Find the source that a URL means: one line per spool format.

A URL is ``SCHEME:PATH``. ``?name=value`` after it sets options of the source, like a
``[sources.NAME]`` table. A plain path is recognised by its content. If a format is a
directory, its path may also be an archive of one.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from drainer.errors import SourceError, UsageError
from drainer.runtime.redaction import redact_url
from drainer.sources.archive.source import (
    DEFAULT_LIMIT,
    LIMIT_OPTION,
    is_archive,
    open_archive,
)
from drainer.sources.common.files import is_directory, unusable
from drainer.sources.protocol import Source, SourceFormat, SourceOption

Values = str | tuple[str, ...]

#: Sources that have a name instead of a path: ``KIND:NAME``, or ``KIND:NAME=PATH``.
_NAMED: Mapping[tuple[str, str], str] = {("postfix", "live"): "postfix.live"}

_MODULES: Mapping[str, str] = {
    "postfix": "postfix.spool",
    "maildir": "maildir.source",
    "exim": "exim.source",
    "sendmail": "sendmail.source",
    "haraka": "haraka.source",
    "opensmtpd": "opensmtpd.source",
    "qmail": "qmail.source",
    "mbox": "mbox.source",
    "eml": "eml.source",
    "postcat": "postcat.source",
    "sqlite": "database.source",
    "postgresql": "database.source",
    "mysql": "database.source",
    "mariadb": "database.source",
}
"""The module of each format; its FORMAT is loaded only when needed."""

SCHEMES = tuple(_MODULES)
"""The words allowed before the colon of a source."""


def open_source(
    url: str,
    *,
    options: Mapping[str, object],
    base: Path | None = None,
    listing: bool = False,
    queues: Sequence[str] = (),
) -> Source:
    """Return the source of a URL or a plain path.

    Options of the URL override those given. A relative path starts from ``base``, by
    default the current directory. With ``listing``, the source also shows messages that
    a drain sends only when asked to: Postfix's hold. ``queues`` replace the usual ones,
    if the format has several.

    Raises UsageError for an invalid URL or option, SourceError for an unreadable
    source.
    """
    scheme, colon, rest = url.partition(":")
    if colon and "/" not in scheme:
        path, _, query = rest.partition("?")
    else:
        path, query = url, ""
        scheme = _detect(_absolute(path, base))
    scheme = scheme.partition("+")[0]  # a database's driver may be named
    if scheme not in _MODULES:
        message = f"unknown kind of source {scheme!r} in {redact_url(url)!r}"
        raise UsageError(message, hint=f"known kinds: {', '.join(SCHEMES)}")
    chosen, place = _choose(scheme, path)
    if place == "":
        message = f"no path in {redact_url(url)!r}"
        raise UsageError(message, hint=f"write {scheme}:/path")
    usual = chosen.listing if listing else {}
    asked = dict(parse_qsl(query, keep_blank_values=True))
    where: object = "" if place is None else _absolute(place, base)
    if chosen.takes_url:
        where, asked = _split_query(url, asked, chosen.options)
    given = dict(usual) | dict(options) | asked
    if queues and "queues" in chosen.options:
        given["queues"] = tuple(queues)
    if isinstance(where, Path) and is_archive(where, chosen):
        limit = str(given.pop(LIMIT_OPTION, DEFAULT_LIMIT))
        keywords = _keywords(scheme, chosen.options, given)
        return open_archive(scheme, where, chosen, keywords, limit)
    if chosen.takes_url:  # values of columns are numbers as well
        given = {name: _as_text(value) for name, value in given.items()}
    keywords = _keywords(scheme, chosen.options, given)
    return chosen.make(where, **keywords)


def _choose(scheme: str, path: str) -> tuple[SourceFormat, str | None]:
    """Return the format and its path; None for a name that has no path."""
    name, equals, rest = path.partition("=")
    named = _NAMED.get((scheme, name))
    if named is None:
        return _format(_MODULES[scheme]), path
    return _format(named), rest if equals else None


def _format(module: str) -> SourceFormat:
    found: SourceFormat = importlib.import_module(f"drainer.sources.{module}").FORMAT
    return found


def _split_query(
    url: str, asked: Mapping[str, str], ours: Mapping[str, SourceOption]
) -> tuple[str, dict[str, str]]:
    """Separate our options from those of the database driver; these stay in the URL."""
    theirs = {name: value for name, value in asked.items() if name not in ours}
    bare = url.partition("?")[0]
    mine = {name: value for name, value in asked.items() if name in ours}
    return (f"{bare}?{urlencode(theirs)}" if theirs else bare), mine


def _absolute(path: str, base: Path | None) -> Path:
    return Path(base or "", path).absolute()


def _detect(path: Path) -> str:
    if not is_directory(path):
        message = f"{path} is not a directory"
        hint = f"a source is a folder, or KIND:PATH with a kind of {', '.join(SCHEMES)}"
        raise SourceError(message, hint=hint)
    try:
        found = [
            scheme
            for scheme, module in _MODULES.items()
            if _format(module).has_marks(path)
        ]
    except OSError as error:
        raise unusable(str(path), error) from error
    if len(found) == 1:
        return found[0]
    message = f"cannot tell what kind of spool {path} is"
    hint = f"name it: {' or '.join(f'{scheme}:{path}' for scheme in found or SCHEMES)}"
    raise SourceError(message, hint=hint)


def _keywords(
    scheme: str, legal: Mapping[str, SourceOption], given: Mapping[str, object]
) -> dict[str, Values]:
    """Check options by name and value; return the arguments for the format."""
    keywords: dict[str, Values] = {}
    for name, value in given.items():
        option = legal.get(name)
        if option is None:
            message = f"{scheme} has no option {name!r}"
            raise UsageError(message, hint=f"legal: {', '.join(legal)}")
        values = _values(value, is_list=option.is_list)
        for each in values:
            if not isinstance(each, str) or (option.legal and each not in option.legal):
                message = f"{scheme}: {name} cannot be {each!r}"
                hint = f"legal: {', '.join(option.legal)}" if option.legal else ""
                raise UsageError(message, hint=hint or "it must be a text")
        texts = tuple(map(str, values))
        keywords[option.keyword] = texts if option.is_list else texts[0]
    return keywords


def _values(value: object, *, is_list: bool) -> tuple[object, ...]:
    """Return the values of an option; a list may be a text with commas."""
    if is_list and isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if is_list and isinstance(value, list | tuple):
        return tuple(value)
    return (value,)


def _as_text(value: object) -> object:
    """Return a number or a boolean, or a list of them, as text for a URL."""
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return str(value).lower() if isinstance(value, int) else value
