"""How the quoting of an mbox is undone."""

import re
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from drainer.sources.mbox.quotes import unquote


def quoted(content: bytes, variant: str) -> bytes:
    """Quote as a writer of the variant does."""
    pattern = {"mboxrd": rb"(?m)^(>*From )", "mboxcl2": rb"(?!)"}
    return re.sub(pattern.get(variant, rb"(?m)^(From )"), rb">\1", content)


def chunked(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut into pieces of these sizes, again and again."""
    pieces = []
    while data:
        for size in sizes:
            pieces.append(data[:size])
            data = data[size:]
    return pieces


LINES = st.lists(
    st.sampled_from(
        [b"From ", b">From ", b">>From ", b">>>", b"From", b"\n", b"x", b">", b"\r\n"]
    ),
    max_size=12,
).map(b"".join)
SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=4)


@given(LINES | st.binary(max_size=80), SIZES)
def test_quoting_of_mboxrd_is_undone_exactly(content: bytes, sizes: list[int]) -> None:
    """Wherever a chunk ends."""
    pieces = chunked(quoted(content, "mboxrd"), sizes)
    assert b"".join(unquote(pieces, "mboxrd")) == content


@given(LINES | st.binary(max_size=80), SIZES)
def test_quoting_of_mboxo_is_undone_but_for_what_it_confuses(
    content: bytes, sizes: list[int]
) -> None:
    """A line that was ``>From `` itself loses its sign, and only that."""
    expected = re.sub(rb"(?m)^>From ", b"From ", content)
    for variant in ("mboxo", "mboxcl"):
        pieces = chunked(quoted(content, variant), sizes)
        assert b"".join(unquote(pieces, variant)) == expected
    for variant in ("plain", "mboxcl2"):
        assert b"".join(unquote(chunked(content, sizes), variant)) == content


def test_an_endless_quote_is_not_held_in_memory() -> None:
    """Each chunk of signs leaves at once, but for one."""
    chunks = [b">" * 1000] * 100 + [b"From x\n"]
    out = list(unquote(chunks, "mboxrd"))
    assert b"".join(out) == b">" * (100_000 - 1) + b"From x\n"
    assert max(map(len, out)) <= 1010
