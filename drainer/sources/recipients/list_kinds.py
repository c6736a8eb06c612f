"""Open the list of recipients that a line of the configuration names."""

from pathlib import Path

from msgspec import Struct

from drainer.errors import UsageError
from drainer.runtime.redaction import redact_url
from drainer.sources.recipients.file import read_file_list
from drainer.sources.recipients.recipient_list import RecipientList


class ListSpec(Struct, frozen=True, kw_only=True):
    """A list as the operator names it."""

    #: A path, or a URL of the kinds that docs/census.md has.
    url: str


def open_list(spec: ListSpec, delimiters: str) -> RecipientList:
    """Return the list; UsageError if it cannot be read."""
    kind, colon, rest = spec.url.partition(":")
    if not colon or "/" in kind:
        return read_file_list(Path(spec.url), delimiters)
    if kind == "file":
        return read_file_list(Path(rest), delimiters)
    message = f"unknown kind of list {kind!r} in {redact_url(spec.url)!r}"
    raise UsageError(message, hint="legal: a path")
