"""The built-in spool: two tables that any receiver can write to.

A receiver inserts a row into ``drainer_spool`` and one per recipient into
``drainer_spool_recipients``, in one transaction; both start as 'pending'. drainer
changes only ``state``: 'done' when every recipient is final.

Leases are in separate tables, so that they also work for a table of another
application.
"""

import sqlalchemy as sa

from drainer.runtime.databases import LONG_BLOB, LONG_TEXT, create_tables

VERSION = "1"
PENDING, DONE, FAILED = "pending", "done", "failed"

metadata = sa.MetaData()

_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, server_default="")


spool = sa.Table(
    "drainer_spool",
    metadata,
    sa.Column("id", _Serial, primary_key=True, autoincrement=True),
    #: A name from the writer that no other message has, or NULL.
    sa.Column("message_id", sa.String(255), unique=True),
    #: When the backup accepted it: microseconds since 1970 UTC.
    sa.Column("arrived", sa.BigInteger, nullable=False),
    #: As in MAIL FROM, without brackets; '' = the null sender.
    sa.Column("reverse_path", sa.String(512), nullable=False),
    #: The bytes as received, with LF or CRLF line ends.
    sa.Column("content", LONG_BLOB, nullable=False),
    _text("client_address", 64),
    _text("client_name", 255),
    _text("helo", 255),
    _text("login", 255),
    #: '7bit', '8bit' or ''.
    _text("body", 4),
    sa.Column("smtputf8", sa.SmallInteger, nullable=False, server_default="0"),
    _text("envid", 512),
    #: 'FULL', 'HDRS' or ''.
    _text("ret", 4),
    _text("verp", 2),
    sa.Column("state", sa.String(16), nullable=False, server_default=PENDING),
    sa.Index("drainer_spool_state", "state", "id"),
)

recipients = sa.Table(
    "drainer_spool_recipients",
    metadata,
    sa.Column(
        "message",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        sa.ForeignKey("drainer_spool.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("forward_path", sa.String(512), nullable=False),
    #: ``type;address``, decoded.
    sa.Column("orcpt", LONG_TEXT),
    #: Keywords, separated by commas.
    _text("notify", 64),
    #: 'pending'; anything else means done.
    sa.Column("state", sa.String(16), nullable=False, server_default=PENDING),
)

leases_metadata = sa.MetaData()

#: The owner of each row. A row that was begun may have been sent: no other takes it.
leases = sa.Table(
    "drainer_leases",
    leases_metadata,
    sa.Column("queue", sa.String(255), primary_key=True),
    sa.Column("row_id", sa.String(255), primary_key=True),
    sa.Column("owner", sa.String(32), nullable=False),
    sa.Column("begun", sa.BigInteger),
)

#: The end of each owner's lease, in microseconds since 1970 by the database's clock.
owners = sa.Table(
    "drainer_owners",
    leases_metadata,
    sa.Column("owner", sa.String(32), primary_key=True),
    sa.Column("until", sa.BigInteger, nullable=False),
)


def create(connection: sa.Connection) -> bool:
    """Create what is absent; return whether the spool is new."""
    absent = not sa.inspect(connection).has_table(spool.name)
    create_tables(metadata, connection)
    create_tables(leases_metadata, connection)
    if absent and connection.dialect.name == "postgresql":
        connection.exec_driver_sql(  # so that pieces are read without unpacking it all
            "ALTER TABLE drainer_spool ALTER COLUMN content SET STORAGE EXTERNAL"
        )
    return absent
