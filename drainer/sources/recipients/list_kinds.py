"""Open the list of recipients that an entry of the configuration names."""

import os
import shlex
import stat
from functools import partial
from pathlib import Path

from drainer.errors import UsageError
from drainer.policy.census.address_table import AddressTable, add_lines
from drainer.runtime.redaction import redact, redact_url
from drainer.sources.recipients.database import read_database_list
from drainer.sources.recipients.list_spec import UNREADABLE, ListSpec
from drainer.sources.recipients.postfix_table import open_postfix_table
from drainer.sources.recipients.program import run_program
from drainer.sources.recipients.recipient_list import LoadedList, RecipientList

KINDS = (
    "a path; TYPE:NAME of a Postfix table, such as hash:/etc/postfix/relay_recipients;"
    " a database URL; an ldaps:// URL; command:PROGRAM"
)
MAX_LINE_BYTES = 64 * 1024
_DATABASES = ("postgresql", "mysql", "mariadb", "sqlite")
_NO_LDAP = (
    "install libldap-dev, libsasl2-dev, python3-dev and gcc, then drainer[ldap]: it is"
    " compiled when it is installed"
)
_LDAP = ("ldap", "ldaps", "ldapi")


def open_list(spec: ListSpec, delimiters: str) -> RecipientList:
    """Return the list; UsageError if it cannot be read."""
    kind, colon, rest = spec.url.partition(":")
    scheme = kind.partition("+")[0]
    if not colon or "/" in kind:
        return _read_file_list(Path(spec.url), delimiters)
    if kind == "file":
        return _read_file_list(Path(rest.removeprefix("//")), delimiters)
    if kind == "command":
        return _read_command_list(rest, delimiters)
    if rest.startswith("//") and scheme in _DATABASES:
        return read_database_list(spec, delimiters)
    if rest.startswith("//") and scheme in _LDAP:
        return _open_ldap(spec, delimiters)
    if rest and not rest.startswith("//"):
        return open_postfix_table(kind, rest, delimiters)
    message = f"unknown kind of list of recipients: {redact_url(spec.url)!r}"
    raise UsageError(message, hint=f"legal: {KINDS}")


def _read_file_list(path: Path, delimiters: str) -> LoadedList:
    table = AddressTable(str(path), delimiters)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            changed = os.fstat(descriptor)
            if not stat.S_ISREG(changed.st_mode):
                raise UsageError(f"the list of recipients {path} is not a regular file")
            lines = iter(partial(file.readline, MAX_LINE_BYTES), b"")
            texts = (line.decode("utf-8-sig", "replace") for line in lines)
            ignored = add_lines(table, texts)
    except OSError as error:
        message = f"cannot read the list of recipients {path}: {error.strerror}"
        raise UsageError(message, hint=UNREADABLE) from None
    return LoadedList(table, ignored, path)


def _open_ldap(spec: ListSpec, delimiters: str) -> RecipientList:
    try:
        from drainer.sources.recipients import ldap_list  # noqa: PLC0415 - an extra
    except ImportError:
        message = f"python-ldap is not installed, for the list {redact_url(spec.url)}"
        raise UsageError(message, hint=_NO_LDAP) from None
    return ldap_list.open_ldap_list(spec, delimiters)


def _read_command_list(text: str, delimiters: str) -> LoadedList:
    """Return the list that a program prints, in lines as a file has them."""
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"cannot read command:{redact(text)}: {error}") from None
    if not command:
        message = "command: of a list of recipients names no program"
        raise UsageError(message, hint="e.g. command:/usr/local/bin/list-users")
    table = AddressTable(f"command:{command[0]}", delimiters)
    return LoadedList(table, add_lines(table, run_program(command)))
