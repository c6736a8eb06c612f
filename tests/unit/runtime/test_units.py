"""Durations and sizes as people write them, and as they read them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.runtime.units import (
    describe_duration,
    format_duration,
    format_size,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h", 3600),
        ("5d", 432_000),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        (" 2 m ", 120),
        ("2M", 120),
        ("0", 0),
        ("0s", 0),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    """Several parts add up."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "5", "5x", "m", "-5s", "1e3s", "5 s x", "1h-30m", "s5", "5,5s", "nan", "1w",  # noqa: E501
        "9" * 400 + "d", "999999999999d", "1..5s", None, True, 60, 1.5,
    ],
)  # fmt: skip
def test_what_is_no_duration_says_what_would_be_one(text: object) -> None:
    """Also a number without a unit, and one that no calendar holds."""
    with pytest.raises(
        ValueError, match=r"is not a valid duration; write e.g. 90s, 10m"
    ):
        parse_duration(text)


def test_a_duration_stays_one() -> None:
    """Defaults pass through."""
    assert parse_duration(timedelta(hours=2)) == timedelta(hours=2)


@given(st.integers(0, 10**8))
def test_a_written_duration_is_read_back(seconds: int) -> None:
    """In its largest fitting unit."""
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


@given(st.integers(0, 10**9))
def test_any_fraction_is_read_back(milliseconds: int) -> None:
    """Down to the millisecond."""
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 m"),
        (250, "4 m 10 s"),
        (3600, "1 h"),
        (183_661, "2 d 3 h"),
    ],
)
def test_people_read_two_units_at_most(seconds: float, text: str) -> None:
    """The largest ones."""
    assert describe_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (4096, "4.1 kB"),
        (23_000_000, "23.0 MB"),
        (5e12, "5000.0 GB"),
    ],
)
def test_people_read_a_size_with_a_unit(size: float, text: str) -> None:
    """Decimal units, as disks and mail limits are stated."""
    assert format_size(size) == text


@pytest.mark.timeout(5)
def test_a_text_without_end_is_no_duration() -> None:
    """Looking for parts in it would take minutes."""
    with pytest.raises(ValueError, match="not a valid duration"):
        parse_duration("9" * 100_000)
