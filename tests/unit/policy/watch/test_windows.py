"""Drain windows: hours on days of the week, by the clock on the wall."""

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drainer.policy.watch.windows import DrainWindows, parse_hours, parse_time

BERLIN: Final = ZoneInfo("Europe/Berlin")


def berlin(moment: datetime) -> datetime:
    """Return the wall clock in Berlin."""
    return moment.astimezone(BERLIN)


def at(text: str) -> datetime:
    """Return a moment that is written in Berlin's time."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


@pytest.mark.parametrize(
    ("windows", "moment", "is_open"),
    [
        ([], "2026-11-25T12:00", True),
        (["22:00-06:00"], "2026-11-25T21:59", False),
        (["22:00-06:00"], "2026-11-25T22:00", True),
        (["22:00-06:00"], "2026-11-26T05:59", True),
        (["22:00-06:00"], "2026-11-26T06:00", False),
        (["sat,sun 00:00-24:00"], "2026-11-28T00:00", True),  # a Saturday
        (["sat,sun 00:00-24:00"], "2026-11-29T23:59", True),
        (["sat,sun 00:00-24:00"], "2026-11-30T00:00", False),
        (["fri 22:00-06:00"], "2026-11-28T05:00", True),  # Friday's night
        (["fri 22:00-06:00"], "2026-11-27T05:00", False),
        (["sun 22:00-06:00"], "2026-11-30T05:00", True),  # the week is a circle
        (["mon-fri 18:00-20:00"], "2026-11-27T19:00", True),
        (["mon-fri 18:00-20:00"], "2026-11-28T19:00", False),
        (["fri-mon 18:00-20:00"], "2026-11-30T19:00", True),
        (["01:00-02:00", "22:00-06:00"], "2026-11-25T01:30", True),
        # Clocks go back at 03:00 on 25 October: the hour from two comes twice.
        (["02:00-03:00"], "2026-10-25T02:30", True),
        # Clocks go forward at 02:00 on 29 March: 03:00 follows.
        (["03:00-04:00"], "2026-03-29T03:00", True),
    ],
)
def test_a_window_is_open_by_the_clock_on_the_wall(
    windows: list[str],
    moment: str,
    is_open: bool,  # noqa: FBT001 - of the table
) -> None:
    """From its first minute to its last; past midnight it is the day's before."""
    assert parse_hours(windows).are_open(at(moment), berlin) is is_open


def test_an_hour_that_comes_twice_is_open_twice() -> None:
    """On the day when clocks go back."""
    hours = parse_hours(["02:00-03:00"])
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert hours.are_open(first, berlin)
    assert hours.are_open(first + timedelta(hours=1), berlin)
    assert not hours.are_open(first + timedelta(hours=2), berlin)
    assert hours.next_change(first, berlin) == first + timedelta(minutes=90)


@pytest.mark.parametrize(
    ("windows", "moment", "change"),
    [
        (["22:00-06:00"], "2026-11-25T12:00", "2026-11-25T22:00"),
        (["22:00-06:00"], "2026-11-25T23:00", "2026-11-26T06:00"),
        (["22:00-06:00"], "2026-03-28T23:00", "2026-03-29T06:00"),  # an hour shorter
        (["sat 10:00-11:00"], "2026-11-28T11:00", "2026-12-05T10:00"),
    ],
)
def test_the_next_change_is_reported(
    windows: list[str], moment: str, change: str
) -> None:
    """So that a person reads until when it waits."""
    assert parse_hours(windows).next_change(at(moment), berlin) == at(change)


@pytest.mark.parametrize("windows", [[], ["00:00-24:00"]])
def test_hours_that_never_close_have_no_next_change(windows: list[str]) -> None:
    """Neither none nor all of them."""
    now = at("2026-11-25T12:00")
    assert parse_hours(windows).next_change(now, berlin) is None


@pytest.mark.parametrize(
    "text",
    ["", "22-06", "24:00-06:00", "10:00-10:00", "10:60-11:00", "10:00-24:01",
     "son 10:00-11:00", "mon-funday 10:00-11:00", "10:00-11:00 mon", "x" * 10_000],
)  # fmt: skip
def test_what_is_no_window_is_refused_with_an_example(text: str) -> None:
    """The configuration says what is legal."""
    with pytest.raises(ValueError, match=r"write e\.g\. 22:00-06:00"):
        parse_hours([text])


def test_a_time_of_day_has_a_minute() -> None:
    """And nothing else passes."""
    assert parse_time("07:05") == 425
    for text in ("24:00", "7", "07:60", "seven"):
        with pytest.raises(ValueError, match="time of day"):
            parse_time(text)


_WRITTEN = st.builds(
    "{} {:02}:00-{:02}:30".format,
    st.sampled_from(["mon", "tue,thu", "fri-mon", "sat,sun", "mon-sun"]),
    st.integers(0, 23),
    st.integers(0, 23),
)


@settings(max_examples=25)  # a week by the minute, each
@given(
    st.lists(_WRITTEN, min_size=1, max_size=3),
    st.datetimes(
        min_value=datetime(2026, 3, 20),  # noqa: DTZ001 - UTC is laid over it
        max_value=datetime(2026, 11, 1),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
)
def test_nothing_changes_before_the_next_change(
    windows: list[str], now: datetime
) -> None:
    """And at that minute it does, whatever the clocks do."""
    hours: DrainWindows = parse_hours(windows)
    change = hours.next_change(now, berlin)
    before = hours.are_open(now, berlin)
    if change is None:
        return
    assert hours.are_open(change, berlin) is not before
    assert change > now
    assert hours.are_open(change - timedelta(minutes=1), berlin) is before
