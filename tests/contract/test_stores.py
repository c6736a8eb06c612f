"""What a source promises that is read only and no folder of message files.

An mbox, an archive in each packing, and an export of Postfix's tools; what they
share with the others is asked in the same words as in test_sources.py.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from drainer.errors import MessageUnreadable, SourceError
from drainer.mail.message import SpooledMessage
from drainer.sources.archive import source as archive
from tests.contract.test_sources import CONTENT, as_nobody, content_of, measure, tree
from tests.support.spools.store_kits import STORES, Store

MAILS = [(f"m{number}", "body") for number in range(3)]
BIG = "y\n" * 200_000


@pytest.fixture(params=list(STORES.values()), ids=list(STORES))
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Give each kind in turn."""
    chosen: Store = request.param
    yield chosen
    archive.remove_all()


@pytest.fixture
def root(store: Store) -> Iterator[Path]:
    """Give a path in a folder that other users may walk to, unlike pytest's own."""
    base = Path(tempfile.mkdtemp(prefix="drainer-store-"))
    base.chmod(0o755)
    yield base / f"spool{store.suffix}"
    shutil.rmtree(base)


def by_subject(found: Iterator[SpooledMessage]) -> dict[str, SpooledMessage]:
    """Return messages by their Subject."""
    return {
        content_of(each).partition(b"Subject: ")[2].split(b"\r")[0].decode(): each
        for each in found
    }


def test_every_message_is_listed_with_envelope_and_content(
    store: Store, root: Path
) -> None:
    """Sender, recipients, size and the content as the backup accepted it."""
    store.write(root, MAILS)
    source = store.open(root)
    found = by_subject(source.scan())
    assert sorted(found) == ["m0", "m1", "m2"]
    message = found["m1"].message
    assert message.problem is None
    assert message.source == source.url
    assert source.url.endswith(f":{root.resolve()}")
    assert message.envelope.reverse_path == "s@example.com"
    assert [each.forward_path for each in message.envelope.recipients] == [
        "r@example.org"
    ]
    assert content_of(found["m1"]).decode() == CONTENT.format("m1", "body")
    assert message.size_bytes == len(content_of(found["m1"]))
    assert message.arrived.tzinfo is not None
    assert source.open(message).message == message


def test_content_may_be_read_again(store: Store, root: Path) -> None:
    """A retry reads the same bytes, held in memory or not."""
    store.write(root, [("x", "y\n" * size) for size in (10, 50_000, 250_000)])
    for spooled in store.open(root).scan():
        assert content_of(spooled) == content_of(spooled)


def test_scanning_and_reading_change_nothing(store: Store, root: Path) -> None:
    """Reading is harmless, acknowledging too: the ledger alone remembers."""
    store.write(root, [*MAILS, ("big", BIG)])
    before = tree(root.parent)
    source = store.open(root)
    for spooled in source.scan():
        content_of(spooled)
        source.open(spooled.message)
        assert source.acknowledge([spooled.message]) == []
    assert not source.acknowledges
    source.refuse_if_live()
    assert tree(root.parent) == before


def test_closing_a_scan_halfway_leaves_nothing_open(store: Store, root: Path) -> None:
    """No descriptor is left behind, nor after a complete one."""
    store.write(root, MAILS)
    source = store.open(root)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    scan = source.scan()
    next(scan)
    scan.close()  # type: ignore[attr-defined]
    assert len(list(source.scan())) == 3
    assert len(list(descriptors.iterdir())) == before


def test_what_is_no_such_store_is_refused(store: Store, root: Path) -> None:
    """Absent, a pipe, an empty folder: an error with a hint, exit 2."""
    (root.parent / "empty").mkdir()
    os.mkfifo(root)
    for path in (root, root.parent / "empty", root.parent / f"absent{store.suffix}"):
        with pytest.raises(SourceError) as caught:
            store.open(path)
        assert caught.value.hint
        assert caught.value.exit_code == 2


def test_a_store_that_may_not_be_read_is_refused(store: Store, root: Path) -> None:
    """Permission denied is said, with what to do."""
    store.write(root, MAILS)
    root.chmod(0o000)

    def look() -> str:
        try:
            store.open(root)
        except SourceError as error:
            return error.hint
        return "it was read"

    hint = as_nobody(look)
    assert "owner" in hint or "may read it" in hint


def test_a_copy_has_the_same_ids(store: Store, root: Path) -> None:
    """Neither the name nor the place of the store takes part."""
    store.write(root, [*MAILS, ("big", BIG)])
    ids = ids_of(store, root)
    copy = root.with_name(f"copy{store.suffix}")
    (shutil.copytree if root.is_dir() else shutil.copy)(root, copy)
    assert ids_of(store, copy) == ids
    assert len(set(ids.values())) == 4


def ids_of(store: Store, root: Path) -> dict[str, str]:
    """Return the ids of messages by their Subject."""
    found = by_subject(store.open(root).scan())
    return {name: each.message.id for name, each in found.items()}


def test_a_store_that_is_exchanged_is_not_mixed_up(store: Store, root: Path) -> None:
    """What was listed is sent as it was, or not at all."""
    store.write(root, [("old", BIG)])
    source = store.open(root)
    (spooled,) = source.scan()
    whole = content_of(spooled)
    store.write(root, [("new", BIG)])
    if isinstance(source, archive.ArchiveSource):  # it was read when it was opened
        assert content_of(spooled) == whole
        return
    with pytest.raises(MessageUnreadable, match="vanished"):
        content_of(spooled)
    with pytest.raises(MessageUnreadable, match="vanished"):
        source.open(spooled.message)


@pytest.mark.parametrize("line", [78, 40_000_000], ids=["lines", "endless lines"])
@pytest.mark.parametrize(
    "store", [STORES[name] for name in ("mbox", "postcat", "tar.zst", "zip")]
)
def test_memory_does_not_grow_with_the_message(
    store: Store, root: Path, line: int
) -> None:
    """40 MB take at most 16 MB more than 10 kB."""
    size = 40_000_000
    body = ("y" * line + "\n") * (size // line)
    store.write(root, [("x", body[:10_000])])
    url = store.open(root).url
    _, least = measure(url)
    store.write(root, [("x", body)])
    total, peak = measure(url)
    assert total >= size
    assert peak - least < 16 * 1024
