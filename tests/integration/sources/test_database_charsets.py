"""Mail in columns of text: the bytes that are stored, whatever the charset."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa

from drainer.errors import UsageError
from drainer.mail.message import SpooledMessage
from drainer.sources.registry import open_source
from tests.support.databases.servers import Server, missing_reason, serving

LATIN: Final = "Subject: m\nContent-Type: text/plain; charset=iso-8859-1\n\ncaf\xe9\n"
MAILS: Final[Mapping[int, bytes]] = {
    1: b"Subject: m\n\nplain\n",
    2: "Subject: m\n\ncaf\u00e9 \u20ac \u4f60\n".encode(),
    3: LATIN.encode("latin-1"),
    4: b"Subject: m\n\n" + bytes(range(128, 256)) + b"\n",
    5: b"Subject: m\n\n" + "caf\u00e9 \u20ac \u4f60\n".encode() * 20_000,
    6: b"Subject: m\n\n" + bytes(range(128, 256)) * 3_000 + b"\n",
    7: b"Content-Type: text/plain; charset=utf-8\n\nlost upstream: \xef\xbf\xbd\n",
    8: b"Content-Type: text/plain; charset=iso-8859-1\n\ncaf\xef\xbf\xbd\n",
}
"""Mail in any charset: small ones and large ones, by the id of the row."""
UTF8_ONLY: Final = (1, 2, 5, 7, 8)
MAPPING: Final = {
    "table": "outbox", "id": "id", "reverse_path": "sender", "recipients": "rcpt",
    "content": "raw", "arrived": "at", "state": "status", "pending": ["queued"],
    "finish": "sent",
}  # fmt: skip
_names = itertools.count()


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    """Run a private PostgreSQL."""
    if reason := missing_reason("postgresql"):
        pytest.skip(reason)
    with serving("postgresql") as server:
        yield server


@pytest.fixture(scope="module")
def mariadb() -> Iterator[Server]:
    """Run a private MariaDB."""
    if reason := missing_reason("mariadb"):
        pytest.skip(reason)
    with serving("mariadb") as server:
        yield server


def listed(url: str, **more: object) -> dict[int, SpooledMessage]:
    """Return what the mapped table lists, by row."""
    source = open_source(url, options=MAPPING | more)
    return {int(each.message.native_id): each for each in source.scan()}


def check(found: Mapping[int, SpooledMessage], rows: tuple[int, ...]) -> None:
    """See that each row is sendable, with its very bytes."""
    assert tuple(found) == rows
    for row, spooled in found.items():
        assert spooled.message.problem is None, row
        content = b"".join(spooled.content.chunks())
        assert content == MAILS[row].replace(b"\n", b"\r\n"), row
        paths = [each.forward_path for each in spooled.message.envelope.recipients]
        assert paths == [f"j\u00f6rg{row}@example.org"]


def postgresql_database(server: Server, encoding: str) -> str:
    """Return the URL of a new database with a table of mail in text."""
    admin = sa.make_url(server.fresh()).set(database="postgres")
    name = f"charset{next(_names)}"
    engine = sa.create_engine(
        admin, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C'"
            " LC_CTYPE 'C' TEMPLATE template0"
        )
    url = admin.set(database=name)
    engine = sa.create_engine(
        url, poolclass=sa.NullPool, connect_args={"client_encoding": "utf8"}
    )
    rows = UTF8_ONLY if encoding == "UTF8" else tuple(MAILS)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE outbox (id INT PRIMARY KEY, sender TEXT, rcpt VARCHAR(300),"
            " raw TEXT, at INT, status VARCHAR(20))"
        )
        for row in rows:
            connection.execute(
                sa.text(
                    "INSERT INTO outbox VALUES (:row, 's@example.com',"
                    " convert_from(:rcpt, getdatabaseencoding()),"
                    " convert_from(:raw, getdatabaseencoding()), 1744473568, 'queued')"
                ),
                {
                    "row": row,
                    "rcpt": f"j\u00f6rg{row}@example.org".encode(),
                    "raw": MAILS[row],
                },
            )
    return url.render_as_string(hide_password=False)


@pytest.mark.parametrize(
    "encoding", ["UTF8", "SQL_ASCII", "LATIN1", "WIN1252", "KOI8R"]
)
def test_postgresql_text_is_read_as_stored(postgresql: Server, encoding: str) -> None:
    """In a database of any encoding, from a table and from a query."""
    url = postgresql_database(postgresql, encoding)
    rows = UTF8_ONLY if encoding == "UTF8" else tuple(MAILS)
    check(listed(url), rows)
    query = {"table": "", "query": "SELECT * FROM outbox", "ack": "keep"}
    check(listed(url, **query), rows)


def test_a_type_that_drainer_does_not_know_is_read_as_stored(
    postgresql: Server,
) -> None:
    """In a query: the client's charset would change the bytes of a Latin-1 text."""
    url = postgresql_database(postgresql, "LATIN1")
    columns = "id, sender, rcpt, raw::xml AS raw, at, status"
    query = f"SELECT {columns} FROM outbox WHERE id IN (1, 3)"  # noqa: S608
    check(listed(url, table="", query=query, ack="keep"), (1, 3))


def mariadb_database(server: Server, charset: str) -> str:
    """Return the URL of a new database whose table has columns of this charset."""
    url = server.fresh()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE outbox (id INT PRIMARY KEY, sender VARCHAR(300),"
            f" rcpt VARCHAR(300) CHARACTER SET {charset},"
            f" raw LONGTEXT CHARACTER SET {charset}, at INT, status VARCHAR(20))"
        )
        for row in UTF8_ONLY if charset.startswith("utf8") else MAILS:
            connection.execute(
                sa.text(
                    "INSERT INTO outbox VALUES (:row, 's@example.com',"  # noqa: S608
                    f" CONVERT(:rcpt USING {charset}), CONVERT(:raw USING {charset}),"
                    " 1744473568, 'queued')"
                ).bindparams(
                    sa.bindparam("rcpt", type_=sa.LargeBinary),
                    sa.bindparam("raw", type_=sa.LargeBinary),
                ),
                {
                    "row": row,
                    "rcpt": f"j\u00f6rg{row}@example.org".encode(),
                    "raw": MAILS[row],
                },
            )
    return url


@pytest.mark.parametrize("charset", ["utf8mb3", "utf8mb4", "latin1", "koi8r", "binary"])
def test_mariadb_text_is_read_as_stored(mariadb: Server, charset: str) -> None:
    """In a column of any charset, from a table and from a query."""
    url = mariadb_database(mariadb, charset)
    rows = UTF8_ONLY if charset.startswith("utf8") else tuple(MAILS)
    check(listed(url), rows)
    query = {"table": "", "query": "SELECT * FROM outbox", "ack": "keep"}
    check(listed(url, **query), rows)


@pytest.mark.parametrize("charset", ["latin1", "utf16", "utf8mb4"])
def test_an_address_is_in_the_charset_of_its_own_column(
    mariadb: Server, charset: str
) -> None:
    """Whatever the content is in, here bytes."""
    url = mariadb_database(mariadb, "utf8mb4")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE outbox MODIFY raw LONGBLOB")
        connection.exec_driver_sql(
            f"ALTER TABLE outbox MODIFY rcpt VARCHAR(300) CHARACTER SET {charset}"
        )
    check(listed(url), UTF8_ONLY)


def test_mariadb_text_in_utf16_is_refused(mariadb: Server) -> None:
    """No bytes of a mail are stored in it; a query can convert it."""
    url = mariadb_database(mariadb, "latin1")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM outbox WHERE id > 1")
        connection.exec_driver_sql(
            "ALTER TABLE outbox MODIFY raw LONGTEXT CHARACTER SET utf16"
        )
    with pytest.raises(UsageError, match="utf16") as caught:
        listed(url)
    assert "CAST" in caught.value.hint
    cast = "CAST(CONVERT(raw USING utf8mb4) AS BINARY) AS raw"
    query = f"SELECT id, sender, rcpt, {cast}, at, status FROM outbox"  # noqa: S608
    check(listed(url, table="", query=query, ack="keep"), (1,))


@pytest.mark.parametrize(
    ("claimed", "is_right"),
    [("latin-1", True), ("cp1252", True), ("utf-8", False), ("koi8-r", False)],
)
def test_a_charset_that_is_claimed_must_be_the_column_s(
    mariadb: Server,
    claimed: str,
    is_right: bool,  # noqa: FBT001
) -> None:
    """The bytes are the same then; another one is refused at the start."""
    url = mariadb_database(mariadb, "latin1")
    if is_right:
        check(listed(url, content_charset=claimed), tuple(MAILS))
        return
    with pytest.raises(UsageError, match="latin1") as caught:
        listed(url, content_charset=claimed)
    assert "leave it out" in caught.value.hint


def sqlite_database(path: Path, *, declared: str, encoding: str = "UTF-8") -> str:
    """Return the URL of a database whose contents are texts, in this column."""
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"PRAGMA encoding = '{encoding}'")
        connection.exec_driver_sql(
            "CREATE TABLE outbox (id INTEGER PRIMARY KEY, sender TEXT, rcpt TEXT,"
            f" raw {declared}, at INT, status TEXT)"
        )
        connection.exec_driver_sql("CREATE VIEW mails AS SELECT * FROM outbox")
        for row in MAILS if encoding == "UTF-8" else UTF8_ONLY:
            # A cast makes UTF-16 of the bytes where the database is in UTF-16.
            raw: object = MAILS[row]
            if encoding != "UTF-8":
                raw = MAILS[row].decode()
            connection.exec_driver_sql(
                "INSERT INTO outbox VALUES"
                " (?, 's@example.com', ?, CAST(? AS TEXT), 1744473568, 'queued')",
                (row, f"j\u00f6rg{row}@example.org", raw),
            )
    return f"sqlite:///{path}"


@pytest.mark.parametrize("declared", ["TEXT", "BLOB", ""])
def test_sqlite_text_is_read_as_stored(tmp_path: Path, declared: str) -> None:
    """In a column of any type, from a table, a view and a query."""
    url = sqlite_database(tmp_path / "data.db", declared=declared)
    rows = tuple(MAILS)
    check(listed(url), rows)
    check(listed(url, table="mails", ack="keep"), rows)
    query = {"table": "", "query": "SELECT * FROM outbox", "ack": "keep"}
    check(listed(url, **query), rows)


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_sqlite_text_of_a_utf_16_database_is_what_an_application_reads(
    tmp_path: Path, encoding: str
) -> None:
    """SQLite itself makes UTF-8 of it, and did the reverse."""
    url = sqlite_database(tmp_path / "data.db", declared="TEXT", encoding=encoding)
    check(listed(url), UTF8_ONLY)
