"""The store of a database source: what a failure means to the operator."""

import os
import pickle
import resource
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from drainer.errors import SourceError, SourceLost
from drainer.sources.database.importer import create_spool
from drainer.sources.database.mapping import mapping_of
from drainer.sources.database.store import DatabaseStore


def _fill(connection: sa.Connection) -> None:
    """Write more than the file may have."""
    connection.exec_driver_sql("PRAGMA max_page_count=1")
    connection.exec_driver_sql("CREATE TABLE large AS SELECT zeroblob(1000000)")


def _ask_absent(connection: sa.Connection) -> None:
    """Ask for a table that is not there."""
    connection.exec_driver_sql("SELECT * FROM absent")


def test_a_full_or_locked_database_is_no_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1, and make room or end what locks it; exit 2 for what must be changed."""
    monkeypatch.setattr("drainer.sources.database.store.BUSY_TIMEOUT", 0.01)
    url = f"sqlite:///{tmp_path}/spool.db"
    create_spool(url)
    store = DatabaseStore(sa.make_url(url), mapping_of({}))
    with pytest.raises(SourceLost, match="is full") as caught:
        store.write(_fill)
    assert (caught.value.exit_code, "make room" in caught.value.hint) == (1, True)
    other = sqlite3.connect(tmp_path / "spool.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SourceLost, match="locked") as caught:
        store.write(_fill)
    other.close()
    with pytest.raises(SourceError) as refused:
        store.read(_ask_absent)
    assert refused.value.exit_code == 2


def test_a_damaged_database_is_no_wrong_address(tmp_path: Path) -> None:
    """Exit 1, and where to look: the disk reads something else than was written."""
    url = f"sqlite:///{tmp_path}/spool.db"
    create_spool(url)
    with (tmp_path / "spool.db").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8000)
    store = DatabaseStore(sa.make_url(url), mapping_of({}))
    with pytest.raises(SourceLost, match="malformed") as caught:
        store.read(store.bound)
    assert (caught.value.exit_code, ".recover" in caught.value.hint) == (1, True)


def test_a_database_without_a_free_descriptor_names_the_limit(tmp_path: Path) -> None:
    """SQLite says only that it cannot open the file."""
    url = f"sqlite:///{tmp_path}/spool.db"
    create_spool(url)
    store = DatabaseStore(sa.make_url(url), mapping_of({}))
    store.read(store.bound)  # everything is loaded
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    filler = [os.open(os.devnull, os.O_RDONLY) for _ in range(used)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(filler) + 1, hard))
    try:
        with pytest.raises(SourceLost) as caught:
            store.read(store.bound)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in filler:
            os.close(each)
    assert "ulimit -n" in caught.value.hint


def test_a_file_that_is_lost_is_named_by_who_uses_it(tmp_path: Path) -> None:
    """A process that gets the store by pickle must be able to say what is wrong."""
    url = f"sqlite:///{tmp_path}/spool.db"
    create_spool(url)
    sent = pickle.dumps(DatabaseStore(sa.make_url(url), mapping_of({})))
    (tmp_path / "spool.db").unlink()
    store = pickle.loads(sent)  # noqa: S301 - our own
    with pytest.raises(SourceError, match="cannot read"):
        store.read(store.bound)
