"""Rates as people write them, bursts, and what a restart may still send."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.policy.pacing.rate import Rate, message_rate, parse_rate, parse_size

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("text", "per_second"),
    [
        ("20/second", 20),
        ("20/s", 20),
        ("20/sec", 20),
        ("90/minute", 1.5),
        ("90/m", 1.5),
        ("90/min", 1.5),
        ("1000/hour", 1000 / 3600),
        ("1000/h", 1000 / 3600),
        (" 20 / seconds ", 20),
        ("0.5/second", 0.5),
        ("unlimited", None),
        (" Unlimited ", None),
    ],
)
def test_a_rate_is_a_number_per_time(text: str, per_second: float | None) -> None:
    """Per second, minute or hour; or no limit."""
    assert parse_rate(text) == per_second


@pytest.mark.parametrize(
    ("text", "per_second"),
    [
        ("5MB/second", 5_000_000),
        ("64KiB/s", 65_536),
        ("500 kB/minute", 500_000 / 60),
        ("1GiB/hour", 2**30 / 3600),
        ("100/s", 100),
    ],
)
def test_a_sized_rate_takes_units(text: str, per_second: float) -> None:
    """Decimal and binary ones, in any case."""
    assert parse_rate(text, sized=True) == pytest.approx(per_second)
    assert parse_rate(
        text.upper()
        .replace("/SECOND", "/second")
        .replace("/S", "/s")
        .replace("/MINUTE", "/minute")
        .replace("/HOUR", "/hour"),
        sized=True,
    ) == pytest.approx(per_second)


BAD = [
    "", "0", "20", "/second", "0/second", "0.0/hour", "-1/second", "20/day", "20/", "fast",  # noqa: E501
    "20 per second", "1e9/second", "nan/second", "inf/second", "20/second/second", "20//s",  # noqa: E501
    "9" * 400 + "/second", "1,5/s", "5XB/second",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_an_impossible_rate_says_what_is_possible(text: str) -> None:
    """Nothing that is no number, and none that would send nothing or everything."""
    with pytest.raises(ValueError, match=r"rate"):
        parse_rate(text)
    with pytest.raises(ValueError, match=r"rate"):
        parse_rate(text, sized=True)


def test_messages_have_no_unit_of_size() -> None:
    """5MB/second is a rate of bytes."""
    with pytest.raises(ValueError, match=r"write e.g. 20/second, 90/minute, 1000/hour"):
        parse_rate("5MB/second")


@pytest.mark.parametrize(
    ("per_second", "burst"),
    [(0.01, 1), (1, 1), (3, 3), (10, 4), (20, 4), (100, 10), (500, 50)],
)
def test_the_usual_burst_is_a_tenth_of_a_second_and_at_least_four(
    per_second: float, burst: float
) -> None:
    """Timers are coarse, and drains may share it; but never over one second's worth."""
    assert message_rate(per_second, None).burst == pytest.approx(burst)


@pytest.mark.parametrize(
    ("per_second", "burst"), [(10, 10), (10, 1), (0.1, 1), (2.5, 2)]
)
def test_a_burst_of_at_most_one_second_is_legal(per_second: float, burst: int) -> None:
    """A slow rate may still send one message."""
    rate = message_rate(per_second, burst)
    assert (rate.per_second, rate.burst) == (per_second, burst)


@pytest.mark.parametrize(
    ("per_second", "burst", "most"),
    [(10, 11, 10), (10, 0, 10), (10, -1, 10), (0.1, 2, 1), (2.5, 3, 2)],
)
def test_a_burst_beyond_one_second_is_refused(
    per_second: float, burst: int, most: int
) -> None:
    """And the message names what is legal."""
    with pytest.raises(ValueError, match=f"legal is 1 to {most} "):
        message_rate(per_second, burst)


@given(st.floats(0.001, 10_000))
def test_the_burst_is_between_one_and_one_second_for_any_rate(
    per_second: float,
) -> None:
    """Promise P3 rests on it."""
    rate = message_rate(per_second, None)
    assert 1 <= rate.burst <= max(1, per_second)
    assert rate.period == pytest.approx(rate.burst / per_second)


# ---- a restart


RATE = Rate(per_second=10, burst=5)


@pytest.mark.parametrize(
    ("idle", "level"), [(0, 5), (0.1, 4), (0.25, 2.5), (0.5, 0), (3600, 0), (-10, 5)]
)
def test_what_is_left_in_the_bucket_after_a_pause(idle: float, level: float) -> None:
    """A clock that was set back never makes it fuller than full."""
    assert RATE.level_after(idle * SECOND) == pytest.approx(level)


@given(st.floats(0.01, 1000), st.floats(0, 1000))
def test_a_run_and_its_successor_together_keep_the_bound(
    per_second: float, idle: float
) -> None:
    """The successor may send at once only what the pause has earned."""
    rate = message_rate(per_second, None)
    allowed = rate.burst - rate.level_after(idle * SECOND)
    assert allowed <= per_second * idle + 1e-6 * max(1, per_second)


# ---- sizes


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("1000", 1000),
        ("5MB", 5_000_000),
        ("64KiB", 65_536),
        ("1.5kB", 1500),
        (" 2 gb ", 2 * 10**9),
    ],
)
def test_a_size_is_a_number_and_a_unit(text: str, octets: int) -> None:
    """Octets when there is none."""
    assert parse_size(text) == octets


@pytest.mark.parametrize("text", ["", "MB", "5XB", "-1", "5 M B", "1e6", "9" * 400])
def test_what_is_no_size_says_what_would_be_one(text: str) -> None:
    """For --larger-than."""
    with pytest.raises(ValueError, match=r"is not a size"):
        parse_size(text)


@given(st.floats(0.01, 1000), st.floats(1, 1000), st.floats(0.01, 1))
def test_a_share_of_a_rate_drains_as_fast(
    per_second: float, burst: float, share: float
) -> None:
    """Rate and burst shrink alike, so that its period stays."""
    rate = Rate(per_second=per_second, burst=burst)
    part = rate.part(share)
    assert part.period == pytest.approx(rate.period)
    assert part.per_second == pytest.approx(per_second * share)
    assert rate.sharers == max(1, int(burst))
