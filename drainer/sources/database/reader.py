"""The queries of a database source: a page of ids, their rows, a piece of a content.

Each takes a connection, and changes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from drainer.errors import MessageUnreadable, UsageError
from drainer.mail.message import Message
from drainer.sources.common.files import HELD_BYTES, batches, unescape_name
from drainer.sources.database.mapping import (
    BoundMapping,
    TableMapping,
    value_of,
)
from drainer.sources.database.rows import HEAD_BYTES, message_of
from drainer.sources.database.store import DatabaseStore
from drainer.sources.database.text_column import (
    bytes_of,
    has_bytes,
    text_of,
)

PAGE = 100

Row = dict[str, Any]


class KnownRow(NamedTuple):
    """A row and its message."""

    row: Row
    message: Message


class RowReader:
    """Reads the rows of one source."""

    def __init__(self, store: DatabaseStore, url: str) -> None:
        """Read from this database; the messages get the URL of their source."""
        self._store = store
        self._mapping = store.mapping
        self._url = url

    def page(self, connection: sa.Connection, last: object) -> list[Any]:
        """Return the next ids after ``last``."""
        bound = self._store.bound(connection)
        query = _open_ids(bound).limit(PAGE)
        if last is not None:
            query = query.where(bound["id"] > last)
        return list(connection.scalars(query))

    def still_open(self, connection: sa.Connection, ids: Sequence[Any]) -> list[Any]:
        """Return which of these rows are still to send, in order."""
        bound = self._store.bound(connection)
        found: list[Any] = []
        for some in batches(ids, PAGE):
            found += connection.scalars(_open_ids(bound).where(bound["id"].in_(some)))
        return found

    def lock(self, connection: sa.Connection, ids: Sequence[Any]) -> list[Any]:
        """Lock these rows; return those still to send that no other has locked."""
        if connection.dialect.name == "sqlite" or self._mapping.query or not ids:
            return list(ids)  # the transaction locks the whole file, or nothing
        bound = self._store.bound(connection)
        query = _open_ids(bound).where(bound["id"].in_(list(ids)))
        return list(connection.scalars(query.with_for_update(skip_locked=True)))

    def rows(self, connection: sa.Connection, ids: Sequence[Any]) -> list[KnownRow]:
        """Return the rows among these that are still to send, in order."""
        if not ids:
            return []
        bound = self._store.bound(connection)
        skipped = ("content", "state")
        columns = [c.label(k) for k, c in bound.columns.items() if k not in skipped]
        content = bound["content"]
        size = _size(content, connection)
        head: sa.ColumnElement[Any] = sa.null()
        if not bound.has_blobs:
            head = sa.func.substr(content, 1, HEAD_BYTES)
        first = sa.case((size <= HELD_BYTES, content), else_=head).label("head")
        query = (
            sa.select(*columns, size.label("size"), first)
            .select_from(bound.source)
            .where(bound["id"].in_(list(ids)), *bound.is_open)
            .order_by(bound["id"])
        )
        found = connection.execute(query).mappings()
        rows = [_with_texts(row, bound.charsets) for row in found]
        children = self._children(connection, bound, rows)
        return [self._read_row(connection, row, children) for row in rows]

    def _read_row(
        self, connection: sa.Connection, row: Row, children: Mapping[Any, list[Row]]
    ) -> KnownRow:
        if row["head"] is None and row["size"]:
            row["head"] = _blob(connection, self._mapping, row["id"], (0, HEAD_BYTES))
        mine = children.get(row["id"], ())
        return KnownRow(row, message_of(self._url, self._mapping, row, mine))

    def _children(
        self, connection: sa.Connection, bound: BoundMapping, rows: Sequence[Row]
    ) -> dict[Any, list[Row]]:
        """Return the rows of recipients by the message's id."""
        table, mapping = bound.children, self._mapping
        if table is None or not rows:
            return {}
        parent = table.c[mapping.recipients_message]
        address = table.c[mapping.columns["recipients"]]
        columns: list[sa.ColumnElement[Any]] = [
            parent.label("parent"),
            _bytes_of(address, connection).label("forward_path"),
        ]
        if mapping.recipients_state:
            columns.append(table.c[mapping.recipients_state].label("child_state"))
        if mapping.is_built_in:
            columns += [table.c.orcpt, table.c.notify]
        order = list(table.primary_key.columns) or [parent]
        query = sa.select(*columns).where(parent.in_([row["id"] for row in rows]))
        found: dict[Any, list[Row]] = {}
        for each in connection.execute(query.order_by(*order)).mappings():
            row = _with_texts(each, bound.charsets)
            if mapping.recipients_state:
                row["is_open"] = str(row["child_state"]) in mapping.recipients_pending
            found.setdefault(row["parent"], []).append(row)
        return found

    def id_of(self, connection: sa.Connection, message: Message) -> Any:  # noqa: ANN401
        """Return the value of the id column for a locator."""
        text = unescape_name(message.locator)
        try:
            return value_of(self._store.bound(connection)["id"], text, "id")
        except UsageError:
            raise MessageUnreadable(
                "vanished", f"not the id of a row: {message.locator}"
            ) from None

    def piece(
        self, connection: sa.Connection, message: Message, part: tuple[int, int]
    ) -> Any:  # noqa: ANN401 - bytes or text
        """Return a part (start, length) of a content, or None when it is gone."""
        bound, id_ = self._store.bound(connection), self.id_of(connection, message)
        if bound.has_blobs:
            return _blob(connection, self._mapping, id_, part)
        piece = sa.func.substr(bound["content"], part[0] + 1, part[1])
        query = sa.select(piece).select_from(bound.source).where(bound["id"] == id_)
        return connection.scalar(query)


def _open_ids(bound: BoundMapping) -> sa.Select[Any]:
    """Return the query for the ids of the rows to send, in order."""
    ids = sa.select(bound["id"]).select_from(bound.source).where(*bound.is_open)
    return ids.order_by(bound["id"])


def _size(
    content: sa.ColumnElement[Any], connection: sa.Connection
) -> sa.ColumnElement[int]:
    """Return the length as ``substr`` counts: bytes, or characters of SQLite's UTF-16.

    SQLite knows the length of a blob without loading it.
    """
    length = sa.func.length(content)
    if connection.dialect.name != "sqlite":
        return sa.func.octet_length(content)
    if not isinstance(content, sa.Cast):
        return length
    stored = content.clause
    is_blob = sa.func.typeof(stored) == "blob"
    return sa.case((is_blob, sa.func.length(stored)), else_=length)


def _bytes_of(
    column: sa.ColumnElement[Any], connection: sa.Connection
) -> sa.ColumnElement[Any]:
    dialect = connection.dialect.name
    if dialect == "sqlite" or not has_bytes(column, dialect):
        return column
    return bytes_of(column, dialect)


def _with_texts(row: sa.RowMapping, charsets: Mapping[str, str]) -> Row:
    """Return a row in which the bytes of these texts are decoded."""
    texts = {
        name: text_of(bytes(row[name]), charset)
        for name, charset in charsets.items()
        if isinstance(row.get(name), bytes | bytearray | memoryview)
    }
    return dict(row) | texts


def _blob(
    connection: sa.Connection, mapping: TableMapping, id_: object, part: tuple[int, int]
) -> bytes | None:
    """Return a part of a content from an SQLite file without loading the whole."""
    quoted = connection.dialect.identifier_preparer.quote
    table, column = mapping.table, mapping.columns["content"]
    query = (
        f"SELECT rowid FROM {quoted(table)} WHERE {quoted(mapping.columns['id'])} = ?"  # noqa: S608
    )
    rowid = connection.exec_driver_sql(query, (id_,)).scalar()
    if rowid is None:
        return None
    raw: Any = connection.connection.driver_connection
    with raw.blobopen(table, column, rowid, readonly=True) as blob:
        blob.seek(part[0])
        return bytes(blob.read(part[1]))
