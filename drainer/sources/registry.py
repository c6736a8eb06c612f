"""Which source a URL means: one line per spool format.

A URL is ``SCHEME:PATH``, and ``?name=value`` behind it sets options of the
source, as a ``[sources.NAME]`` table does. A plain path is looked at. The path of
a format that is a directory may be an archive of one.
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
    "postfix": "postfix.source",
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
"""The module of each format: what it calls FORMAT is loaded when it is asked for."""

SCHEMES = tuple(_MODULES)
"""What may stand before the colon of a source."""


def open_source(
    url: str,
    *,
    options: Mapping[str, object],
    base: Path | None = None,
    listing: bool = False,
    queues: Sequence[str] = (),
) -> Source:
    """Return the source that a URL or a plain path means.

    Options of the URL win over those given. A relative path starts from
    ``base``, by default the current directory. A source for ``listing`` shows
    also what a drain leaves alone unless it is asked for: Postfix's hold.
    ``queues`` are read instead of the usual ones where a format has a choice.

    Raises UsageError for what is not understood, SourceError for what cannot be
    read.
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
        raise UsageError(message, hint=f"known are {', '.join(SCHEMES)}")
    chosen, place = _chosen(scheme, path)
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


def _chosen(scheme: str, path: str) -> tuple[SourceFormat, str | None]:
    """Return the format and its path, which is None for a name that has none."""
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
    """Part our options from those of the database's driver, which stay in the URL."""
    theirs = {name: value for name, value in asked.items() if name not in ours}
    bare = url.partition("?")[0]
    mine = {name: value for name, value in asked.items() if name in ours}
    return (f"{bare}?{urlencode(theirs)}" if theirs else bare), mine


def _absolute(path: str, base: Path | None) -> Path:
    return Path(base or "", path).absolute()


def _detect(path: Path) -> str:
    """Tell the format of a directory by what it contains."""
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
    hint = f"say it: {' or '.join(f'{scheme}:{path}' for scheme in found or SCHEMES)}"
    raise SourceError(message, hint=hint)


def _keywords(
    scheme: str, legal: Mapping[str, SourceOption], given: Mapping[str, object]
) -> dict[str, Values]:
    """Check options by name and value; return what the format is called with."""
    keywords: dict[str, Values] = {}
    for name, value in given.items():
        option = legal.get(name)
        if option is None:
            message = f"{scheme} has no option {name!r}"
            raise UsageError(message, hint=f"legal are {', '.join(legal)}")
        values = _values(value, is_list=option.is_list)
        for each in values:
            if not isinstance(each, str) or (option.legal and each not in option.legal):
                message = f"{scheme}: {name} cannot be {each!r}"
                hint = f"legal are {', '.join(option.legal)}" if option.legal else ""
                raise UsageError(message, hint=hint or "it is a text")
        texts = tuple(map(str, values))
        keywords[option.keyword] = texts if option.is_list else texts[0]
    return keywords


def _values(value: object, *, is_list: bool) -> tuple[object, ...]:
    """Return what an option lists; a list may be written as a text with commas."""
    if is_list and isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if is_list and isinstance(value, list | tuple):
        return tuple(value)
    return (value,)


def _as_text(value: object) -> object:
    """Return a number or a boolean, or a list of them, as a URL would have it."""
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return str(value).lower() if isinstance(value, int) else value
