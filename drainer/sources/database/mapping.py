"""The columns of a table of mail: the keys of a ``[sources.NAME]``, checked.

A mapping holds what the operator wrote; ``bind`` compares it with the database and
returns the columns. A wrong one is a UsageError that names the key, the column and what
was found instead.
"""

import codecs
from collections.abc import Mapping as Dict
from collections.abc import Sequence
from typing import Any, NoReturn

import sqlalchemy as sa
from msgspec import Struct, field

from drainer.errors import SourceError, UsageError
from drainer.runtime import databases
from drainer.sources.database import schema
from drainer.sources.database.text_column import (
    WIDE_CHARSETS,
    bytes_of,
    charset_of,
    has_bytes,
    is_charset,
    is_stored_bytes,
    type_of,
)

_COLUMNS = ("id", "reverse_path", "recipients", "content", "arrived")
_EXTRAS = ("client_address", "client_name", "helo", "login")
BUILT_IN_EXTRAS = (*_EXTRAS, "body", "smtputf8", "envid", "ret", "verp", "message_id")
TRY_IT = "try it in the database's own client"
_SAID = ("client_address", "client_name", "helo", "login", "state")


class TableMapping(Struct, frozen=True, kw_only=True):
    """The column of each part of a message; '' = there is none."""

    table: str = schema.spool.name
    query: str = ""
    #: Part of a message -> its column.
    columns: Dict[str, str] = field(default_factory=dict)
    recipients_format: str = "table"
    recipients_delimiter: str = ","
    recipients_table: str = schema.recipients.name
    recipients_message: str = "message"
    recipients_state: str = "state"
    recipients_pending: tuple[str, ...] = (schema.PENDING,)
    recipients_finish: str = schema.DONE
    content_charset: str = ""
    pending: tuple[str, ...] = (schema.PENDING,)
    claim: str = ""
    finish: str = schema.DONE
    fail: str = schema.FAILED
    statement: str = ""
    is_built_in: bool = True

    @property
    def name(self) -> str:
        """The table or query of the rows, for identities and leases."""
        return self.table or "query"


def mapping_of(options: Dict[str, Any]) -> TableMapping:
    """Return the mapping of these keys; without any key, the built-in spool."""
    if not options:
        extras = {name: name for name in (*BUILT_IN_EXTRAS, "state")}
        plain = {name: name for name in _COLUMNS} | {"recipients": "forward_path"}
        return TableMapping(columns=plain | extras)
    if bool(options.get("table")) == bool(options.get("query")):
        refuse("a mapping needs either table or query")
    missing = [name for name in _COLUMNS if not options.get(name)]
    if missing:
        refuse(f"the mapping does not name a column for {', '.join(missing)}")
    named = [*_COLUMNS, *(name for name in _SAID if options.get(name))]
    given = {k: v for k, v in options.items() if k not in (*_COLUMNS, *_SAID)}
    kind = given.pop(
        "recipients_format", "table" if "recipients_table" in given else ""
    )
    empty: dict[str, Any] = {
        "table": "", "recipients_table": "", "recipients_message": "",
        "recipients_state": "", "recipients_pending": (), "recipients_finish": "",
        "pending": (), "finish": "", "fail": "",
    }  # fmt: skip
    mapping = TableMapping(
        columns={name: options[name] for name in named},
        recipients_format=kind or "one",
        is_built_in=False,
        **(empty | given),
    )
    _check(mapping)
    return mapping


def _check(mapping: TableMapping) -> None:
    if mapping.recipients_format == "table" and not (
        mapping.recipients_table and mapping.recipients_message
    ):
        refuse("recipients in a table need recipients_table and recipients_message")
    if bool(mapping.recipients_state) != bool(mapping.recipients_pending):
        refuse("set both recipients_state and recipients_pending, or neither")
    if "state" in mapping.columns and not mapping.pending:
        refuse("state needs pending: the values of rows to send")
    if mapping.pending and "state" not in mapping.columns:
        refuse("pending needs state: the column for it")
    if mapping.content_charset:
        try:
            codecs.lookup(mapping.content_charset)
        except LookupError:
            refuse(f"content_charset {mapping.content_charset!r} is unknown")


def refuse(
    message: str, hint: str = "docs/sources.md shows a complete mapping"
) -> NoReturn:
    """Raise UsageError."""
    raise UsageError(message, hint=hint)


class BoundMapping(Struct, frozen=True, kw_only=True):
    """The columns of a mapping in one database."""

    source: sa.FromClause
    columns: Dict[str, sa.ColumnElement[Any]]
    children: sa.Table | None
    #: Values of the state column, of its type.
    open_states: tuple[Any, ...] = ()
    #: The charset of each text, as the database names it; '' = unknown.
    charsets: Dict[str, str] = {}
    #: Whether SQLite can read a part of a content without the rest.
    has_blobs: bool = False

    def __getitem__(self, name: str) -> sa.ColumnElement[Any]:
        """Return the column for a part of the message."""
        return self.columns[name]

    @property
    def is_open(self) -> list[sa.ColumnElement[bool]]:
        """The conditions for a row to send."""
        if "state" not in self.columns:
            return []
        return [self["state"].in_(list(self.open_states))]


def bind(connection: sa.Connection, mapping: TableMapping) -> BoundMapping:
    """Compare a mapping with the database; UsageError if they do not match."""
    found: sa.FromClause
    dialect = connection.dialect.name
    if mapping.query:
        found = _query(connection, mapping.query)
    else:
        found = _table(connection, mapping.table, built_in=mapping.is_built_in)
    columns = {}
    for part, name in mapping.columns.items():
        if part == "recipients" and mapping.recipients_format == "table":
            continue
        columns[part] = _column(found, name, part)
    if mapping.query:
        columns |= _look_at_a_row(connection, found, columns, mapping)
        content = columns["content"]
        if dialect == "postgresql" and isinstance(content.type, sa.types.NullType):
            columns["content"] = sa.type_coerce(content, sa.Text())  # citext, xml
    else:
        _check_types(columns, mapping)
        if dialect != "sqlite" and isinstance(
            columns["content"].type, sa.types.NullType
        ):
            _wrong(mapping, "content", "of an unknown type", "bytes or text")
    charset = charset_of(connection, columns["content"])
    _check_charset(columns["content"], mapping, charset)
    texts = {part: column for part, column in columns.items() if part in TEXTS}
    children = _children(connection, mapping)
    if children is not None:
        texts["forward_path"] = children.c[mapping.columns["recipients"]]
    is_each = dialect in ("mysql", "mariadb")  # elsewhere the database has one
    return BoundMapping(
        source=found,
        columns=_as_bytes(columns, dialect, charset),
        children=children,
        open_states=_open_states(connection, columns, mapping),
        charsets={
            part: charset_of(connection, column) if is_each else charset
            for part, column in texts.items()
        },
        has_blobs=_has_blobs(connection, mapping, charset),
    )


def _children(connection: sa.Connection, mapping: TableMapping) -> sa.Table | None:
    if mapping.recipients_format != "table":
        return None
    found = _table(connection, mapping.recipients_table, built_in=mapping.is_built_in)
    for key, name in _child_columns(mapping):
        _column(found, name, key)
    return found


def _open_states(
    connection: sa.Connection,
    columns: Dict[str, sa.ColumnElement[Any]],
    mapping: TableMapping,
) -> tuple[Any, ...]:
    """Return the values of the state column for rows to send; check the others."""
    if "state" not in columns:
        return ()
    for key in ("claim", "finish", "fail"):
        if text := getattr(mapping, key):
            value_of(columns["state"], text, key)
            _check_length(connection, columns["state"], text, key)
    known = (*mapping.pending, *filter(None, (mapping.claim,)))
    return tuple(value_of(columns["state"], text, "pending") for text in known)


TEXTS = ("reverse_path", "recipients", *_EXTRAS)
"""Parts that are read as bytes if they are text, and decoded by text_of."""


def _as_bytes(
    columns: Dict[str, sa.ColumnElement[Any]], dialect: str, charset: str
) -> dict[str, sa.ColumnElement[Any]]:
    """Return the columns, with the bytes of those that are text."""
    parts: tuple[str, ...] = ("content", *TEXTS)
    if dialect == "sqlite":
        parts = ("content",) if charset == "UTF-8" else ()
    return {
        part: bytes_of(column, dialect)
        if part in parts and has_bytes(column, dialect)
        else column
        for part, column in columns.items()
    }


def _has_blobs(connection: sa.Connection, mapping: TableMapping, charset: str) -> bool:
    """Return whether a content of an SQLite table can be opened by its row id."""
    tables = sa.inspect(connection).get_table_names()
    is_sqlite = connection.dialect.name == "sqlite" and charset == "UTF-8"
    if not is_sqlite or mapping.table not in tables:
        return False
    quoted = connection.dialect.identifier_preparer.quote(mapping.table)
    try:
        connection.exec_driver_sql(f"SELECT rowid FROM {quoted} LIMIT 0")  # noqa: S608
    except sa.exc.DBAPIError:  # a table without row ids
        return False
    return True


def _check_charset(
    content: sa.ColumnElement[Any], mapping: TableMapping, charset: str
) -> None:
    """Refuse a text that has no bytes, and a charset that is not the column's."""
    if charset in WIDE_CHARSETS:
        hint = "use a query with CAST(CONVERT(x USING utf8mb4) AS BINARY)"
        _wrong(mapping, "content", content.type, f"bytes, not {charset}", hint)
    claimed = mapping.content_charset
    is_text = isinstance(content.type, sa.String)
    if claimed and is_text and not is_charset(charset, claimed):
        message = f"content_charset = {claimed!r}: the text is stored in {charset}"
        hint = "leave it out: drainer reads the bytes as they are stored"
        raise UsageError(message, hint=hint)


def _check_length(
    connection: sa.Connection, column: sa.ColumnElement[Any], text: str, key: str
) -> None:
    """Refuse a value that does not fit the column; SQLite has no limit."""
    length = getattr(column.type, "length", None)
    if length and len(text) > length and connection.dialect.name != "sqlite":
        message = f"{key} = {text!r} does not fit the column, which is {column.type!r}"
        raise UsageError(message, hint="choose a shorter value")


def _child_columns(mapping: TableMapping) -> Sequence[tuple[str, str]]:
    pairs = (
        ("recipients", mapping.columns["recipients"]),
        ("recipients_message", mapping.recipients_message),
        ("recipients_state", mapping.recipients_state),
    )
    return [(key, name) for key, name in pairs if name]


def _table(connection: sa.Connection, name: str, *, built_in: bool) -> sa.Table:
    area, _, bare = name.rpartition(".")
    try:
        return sa.Table(
            bare, sa.MetaData(), schema=area or None, autoload_with=connection,
            resolve_fks=False,
        )  # fmt: skip
    except sa.exc.NoSuchTableError:
        if built_in:
            message = f"there is no spool in this database: no table {name}"
            hint = "`drainer spool create URL` creates one; or map a table of yours"
            raise SourceError(message, hint=hint) from None
        tables = sorted(sa.inspect(connection).get_table_names(schema=area or None))
        raise UsageError(
            (f"there is no table {name!r}; found: {', '.join(tables[:20]) or 'none'}"),
            hint="name it as table, or SCHEMA.TABLE",
        ) from None


def _query(connection: sa.Connection, query: str) -> sa.FromClause:
    text = query.strip().rstrip(";")
    try:
        result = connection.execute(
            sa.text(f"SELECT * FROM ({text}) AS mail WHERE 1 = 0")  # noqa: S608 - theirs
        )
    except sa.exc.DBAPIError as error:
        message = f"the query of the mapping fails: {databases.reason(error)}"
        raise UsageError(message, hint=TRY_IT) from None
    dialect, described = connection.dialect.name, result.cursor.description
    columns = (sa.column(each[0], type_of(dialect, each[1])) for each in described)
    return sa.text(text).columns(*columns).subquery("mail")


def _column(found: sa.FromClause, name: str, key: str) -> sa.ColumnElement[Any]:
    if name not in found.c:
        columns = ", ".join(found.c.keys())
        message = f"{key} = {name!r}: there is no such column; found: {columns}"
        raise UsageError(message, hint="names must match exactly, including case")
    return found.c[name]


def _check_types(
    columns: Dict[str, sa.ColumnElement[Any]], mapping: TableMapping
) -> None:
    content = columns["content"].type
    if not (is_stored_bytes(content) or isinstance(content, sa.types.NullType)):
        _wrong(mapping, "content", content, "bytes or text")
    if columns["id"].type.python_type in (bytes, float, bool):
        _wrong(mapping, "id", columns["id"].type, "a whole number, text or UUID")
    kind = mapping.recipients_format
    if kind == "array" and not isinstance(columns["recipients"].type, sa.ARRAY):
        _wrong(mapping, "recipients", columns["recipients"].type, "an array")
    texts = ("reverse_path", "recipients")
    for key in texts if kind in ("one", "delimited") else texts[:1]:
        if not isinstance(columns[key].type, (sa.String, sa.BINARY, sa.VARBINARY)):
            _wrong(mapping, key, columns[key].type, "text")
    fits = (sa.DateTime, sa.Integer, sa.Numeric, sa.String)
    if not isinstance(columns["arrived"].type, fits):
        _wrong(mapping, "arrived", columns["arrived"].type, "a time")


def _wrong(
    mapping: TableMapping, key: str, found: object, wanted: str, hint: str = ""
) -> NoReturn:
    name = mapping.columns[key]
    message = f"{key} = {name!r}: the column is {found!r}, it must be {wanted}"
    raise UsageError(message, hint=hint or "map another column, or use a query")


def _look_at_a_row(
    connection: sa.Connection,
    found: sa.FromClause,
    columns: Dict[str, sa.ColumnElement[Any]],
    mapping: TableMapping,
) -> dict[str, sa.ColumnElement[Any]]:
    """Check a query by its first row, as it has no types; return typed id and state."""
    typed = [name for name in ("id", "state") if name in columns]
    query = sa.select(columns["content"], *(columns[name] for name in typed))
    row = connection.execute(query.select_from(found).limit(1)).first()
    if row is None:
        return {}
    if not isinstance(row[0], bytes | str | memoryview | None):
        _wrong(mapping, "content", type(row[0]).__name__, "bytes or text")
    return {
        name: sa.type_coerce(columns[name], _type_of(value))
        for name, value in zip(typed, row[1:], strict=True)
    }


def _type_of(value: object) -> sa.types.TypeEngine[Any]:
    if isinstance(value, bool):
        return sa.Boolean()
    return sa.BigInteger() if isinstance(value, int) else sa.String()


def value_of(column: sa.ColumnElement[Any], text: str, key: str) -> Any:  # noqa: ANN401
    """Convert text to a value of a column's type; UsageError if it cannot be one."""
    kind = column.type
    try:
        if isinstance(kind, sa.Enum) and text not in kind.enums:
            raise KeyError  # noqa: TRY301 - as of a boolean
        if isinstance(kind, sa.Boolean):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(kind, sa.Integer):
            return int(text)
    except (ValueError, KeyError):
        message = f"{key} = {text!r} is not a value for the column, which is {kind!r}"
        raise UsageError(message, hint="write it as the column stores it") from None
    return text
