"""The lists of recipients as the operator names them."""

from datetime import timedelta

from msgspec import Struct

UNREADABLE = (
    "make it readable, or correct [recipients] lists or --known, then run the same"
    " command again; `drainer drain --no-census` goes without lists"
)
"""What to do when a list cannot be read."""


class ListSpec(Struct, frozen=True, kw_only=True):
    """A list, and what its kind needs; docs/census.md has the kinds."""

    #: A path, a Postfix table, a URL, or command:PROGRAM.
    url: str
    #: Of a database: a statement that returns addresses in its first column.
    query: str = ""
    #: Of LDAP: where to search, for what, and which attributes have addresses.
    base: str = ""
    filter: str = ""
    attributes: tuple[str, ...] = ()
    bind_dn: str = ""
    #: A file with the password of the database, or of ``bind_dn``.
    password_file: str = ""


class DirectorySpec(Struct, frozen=True, kw_only=True):
    """All lists of a drain, and what they are worth."""

    lists: tuple[ListSpec, ...]
    #: A list that was changed longer ago says nothing.
    max_age: timedelta
    #: The characters that start a tag.
    delimiters: str = "+"
