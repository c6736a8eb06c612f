"""Finding again what has moved in a spool."""

import os
import pickle
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from drainer.sources.common.index import PathIndex

_NAMES = st.binary(min_size=1, max_size=6).map(
    lambda raw: os.fsdecode(raw.replace(b"\0", b"n").replace(b"/", b"s"))
)


@given(st.lists(st.tuples(_NAMES, _NAMES, _NAMES)), _NAMES)
def test_every_path_of_a_key_is_found_and_no_other(
    names: list[tuple[str, str, str]], absent: str
) -> None:
    """Whatever bytes names have, and however often one stands there."""
    listed = [(key, f"{folder}/{name}") for key, folder, name in names]
    found = PathIndex(lambda: listed)
    for key in (*(key for key, _ in listed), absent):
        assert list(found.find(key)) == [path for each, path in listed if each == key]


class _Spool:
    """A spool that counts how often it is listed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.listed = 0

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield what a reader has moved."""
        self.listed += 1
        return ((f"m{n}", f"cur/m{n}:2,Sa") for n in range(self.size))


def test_one_listing_of_a_large_spool_serves_many() -> None:
    """However many messages have moved, most of the time is not spent listing."""
    spool = _Spool(100_000)
    found = PathIndex(spool.names)
    for n in range(1000):
        assert list(found.find(f"m{n}")) == [f"cur/m{n}:2,Sa"]
    assert 0 < spool.listed < 100


def test_a_small_spool_is_looked_at_as_it_is_now() -> None:
    """What moved a moment ago is found there."""
    spool = _Spool(1)
    found = PathIndex(spool.names)
    assert not list(found.find("m1"))
    spool.size = 2
    assert list(found.find("m1")) == ["cur/m1:2,Sa"]


def test_what_was_listed_does_not_travel_to_another_process() -> None:
    """A source goes to the process that scans; a million names would go along."""
    spool = _Spool(100_000)
    found = PathIndex(spool.names)
    list(found.find("m1"))
    sent = pickle.dumps(found)
    assert len(sent) < 1000
    again: PathIndex = pickle.loads(sent)  # noqa: S301 - from above
    assert list(again.find("m2")) == ["cur/m2:2,Sa"]
