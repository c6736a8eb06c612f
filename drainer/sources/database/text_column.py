"""Read text columns as the bytes that are stored, in each database.

A column of text that holds mail holds bytes of any charset. The database or its driver
would convert them to the charset of the connection, and refuse or change some. So
drainer asks for the bytes themselves:

- SQLite: ``CAST(x AS BLOB)``. A database in UTF-16 has no bytes of a text: drainer
  reads what SQLite makes of it, which is UTF-8.
- PostgreSQL: ``convert_to(x, getdatabaseencoding())``, which converts nothing, also in
  SQL_ASCII;
- MariaDB, MySQL: ``CAST(x AS BINARY)``. A column in UTF-16 or UTF-32 is refused.
"""

import codecs
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import sqlalchemy as sa

_CODECS: Final[Mapping[str, str]] = {
    "utf8": "utf-8", "utf8mb3": "utf-8", "utf8mb4": "utf-8", "latin1": "cp1252",
    "latin2": "iso8859-2", "latin5": "iso8859-9", "latin7": "iso8859-13",
    "greek": "iso8859-7", "hebrew": "iso8859-8", "koi8r": "koi8-r", "koi8u": "koi8-u",
    "ucs2": "utf-16-be", "utf16": "utf-16-be", "utf16le": "utf-16-le",
    "utf32": "utf-32-be", "ujis": "euc_jp", "sjis": "shift_jis", "euckr": "euc_kr",
    "tis620": "tis-620",
}  # fmt: skip
"""MariaDB's charsets by Python's names; others have the same name in both, or none."""
WIDE_CHARSETS = ("ucs2", "utf16", "utf16le", "utf32")
"""MariaDB's charsets in which not even ASCII is stored as such."""
_TEXT_OIDS: Final = frozenset((18, 19, 25, 1042, 1043))
_BYTES_OIDS: Final = frozenset((17,))
_TEXT_FIELDS: Final = frozenset((249, 250, 251, 252, 253, 254))
"""pymysql.constants.FIELD_TYPE: all texts, and the bytes too."""


def is_stored_bytes(kind: sa.types.TypeEngine[Any]) -> bool:
    """Return whether a type is text or bytes."""
    try:
        return isinstance(kind, sa.String) or kind.python_type is bytes
    except NotImplementedError:
        return False


def has_bytes(column: sa.ColumnElement[Any], dialect: str) -> bool:
    """Return whether a column must be asked for as bytes: a text; any in SQLite."""
    kind = column.type
    is_text = isinstance(kind, sa.String) and not isinstance(kind, sa.Enum)
    return is_text or dialect == "sqlite"


def bytes_of(column: sa.ColumnElement[Any], dialect: str) -> sa.ColumnElement[bytes]:
    """Return the expression for the bytes of such a column."""
    if dialect == "postgresql":
        encoding = sa.func.getdatabaseencoding()
        stored = sa.func.convert_to(sa.cast(column, sa.Text), encoding)
        return sa.type_coerce(stored, sa.LargeBinary)
    return sa.cast(column, sa.LargeBinary)


def charset_of(connection: sa.Connection, column: sa.ColumnElement[Any]) -> str:
    """Return the charset of a column's text as the database names it; '' = unknown."""
    if connection.dialect.name == "sqlite":
        return str(connection.exec_driver_sql("PRAGMA encoding").scalar())
    if connection.dialect.name == "postgresql":
        return str(connection.scalar(sa.select(sa.func.getdatabaseencoding())))
    table, name = getattr(column, "table", None), getattr(column, "name", "")
    if not isinstance(table, sa.Table):
        return ""
    query = sa.text(
        "SELECT character_set_name FROM information_schema.columns WHERE"
        " table_schema = COALESCE(:area, DATABASE()) AND table_name = :named"
        " AND column_name = :part"
    )
    names = {"area": table.schema, "named": table.name, "part": name}
    return str(connection.scalar(query, names) or "")


def codec_of(charset: str) -> str:
    """Return Python's name of a database's charset; '' if it has none."""
    name = charset.lower()
    if name.startswith("win"):  # PostgreSQL's WIN1252
        name = f"cp{name.removeprefix('win')}"
    try:
        return codecs.lookup(_CODECS.get(name, name)).name
    except LookupError:
        return ""


def is_charset(charset: str, claimed: str) -> bool:
    """Return whether a charset of Python's is the one of a column, as far as known."""
    known, other = codec_of(charset), codecs.lookup(claimed).name
    is_latin = charset.lower() == "latin1" and other == "iso8859-1"
    return not known or known == other or is_latin


def text_of(stored: bytes, charset: str) -> str:
    """Return an address or a name from its bytes: UTF-8, else the column's charset.

    Bytes that are neither stay recognisable as damaged.
    """
    codec = codec_of(charset)
    for each in (codec,) if charset in WIDE_CHARSETS else ("utf-8", codec or "utf-8"):
        with suppress(UnicodeDecodeError):
            return stored.decode(each)
    return stored.decode(errors="surrogateescape")


def type_of(dialect: str, code: object) -> sa.types.TypeEngine[Any]:
    """Return the type of a query's column by the code that the driver gives."""
    if dialect == "postgresql" and code in _BYTES_OIDS:
        return sa.LargeBinary()
    is_text = code in (_TEXT_OIDS if dialect == "postgresql" else _TEXT_FIELDS)
    return sa.Text() if is_text and dialect != "sqlite" else sa.types.NullType()
