"""The delay that a refusal states: taken where it is one, and left where it is not."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.reply import Stage
from drainer.policy.classify.retry_after import LONGEST, find_delay
from tests.support.scenarios.settlements import NOW, SCHEDULE, result, settled

SECONDS = {
    "Greylisted, try again in 5 minutes": 300,
    "Try again in 5 minutes.": 300,
    "Greylisted for 300 seconds (see the help page)": 300,
    "Please wait 1 min. and come back": 60,
    "try again after 2h": 7200,
    "not within the next 90 s, please": 90,
    "retry in about 10 minutes": 600,
    "wait at least 45 secs": 45,
    "retry in another 3 mins": 180,
    "please retry again in 10": 10,
    "Try again in 300.": 300,
    "retry after 0 seconds": 0,
    "come back in 00:04:59": 299,
    "wait 01:30:00 before the next try": 5400,
    "try again in 02:30": 150,
    "Greylisted. TRY AGAIN IN 4 MINUTES": 240,
    "try again in 2 days": 6 * 3600,
    "try again in 999999 hours": 6 * 3600,
    "after 3 tries, wait 20 minutes": 1200,
}
NONE = [
    "",
    "try again later",
    "mailbox full for 3 weeks",
    "try again in 2 weeks",
    "try again in 3 moons",
    "retry for 50% of the queue",
    "connection from 192.0.2.1 refused after 10 errors",
    "client in 192.0.2.1 is listed, retry",
    "policy of 5.7.1 for 550",
    "try again in 5.5.0",
    "after 30 June",
    "error in 12:345",
    "retry in 12345678",
    "5 minutes",
]


@pytest.mark.parametrize(("text", "seconds"), SECONDS.items())
def test_a_stated_delay_is_taken(text: str, seconds: int) -> None:
    """With its unit, whatever the punctuation behind it; at most six hours."""
    assert find_delay(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", NONE)
def test_other_numbers_are_no_delay(text: str) -> None:
    """Addresses, codes, dates, and units that nobody knows."""
    assert find_delay(text) is None


def test_what_follows_far_behind_is_not_read() -> None:
    """A text of megabytes costs nothing."""
    assert find_delay("x" * 600 + " try again in 5 minutes") is None


@given(st.text(alphabet="inafter 0123456789:.mhs\u0660", max_size=60))
def test_no_text_states_more_than_the_longest(text: str) -> None:
    """Nor less than nothing, nor is it an error."""
    found = find_delay(text)
    assert found is None or timedelta(0) <= found <= LONGEST


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("450 4.7.1 Greylisted, try again in 5 minutes", timedelta(minutes=5)),
        ("451 4.7.1 Greylisted, retry in 0 seconds", SCHEDULE.soonest),
        ("550 Greylisted, try again in 5 minutes", timedelta(minutes=5)),
        ("452 4.2.2 Mailbox full, try again in 5 minutes", SCHEDULE.long_first),
        ("450 4.2.0 Busy", SCHEDULE.first),
    ],
)
def test_it_decides_when_a_recipient_is_due_again(text: str, wait: timedelta) -> None:
    """Only of an ordinary retry: a full mailbox is not emptied by boilerplate."""
    (settlement,) = settled([result(text, Stage.RCPT)])
    assert settlement.due == NOW + wait
    assert settlement.spent == wait
