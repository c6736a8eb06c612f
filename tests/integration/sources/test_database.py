"""Database sources: the promises of every source, mappings, wrong mappings."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.dialects import mysql

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.content import survey
from drainer.mail.message import SpooledMessage
from drainer.sources.database import schema
from drainer.sources.database.importer import SpoolDatabase, create_spool
from drainer.sources.maildir.source import Maildir
from drainer.sources.protocol import LeasingSource, Source
from drainer.sources.registry import open_source
from tests.support.command.installed import Drainer

BODY = b"Received: from a by b\nSubject: x\n\nbody\n.dot \xff\n"
BLOB = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """Give a connection of the test's own to an empty database with a spool."""
    create_spool(database_url)
    made = sa.create_engine(database_url, poolclass=sa.NullPool)
    yield made
    made.dispose()


@pytest.fixture
def url(database_url: str, engine: sa.Engine) -> str:
    """Give the URL of an empty spool."""
    del engine
    return database_url


def write(
    engine: sa.Engine, name: str | None, content: bytes = BODY, **more: Any
) -> int:
    """Write a message to two recipients as a receiver would; return its id."""
    row = {"message_id": name, "arrived": 1_795_453_785_123_456, "content": content,
           "reverse_path": "s@example.com"}  # fmt: skip
    with engine.begin() as connection:
        added = connection.execute(sa.insert(schema.spool).values(row | more))
        assert added.inserted_primary_key is not None
        key = int(added.inserted_primary_key[0])
        rows = [{"message": key, "n": n, "forward_path": f"r{n}@example.org"}
                for n in range(2)]  # fmt: skip
        connection.execute(sa.insert(schema.recipients), rows)
    return key


def opened(url: str, **options: object) -> Source:
    """Open a source as the command does."""
    return open_source(url, options=options)


def listed(source: Source) -> dict[str, SpooledMessage]:
    """Return what a source lists, by native id."""
    return {each.message.native_id: each for each in source.scan()}


def content_of(spooled: SpooledMessage) -> bytes:
    """Return the whole content."""
    return b"".join(spooled.content.chunks())


def dump(engine: sa.Engine) -> list[Any]:
    """Return every row of every table."""
    metadata = sa.MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        return [(t.name, connection.execute(sa.select(t)).all())
                for t in metadata.sorted_tables]  # fmt: skip


# ---- the promises of every source


def test_every_message_is_listed_with_envelope_and_content(
    url: str, engine: sa.Engine
) -> None:
    """All columns arrive; LF becomes CRLF; done recipients are left alone."""
    write(engine, "m1", client_address="192.0.2.1", helo="h", login="u", body="8BIT",
          smtputf8=1, envid="e", ret="HDRS")  # fmt: skip
    with engine.begin() as connection:
        connection.execute(
            sa.update(schema.recipients)
            .where(schema.recipients.c.n == 1)
            .values(state="done")
        )
    source = opened(url)
    message = listed(source)["m1"].message
    assert message.problem is None
    assert [r.forward_path for r in message.envelope.recipients] == ["r0@example.org"]
    assert message.envelope.done == ("r1@example.org",)
    assert message.envelope.reverse_path == "s@example.com"
    assert (message.envelope.body, message.envelope.smtputf8) == ("8bit", True)
    assert (message.client.address, message.client.helo) == ("192.0.2.1", "h")
    assert message.login == "u"
    assert message.arrived.isoformat() == "2026-11-23T17:09:45.123456+00:00"
    assert content_of(listed(source)["m1"]) == BODY.replace(b"\n", b"\r\n")
    assert "s3cret" not in source.url
    assert "s3cret" not in message.source


def test_reading_changes_nothing(url: str, engine: sa.Engine) -> None:
    """Not a row, not a file; a pickled source reads as well."""
    for n in range(120):
        write(engine, f"m{n}", BODY * (1 + 4000 * (n == 7)))
    before = dump(engine)
    source = pickle.loads(pickle.dumps(opened(url)))  # noqa: S301
    found = listed(source)
    assert len(found) == 120
    for spooled in (found["m7"], found["m8"]):
        assert content_of(spooled) == content_of(source.open(spooled.message))
    assert dump(engine) == before


def test_large_contents_are_read_in_pieces(url: str, engine: sa.Engine) -> None:
    """What is sent is what was written, however the pieces fall."""
    data = b"0123456789 \r\n" * 300_000
    write(engine, "big", data)
    spooled = listed(opened(url))["big"]
    facts = survey(spooled.content.chunks(), digest=True)
    assert facts.sha256 == hashlib.sha256(data).hexdigest()
    assert max(map(len, spooled.content.chunks())) < 2_200_000


def test_hostile_names_and_addresses(url: str, engine: sa.Engine) -> None:
    """Controls travel escaped; a bad address holds its message, not the others."""
    write(engine, "a\nb\x1b[31m\u202e%41", reverse_path="s@example.com")
    write(engine, "bad", reverse_path="a\r\nRCPT TO:<x@y>")
    write(engine, "null", reverse_path="")
    found = listed(opened(url))
    assert len(found) == 3
    for spooled in found.values():
        assert spooled.message.native_id.isprintable()
    assert found["bad"].message.problem is not None
    assert found["bad"].message.problem.code == "bad-address"
    assert found["null"].message.envelope.reverse_path == ""


def test_text_that_is_no_utf8_holds_its_own_row(tmp_path: Path) -> None:
    """SQLite keeps any bytes as text; the other rows are listed all the same."""
    url = f"sqlite:///{tmp_path}/spool.db"
    create_spool(url)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    write(engine, "good")
    key = write(engine, "odd")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE drainer_spool SET reverse_path = CAST(x'61ff4062' AS TEXT),"
            " login = CAST(x'ff' AS TEXT), message_id = CAST(x'ff00' AS TEXT)"
            " WHERE id = ?", (key,)
        )  # fmt: skip
    found = list(opened(url).scan())
    problems = [s.message.problem.code if s.message.problem else "" for s in found]
    assert problems == ["", "bad-address"]
    assert all(s.message.native_id.isprintable() for s in found)


def test_identity(url: str, engine: sa.Engine) -> None:
    """The writer's name; without one arrival, sender and content."""
    first = write(engine, None)
    (one,) = opened(url).scan()
    with engine.begin() as connection:
        connection.execute(
            sa.update(schema.spool)
            .where(schema.spool.c.id == first)
            .values(content=BODY + b"more")
        )
    (two,) = opened(url).scan()
    assert one.message.id != two.message.id
    with pytest.raises(MessageUnreadable, match="vanished"):
        opened(url).open(one.message)
    with pytest.raises(MessageUnreadable, match="vanished"):
        opened(url).open(replace(one.message, locator="4711"))
    with pytest.raises(MessageUnreadable, match="vanished"):
        opened(url).open(replace(one.message, locator="x' OR 1=1"))


@pytest.mark.parametrize("ack", ["mark", "delete", "keep"])
def test_acknowledging_twice_is_the_same_as_once(
    url: str, engine: sa.Engine, ack: str
) -> None:
    """Only what was named goes; another message of that row stays."""
    for n in range(4):
        write(engine, f"m{n}")
    source = opened(url, ack=ack)
    found = listed(source)
    assert source.acknowledges == (ack != "keep")
    batch = [found["m0"].message, found["m2"].message]
    other = replace(found["m1"].message, identity="0" * 32)
    ids = [message.id for message in batch] if ack != "keep" else []
    assert source.acknowledge([*batch, other]) == ids
    after = dump(engine)
    assert opened(url, ack=ack).acknowledge([*batch, other]) == ids
    assert dump(engine) == after
    left = ["m1", "m3"] if ack != "keep" else ["m0", "m1", "m2", "m3"]
    assert sorted(listed(source)) == left


def test_memory_does_not_grow_with_the_spool_or_the_message(
    url: str, engine: sa.Engine
) -> None:
    """50 MB in one row, and thousands of rows, take at most 24 MB more."""
    script = (
        "import sys;from pathlib import Path\n"
        "from drainer.sources.registry import open_source\n"
        "s=open_source(sys.argv[1],options={})\n"
        "n=sum(len(c) for e in s.scan() for c in e.content.chunks())\n"
        "print(n,Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )

    def measure() -> tuple[int, int]:
        done = subprocess.run([sys.executable, "-c", script, url], check=True,
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        size, peak = map(int, done.stdout.split())
        return size, peak

    write(engine, "small")
    _, least = measure()
    with engine.begin() as connection:
        connection.execute(
            sa.insert(schema.spool),
            [{"arrived": n, "content": BODY * 100, "reverse_path": ""}
             for n in range(3000)],
        )  # fmt: skip
    write(engine, "big", b"y" * 25_000_000)
    with engine.begin() as connection:  # packets have limits
        twice = {"postgresql": "content || content", "sqlite": "content"}
        text = twice.get(engine.dialect.name, "CONCAT(content, content)")
        connection.exec_driver_sql(
            f"UPDATE drainer_spool SET content = {text} WHERE message_id = 'big'"  # noqa: S608
        )
    size, peak = measure()
    assert size > 30_000_000
    assert peak - least < 24 * 1024


# ---- leases


def test_two_ledgers_never_get_the_same_row(url: str, engine: sa.Engine) -> None:
    """What one has leased the other skips; what was begun stays with its owner."""
    for n in range(5):
        write(engine, f"m{n}")
    one, two = opened(url, lease="1m"), opened(url, lease="1m")
    assert isinstance(one, LeasingSource)
    assert isinstance(two, LeasingSource)
    one.lease("1" * 32)
    two.lease("2" * 32)
    mine = listed(one)
    assert len(mine) == 5
    assert listed(two) == {}
    assert two.leased_elsewhere() == 5
    first = mine["m0"].message
    assert one.begin([first]) == {first.id}
    assert two.begin([first]) == set()
    with pytest.raises(MessageUnreadable, match="taken-elsewhere"):
        two.open(first)
    with engine.begin() as connection:  # the first one died long ago
        connection.execute(sa.update(schema.owners).values(until=0))
    two.renew()
    found = listed(two)
    problems = {k: s.message.problem for k, s in found.items() if s.message.problem}
    assert [(k, p.code) for k, p in problems.items()] == [("m0", "in-doubt")]
    assert one.begin([mine["m1"].message]) == set()
    assert two.begin([mine["m1"].message]) == {mine["m1"].message.id}
    assert set(listed(one)) == {"m0"}, "what it had begun is its own again"


def test_a_row_that_was_locked_when_its_page_was_claimed_comes_last(
    url: str, engine: sa.Engine
) -> None:
    """The process that had locked it may have died: then no other scan lists it."""
    keys = [write(engine, f"m{n}") for n in range(3)]
    source = opened(url)
    assert isinstance(source, LeasingSource)
    source.lease("1" * 32)
    locked = sa.select(schema.spool).where(schema.spool.c.id == keys[0])
    with engine.connect() as dying:
        dying.execute(locked.with_for_update())
        scan = source.scan()
        early = [next(scan).message.native_id for _ in range(2)]
        dying.rollback()
        late = [each.message.native_id for each in scan]
    if engine.dialect.name == "sqlite":  # it has no locks of rows
        assert (early, late) == (["m0", "m1"], ["m2"])
    else:
        assert (early, late) == (["m1", "m2"], ["m0"])


def test_a_row_that_stays_locked_is_listed_with_its_problem(
    url: str, engine: sa.Engine
) -> None:
    """An application may hold it for long: no scan waits for that, or hides it."""
    if engine.dialect.name == "sqlite":  # it has no locks of rows
        return
    keys = [write(engine, f"m{n}") for n in range(2)]
    source = opened(url)
    assert isinstance(source, LeasingSource)
    source.lease("1" * 32)
    locked = sa.select(schema.spool).where(schema.spool.c.id == keys[0])
    with engine.connect() as holding:
        holding.execute(locked.with_for_update())
        found = {k: each.message.problem for k, each in listed(source).items()}
        holding.rollback()
    assert found["m1"] is None
    assert found["m0"] is not None
    assert found["m0"].code == "locked"
    assert {k: each.message.problem for k, each in listed(source).items()} == {
        "m0": None, "m1": None,
    }  # fmt: skip


# ---- import


def test_importing_twice_doubles_nothing(url: str, tmp_path: Path) -> None:
    """The ids stay, so a ledger knows the messages again; --json tells."""
    for name in ("new", "cur", "tmp"):
        (tmp_path / "m" / name).mkdir(parents=True)
    text = b"Return-Path: <a@b.example>\nX-Original-To: c@d.example\n" + BODY
    (tmp_path / "m/new/1").write_bytes(text)
    (tmp_path / "m/new/2").write_bytes(text + b"0123456789\n" * 2_000_000)
    (tmp_path / "m/new/3").write_bytes(BODY)
    drainer = Drainer(tmp_path / "ledger.db")
    for expected in ({"added": 2, "known": 0}, {"added": 0, "known": 2}):
        done = drainer.run("spool", "import", f"maildir:{tmp_path}/m", url, "--json")
        assert done.code == 5
        assert "no-envelope" in done.stderr
        facts = done.objects[0]
        assert {k: facts[k] for k in expected} == expected
        assert "s3cret" not in done.stdout + done.stderr
    there = {s.message.id: s for s in opened(url).scan()}
    for spooled in Maildir(tmp_path / "m").scan():
        if spooled.message.problem is None:
            copy = there[spooled.message.id]
            assert survey(copy.content.chunks(), digest=True) == survey(
                spooled.content.chunks(), digest=True
            )
            assert copy.message.envelope == spooled.message.envelope
            assert copy.message.arrived == spooled.message.arrived


# ---- mapped tables


def mapped(engine: sa.Engine, *columns: sa.Column[Any], **values: Any) -> sa.Table:
    """Make somebody else's table with one row."""
    table = sa.Table(
        "outbox", sa.MetaData(),
        sa.Column("key", sa.Integer, primary_key=True),
        sa.Column("from_", sa.String(200)), sa.Column("raw", BLOB),
        sa.Column("at", sa.DateTime), sa.Column("status", sa.Integer), *columns,
    )  # fmt: skip
    table.create(engine)
    row: dict[str, Any] = {"key": 7, "from_": "s@example.com", "raw": BODY, "status": 0,
                           "at": sa.func.current_timestamp()}  # fmt: skip
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(row | values))
    return table


KEY = "outbox.key"
MAPPING = {"table": "outbox", "id": "key", "reverse_path": "from_", "content": "raw",
           "arrived": "at", "state": "status", "pending": [0], "finish": 2}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("one", "a@x.example"),
        ("delimited", "a@x.example; <b@x.example>;"),
        ("json", '["a@x.example", "b@x.example"]'),
    ],
)
def test_recipients_in_a_column(
    url: str, engine: sa.Engine, kind: str, value: str
) -> None:
    """One, several with a delimiter, JSON; marked with the operator's number."""
    table = mapped(engine, sa.Column("rcpt", sa.String(200)), rcpt=value)
    more = {"recipients": "rcpt", "recipients_format": kind}
    if kind == "delimited":
        more["recipients_delimiter"] = ";"
    source = opened(url, **MAPPING, **more)
    (spooled,) = source.scan()
    paths = [r.forward_path for r in spooled.message.envelope.recipients]
    assert paths == (
        ["a@x.example"] if kind == "one" else ["a@x.example", "b@x.example"]
    )
    assert spooled.message.native_id == "7"
    assert source.acknowledge([spooled.message]) == [spooled.message.id]
    with engine.connect() as connection:
        assert connection.scalar(sa.select(table.c.status)) == 2


def test_recipients_in_json_and_arrays(url: str, engine: sa.Engine) -> None:
    """Of the database's own types, where it has them."""
    kind = sa.ARRAY(sa.String(99)) if engine.dialect.name == "postgresql" else sa.JSON()
    mapped(engine, sa.Column("rcpt", kind), rcpt=["a@x.example", "b@x.example"])
    name = "array" if engine.dialect.name == "postgresql" else "json"
    source = opened(url, **MAPPING, recipients="rcpt", recipients_format=name)
    (spooled,) = source.scan()
    assert len(spooled.message.envelope.recipients) == 2


def test_recipients_in_a_child_table_with_states_and_leases(
    url: str, engine: sa.Engine
) -> None:
    """Those done are left alone; a claim marks the row, finishing the recipients."""
    mapped(engine)
    child = sa.Table(
        "rcpts", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("mail", sa.Integer), sa.Column("addr", sa.String(99)),
        sa.Column("st", sa.String(9)),
    )  # fmt: skip
    child.create(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(child), [
            {"mail": 7, "addr": "a@x.example", "st": "new"},
            {"mail": 7, "addr": "b@x.example", "st": "sent"}])  # fmt: skip
    source = opened(
        url, **MAPPING, recipients="addr", recipients_table="rcpts",
        recipients_message="mail", recipients_state="st", recipients_pending=["new"],
        recipients_finish="sent", claim=1, leases="table",
    )  # fmt: skip
    assert isinstance(source, LeasingSource)
    source.lease("a" * 32)
    (spooled,) = source.scan()
    assert spooled.message.envelope.done == ("b@x.example",)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT status FROM outbox").scalar() == 1
    assert source.open(spooled.message).message.id == spooled.message.id
    assert source.acknowledge([spooled.message]) == [spooled.message.id]
    with engine.connect() as connection:
        assert set(connection.scalars(sa.select(child.c.st))) == {"sent"}
        assert connection.exec_driver_sql("SELECT status FROM outbox").scalar() == 2


def test_a_query_and_a_statement(url: str, engine: sa.Engine) -> None:
    """Whatever can be selected can be sent, and marked by the operator's own words."""
    mapped(engine, sa.Column("rcpt", sa.String(200)), rcpt="a@x.example")
    keys = {"id": "key", "reverse_path": "from_", "content": "raw", "arrived": "at"}
    source = opened(
        url, query="SELECT * FROM outbox WHERE status = 0", recipients="rcpt",
        ack="statement", statement="UPDATE outbox SET status = 9 WHERE key = :id"
        if engine.dialect.name not in ("mysql", "mariadb")
        else "UPDATE outbox SET status = 9 WHERE `key` = :id", **keys,
    )  # fmt: skip
    (spooled,) = source.scan()
    assert content_of(spooled) == BODY.replace(b"\n", b"\r\n")
    assert source.acknowledge([spooled.message]) == [spooled.message.id]
    assert source.acknowledge([spooled.message]) == [spooled.message.id]
    assert list(source.scan()) == []


def test_a_charset_that_is_not_the_column_s_is_refused(
    url: str, engine: sa.Engine
) -> None:
    """Without one, or with the right one, the stored bytes are read."""
    mapped(engine, sa.Column("rcpt", sa.String(99)), sa.Column("text", sa.Text),
           rcpt="a@x.example", text="Subject: \u00e9\n\nx\n")  # fmt: skip
    keys = MAPPING | {"content": "text", "recipients": "rcpt"}
    with pytest.raises(UsageError, match=r"content_charset = 'latin-1'.*stored in"):
        opened(url, **keys, content_charset="latin-1")
    for more in ({}, {"content_charset": "utf8"}):
        (spooled,) = opened(url, **keys, **more).scan()
        assert content_of(spooled) == b"Subject: \xc3\xa9\r\n\r\nx\r\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"table": "absent"}, "no table 'absent'.*outbox"),
        ({"content": "blob"}, "content = 'blob': there is no such column.*raw"),
        ({"content": "status"}, "content = 'status': the column is INTEGER"),
        ({"reverse_path": "raw"}, "reverse_path = 'raw': the column is"),
        ({"recipients": "status"}, "recipients = 'status': the column is INTEGER"),
        ({"pending": ["new"]}, "pending = 'new' is not a value for the column"),
        ({"finish": 0}, "finish = '0' is also a value of rows to send"),
        ({"id": ""}, "not name a column for id"),
        ({"claim": 1}, "claim needs leases"),
        ({"ack": "statement"}, "ack = statement and the key statement, or neither"),
        ({"nonsense": "x"}, "no option 'nonsense'"),
        ({"lease": "soon"}, "lease"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_a_wrong_mapping_is_an_error_at_the_start(
    database_url: str, change: dict[str, object], words: str
) -> None:
    """It names the key, the column, and what was found."""
    create_spool(database_url)
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    mapped(engine, sa.Column("rcpt", sa.String(99)), rcpt="a@x.example")
    with pytest.raises(UsageError, match=words) as caught:
        opened(database_url, **(MAPPING | {"recipients": "rcpt"} | change))
    assert "s3cret" not in str(caught.value)


def test_an_id_is_that_of_one_row(url: str, engine: sa.Engine) -> None:
    """Who has several is neither listed once nor for ever; nor is NULL an id."""
    also = sa.Column("also", sa.Integer)
    table = mapped(engine, sa.Column("rcpt", sa.String(99)), also, rcpt="a@x.example")
    keys = MAPPING | {"recipients": "rcpt", "id": "also"}
    with pytest.raises(UsageError, match="id = 'also': it is NULL in a row"):
        opened(url, **keys)
    with engine.begin() as connection:
        connection.execute(sa.update(table).values(also=5))
        row = {"key": 8, "from_": "t@example.com", "raw": BODY, "also": 5}
        connection.execute(sa.insert(table).values(row | {"status": 0}))
    with pytest.raises(UsageError, match="id = 'also': '5' is in 2 rows"):
        opened(url, **keys)
    joined = "SELECT a.* FROM outbox a JOIN outbox b ON a.also = b.also"
    query = {k: v for k, v in MAPPING.items() if k not in ("table", "finish")}
    query |= {"recipients": "rcpt", "query": joined, "ack": "keep"}
    with pytest.raises(UsageError, match="id = 'key': '7' is in 2 rows"):
        opened(url, **query)
    with engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.key == 8).values(status=2))
    assert len(list(opened(url, **keys).scan())) == 1


def test_a_statement_that_fails_is_refused_at_the_start(
    url: str, engine: sa.Engine
) -> None:
    """Not when the mail has been sent; asking the database changes nothing."""
    table = mapped(engine, sa.Column("rcpt", sa.String(99)), rcpt="a@x.example")
    query = {k: v for k, v in MAPPING.items() if k not in ("table", "finish")}
    query |= {"recipients": "rcpt", "query": "SELECT * FROM outbox", "ack": "statement"}
    sound = "UPDATE outbox SET status = 2"
    with pytest.raises(UsageError, match=r"the statement fails: .*absent"):
        opened(url, **query, statement=f"{sound}, absent = 1 WHERE {KEY} = :id")
    assert list(opened(url, **query, statement=f"{sound} WHERE {KEY} = :id").scan())
    with engine.begin() as connection:
        assert connection.scalars(sa.select(table.c.status)).all() == [0]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_state_that_the_column_cannot_hold_is_refused(
    database_servers: Callable[[str], Any], kind: str
) -> None:
    """Before anything was sent that could not be marked afterwards."""
    url = database_servers(kind).fresh()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    word = sa.Column[str]("word", sa.Enum("queued", "sent", name="word"))
    short = sa.Column("short", sa.String(6))
    rcpt = sa.Column("rcpt", sa.String(99))
    mapped(engine, rcpt, word, short, rcpt="a@x.example", word="queued", short="new")
    said = MAPPING | {"recipients": "rcpt", "state": "word", "pending": ["queued"]}
    assert len(list(opened(url, **said | {"finish": "sent"}).scan())) == 1
    for wrong in ({"pending": ["new"]}, {"finish": "done"}):
        with pytest.raises(UsageError, match=r"is not a value for the column, .*ENUM"):
            opened(url, **said | {"finish": "sent"} | wrong)
    said |= {"state": "short", "pending": ["new"], "finish": "delivered"}
    with pytest.raises(UsageError, match="finish = 'delivered' does not fit"):
        opened(url, **said)


# ---- what is not a spool, and secrets


def test_what_is_no_spool_is_refused(database_url: str, tmp_path: Path) -> None:
    """Absent, another file, a link, an empty database: exit 2 with a hint."""
    (tmp_path / "file").write_text("x" * 100)
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "link", "pipe", "absent", "."):
        with pytest.raises(SourceError) as caught:
            opened(f"sqlite:///{tmp_path}/{name}")
        assert caught.value.hint
    if not database_url.startswith("sqlite"):
        with pytest.raises(SourceError, match="no spool") as caught:
            opened(database_url)
        assert "drainer spool create" in caught.value.hint


def test_the_password_comes_from_a_file_and_is_shown_nowhere(
    database_servers: Callable[[str], Any], tmp_path: Path
) -> None:
    """Not in the ledger, not in an error, not in what is printed."""
    whole = sa.make_url(database_servers("postgresql").fresh())
    create_spool(whole.render_as_string(hide_password=False))
    (tmp_path / "word").write_text(f"{whole.password}\n")
    bare = f"postgresql://{whole.username}@127.0.0.1:{whole.port}/{whole.database}"
    assert list(opened(bare, password_file=str(tmp_path / "word")).scan()) == []
    wrong = bare.replace("@", ":wr0ng@")
    drainer = Drainer(tmp_path / "ledger.db")
    done = drainer.run("inspect", wrong)
    assert done.code == 2
    assert "wr0ng" not in done.stderr + done.stdout
    done = drainer.run("inspect", "postgrse://u:wr0ng@h/d")
    assert "wr0ng" not in done.stderr + done.stdout
    (tmp_path / "drainer.toml").write_text(
        f'[sources.db]\nurl = "{bare}"\npassword_file = "{tmp_path}/word"\n'
    )
    done = drainer.run("inspect", "db", "--json")
    assert done.code == 0, done.stderr
    assert "wr0ng" not in drainer.run("config").stdout


def test_adding_needs_a_spool(tmp_path: Path) -> None:
    """`spool import` into nothing says what to do; create is repeatable."""
    with pytest.raises(SourceError):
        SpoolDatabase(f"sqlite:///{tmp_path}/absent.db")
    url = f"sqlite:///{tmp_path}/new.db"
    assert create_spool(url) == (url, True)
    assert create_spool(url) == (url, False)
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600
    assert json.dumps(url)
