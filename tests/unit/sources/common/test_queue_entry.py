"""What a message of a queue directory is told by, and how much of it is read."""

from collections.abc import Iterator

from drainer.sources.common.queue_entry import frame, frame_damage, read_start


def chunks(count: int, seen: list[int]) -> Iterator[bytes]:
    """Yield chunks of ten bytes, and record that each was read."""
    for number in range(count):
        seen.append(number)
        yield b"0123456789"


def test_a_content_up_to_the_limit_is_read_whole() -> None:
    """It is whole, also when it has exactly as many bytes."""
    assert read_start(chunks(0, []), 20) == (b"", True)
    assert read_start(chunks(2, []), 20) == (b"0123456789" * 2, True)


def test_a_content_beyond_the_limit_is_not_read_on() -> None:
    """The size that a file claims plays no part: reading stops at the limit."""
    seen: list[int] = []
    start, is_whole = read_start(chunks(1000, seen), 20)
    assert (start, is_whole) == (b"0123456789" * 3, False)
    assert seen == [0, 1, 2]


def test_different_parts_never_frame_to_the_same_bytes() -> None:
    """Otherwise a stranger could give two messages one identity."""
    assert frame(b"ab", b"c") != frame(b"a", b"bc")
    assert frame(b"a") != frame(b"a", b"")
    assert frame(b"1\na") != frame(b"1", b"a")


def test_damage_is_told_apart_by_name_and_start() -> None:
    """Only the first 4 KiB of a damaged file count."""
    assert frame_damage("a", b"x") != frame_damage("b", b"x")
    assert frame_damage("a", b"x") != frame_damage("a", b"y")
    assert frame_damage("a", b"x" * 4097) == frame_damage("a", b"x" * 4096 + b"y")
