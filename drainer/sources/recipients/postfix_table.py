"""A list in a table of Postfix, read with postmap(1).

Types that can be listed are read as a whole. Others are asked: patterns, databases and
servers of which only Postfix's own lookup is known.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from drainer.policy.census.address_table import AddressTable, add_lines, refuses
from drainer.sources.recipients.asked_list import AskedList
from drainer.sources.recipients.program import run_program
from drainer.sources.recipients.recipient_list import (
    LoadedList,
    RecipientList,
)

_SUFFIXES = {
    "hash": ".db",
    "btree": ".db",
    "lmdb": ".lmdb",
    "cdb": ".cdb",
    "dbm": ".pag",
    "sdbm": ".pag",
    "texthash": "",
}
"""Types that can be listed, with what Postfix adds to the name of their file."""
_PATTERNS = ("pcre", "regexp")
_NOT_FOUND = 1
"""Exit status of postmap(1) if a table has none of the keys, or no entry."""


def open_postfix_table(kind: str, name: str, delimiters: str) -> RecipientList:
    """Return the list that a table has; raise UsageError if postmap(1) cannot read it.

    The age of a table in a file is that of the file. Others are always current.
    """
    url = f"{kind}:{name}"
    table = AddressTable(url, delimiters)
    is_file = kind in _SUFFIXES or kind in _PATTERNS
    path = Path(name + _SUFFIXES.get(kind, "")) if is_file else None
    if kind in _SUFFIXES:
        lines = run_program(["postmap", "-s", url], fails_with=_NOT_FOUND)
        return LoadedList(table, add_lines(table, lines), path)
    return AskedList(table, partial(_ask, url), path)


def _ask(url: str, keys: Sequence[str]) -> Iterator[str]:
    """Yield the keys that a table has, but those that it refuses."""
    text = "".join(f"{key}\n" for key in keys)
    command = ["postmap", "-q", "-", url]
    for line in run_program(command, text, fails_with=_NOT_FOUND):
        key, _, value = line.partition("\t")
        if not refuses(value):
            yield key
